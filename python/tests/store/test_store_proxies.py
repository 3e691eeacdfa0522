"""Proxies of stored objects, their factories, and how they travel."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import (
    Any,
    ClassVar,
)

import numpy as np
import pytest

from proxystore_rs.factory import Factory
from proxystore_rs.proxy import Proxy, ProxyLocker, ProxyResolveError, extract, is_resolved
from proxystore_rs.store import (
    Store,
    StoreFactory,
    get_store,
)
from proxystore_rs.store.exceptions import (
    NonProxiableTypeError,
    ProxyResolveMissingKeyError,
)
from proxystore_rs.store.registry import unregister_store


def test_proxies_travel_by_reference(store: Store[Any]) -> None:
    proxy = store.proxy({"a": list(range(1000))})
    assert is_resolved(proxy)
    sent = pickle.dumps(proxy)
    received = pickle.loads(sent)
    assert not is_resolved(received)
    assert isinstance(received, dict)  # a fact in the reference
    assert not is_resolved(received)
    assert received["a"][-1] == 999
    assert is_resolved(received)


def test_a_pickled_proxy_is_small(make_store: Callable[..., Store[Any]]) -> None:
    for kind in ("memory", "file", "shm"):
        store = make_store(kind)
        sent = pickle.dumps(store.proxy(np.arange(10)))
        config = store.connector.config()
        place = config["store_dir"] if kind == "file" else config["name"]
        assert len(sent) <= 200 + len(store.name) + len(place)  # names of tests are long


def test_populate_target_is_optional(store: Store[Any]) -> None:
    obj = [1]
    assert extract(store.proxy(obj)) is obj
    unresolved = store.proxy(obj, populate_target=False)
    assert not is_resolved(unresolved)
    assert unresolved == [1]
    assert extract(unresolved) is not obj


def test_evict_on_first_resolve(store: Store[Any]) -> None:
    proxy = store.proxy("once", evict=True, populate_target=False)
    copy = pickle.loads(pickle.dumps(proxy))
    key = proxy.__proxy_factory__.key
    assert copy == "once"
    assert not store.exists(key)
    with pytest.raises(ProxyResolveError) as caught:
        str(proxy)
    assert isinstance(caught.value.__cause__, ProxyResolveMissingKeyError)
    assert store.name in str(caught.value.__cause__)
    assert not is_resolved(proxy)


def test_none_and_bool_cannot_be_proxied(store: Store[Any]) -> None:
    for value in (None, True, False):
        with pytest.raises(NonProxiableTypeError, match="skip_nonproxiable"):
            store.proxy(value)
        assert store.proxy(value, skip_nonproxiable=True) is value
        assert store.locked_proxy(value) is value
    assert store.get(store.put(None), default=1) is None


def test_proxy_from_key(store: Store[Any]) -> None:
    proxy: Proxy[Any] = store.proxy_from_key(store.put([1, 2]))
    assert not is_resolved(proxy)
    assert sum(proxy) == 3
    assert proxy.__proxy_factory__.get_store() is store


def test_a_factory_shows_store_and_key(store: Store[Any]) -> None:
    key = store.put([1])
    shown = repr(StoreFactory(key, store.config()))
    assert store.name in shown
    assert key[0] in shown
    assert "not set up" in repr(StoreFactory.__new__(StoreFactory))
    with pytest.raises(TypeError, match="StoreConfig"):
        StoreFactory(key, store.name)


def test_looking_at_a_key_opens_no_store(store: Store[Any]) -> None:
    from proxystore_rs.store.utils import get_key

    key = store.put([1])
    received = pickle.loads(pickle.dumps(store.proxy_from_key(key)))
    unregister_store(store)
    assert get_key(received) == key
    assert type(get_key(received)) is type(key)
    assert get_store(store.name) is None
    assert not is_resolved(received)


class Counted(Store[Any]):
    """A subclass whose own `put` and `get` count."""

    calls: ClassVar[list[str]] = []

    def put(self, obj: Any, **options: Any) -> Any:
        self.calls.append("put")
        return super().put(obj, **options)

    def get(self, key: Any, **options: Any) -> Any:
        self.calls.append("get")
        return super().get(key, **options)


def test_proxies_go_through_the_methods_of_a_subclass(store: Store[Any]) -> None:
    counted = Counted(f"counted-{store.name}", store.connector)
    proxy = counted.proxy(
        [1], populate_target=False, serializer=pickle.dumps, deserializer=pickle.loads
    )
    assert proxy == [1]
    assert Counted.calls == ["put", "get"]
    gone = counted.proxy([2], populate_target=False)
    counted.evict(gone.__proxy_factory__.key)
    with pytest.raises(ProxyResolveError) as caught:
        len(gone)
    assert isinstance(caught.value.cause, ProxyResolveMissingKeyError)
    Counted.calls.clear()


def test_locked_proxies(store: Store[Any]) -> None:
    locked = store.locked_proxy([1])
    assert isinstance(locked, ProxyLocker)
    assert locked.unlock() == [1]
    assert pickle.loads(pickle.dumps(locked)).unlock() == [1]


class Labelled(StoreFactory[Any, Any]):
    """A subclass with an attribute of its own."""

    def __init__(self, key: Any, store_config: Any, label: str, **options: Any) -> None:
        super().__init__(key, store_config, **options)
        self.label = label

    def resolve(self) -> Any:
        return {self.label: super().resolve()}


def test_subclasses_of_the_factory_travel(store: Store[Any]) -> None:
    assert isinstance(store.proxy([1]).__proxy_factory__, Factory)
    factory = Labelled(store.put([1]), store.config(), "a", evict=True)
    copy = pickle.loads(pickle.dumps(factory))
    assert (type(copy), copy.label, copy.evict, copy.key) == (Labelled, "a", True, factory.key)
    proxy = pickle.loads(pickle.dumps(Proxy(factory)))
    assert proxy == {"a": [1]}
    assert not store.exists(factory.key)


def test_background_resolve(store: Store[Any]) -> None:
    from proxystore_rs.store.utils import get_key, resolve_async

    proxy = store.proxy(np.arange(1000), populate_target=False)
    resolve_async(proxy)
    resolve_async(proxy)
    assert proxy.sum() == 499_500
    assert store.get(get_key(proxy)) is not None
    gone = store.proxy("x", populate_target=False)
    store.evict(get_key(gone))
    resolve_async(gone)
    with pytest.raises(ProxyResolveError):
        str(gone)


def test_a_proxys_own_deserializer_travels(store: Store[Any]) -> None:
    proxy = store.proxy(
        [1, 2], serializer=pickle.dumps, deserializer=pickle.loads, populate_target=False
    )
    received = pickle.loads(pickle.dumps(proxy))
    assert received == [1, 2]
    assert received.__proxy_factory__.deserializer is pickle.loads


def test_a_stores_serializers_travel(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory", serializer=pickle.dumps, deserializer=pickle.loads)
    proxy = store.proxy([1, 2])
    sent = pickle.dumps(proxy)
    unregister_store(store)
    assert pickle.loads(sent) == [1, 2]
    other = get_store(store.name)
    assert other is not None and other is not store
    assert other.serializer is pickle.dumps
    other.close()


def test_local_serializers_travel_where_cloudpickle_is_installed(
    make_store: Callable[..., Store[Any]],
) -> None:
    pytest.importorskip("cloudpickle")
    store = make_store("memory", serializer=lambda obj: pickle.dumps(obj), deserializer=_loads())
    sent = pickle.dumps(store.proxy([1, 2]))
    unregister_store(store)
    assert pickle.loads(sent) == [1, 2]
    other = get_store(store.name)
    assert other is not None
    other.close()


def _loads() -> Callable[[Any], Any]:
    return lambda data: pickle.loads(data)


def test_serializers_that_cannot_travel_serve_their_process(
    make_store: Callable[..., Store[Any]],
) -> None:
    import threading

    class Loads:
        lock = threading.Lock()

        def __init__(self) -> None:
            self.own = threading.Lock()

        def __call__(self, data: Any) -> Any:
            return pickle.loads(data)

    store = make_store("memory", serializer=pickle.dumps, deserializer=Loads())
    assert store.get(store.put([1])) == [1]
    sent = pickle.dumps(store.proxy([1]))
    unregister_store(store)
    with pytest.raises(ProxyResolveError) as caught:
        len(pickle.loads(sent))
    assert "deserializer" in str(caught.value.cause)
