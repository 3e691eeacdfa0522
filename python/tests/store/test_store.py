"""What a store does beside keeping objects: keys, cache, batches, registry, metrics."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import (
    Any,
)

import numpy as np
import pytest

from proxystore_rs.proxy import Proxy
from proxystore_rs.store import (
    Store,
    get_or_create_store,
    get_store,
    open_store,
)
from proxystore_rs.store.exceptions import (
    NonProxiableTypeError,
    ProxyStoreFactoryError,
    StoreExistsError,
)
from proxystore_rs.store.registry import register_store, store_registration, unregister_store


def test_absent_keys(store: Store[Any]) -> None:
    key = store.put("x")
    assert store.exists(key)
    store.evict(key)
    store.evict(key)
    assert not store.exists(key)
    assert store.get(key) is None
    assert store.get(key, default=7) == 7


def test_keys_are_named_tuples(store: Store[Any]) -> None:
    key = store.put("x")
    assert isinstance(key, tuple)
    assert hasattr(key, "_replace")
    assert pickle.loads(pickle.dumps(key)) == key
    assert store.get(type(key)(*key)) == "x"


def test_the_cache_keeps_objects_by_key(store: Store[Any]) -> None:
    key = store.put([1])
    assert not store.is_cached(key)
    first = store.get(key)
    assert store.is_cached(key)
    assert store.get(key) is first
    store.evict(key)
    assert not store.is_cached(key)


def test_evicting_by_name_alone_clears_the_cache(make_store: Callable[..., Store[Any]]) -> None:
    for kind in ("memory", "file", "shm"):
        store = make_store(kind)
        key = store.put([1])
        assert store.get(key) == [1]
        store.evict(type(key)(key[0]))
        assert not store.exists(key)
        assert store.get(key) is None


def test_the_cache_has_a_face_of_its_own(store: Store[Any]) -> None:
    key = store.put([1])
    assert store.cache.get(key, "absent") == "absent"
    store.cache.set(key, "planted")
    assert store.cache.exists(key)
    assert store.get(key) == store.cache.get(key) == "planted"
    store.cache.evict(key)
    assert store.get(key) == [1]


def test_batches(store: Store[Any]) -> None:
    keys = store.put_batch(["a", "b", np.arange(3)])
    assert [store.get(keys[0]), store.get(keys[1])] == ["a", "b"]
    assert store.put_batch([]) == []
    proxies = store.proxy_batch(["a", None, "b"], skip_nonproxiable=True)
    assert proxies[1] is None
    assert [str(proxies[0]), str(proxies[2])] == ["a", "b"]
    with pytest.raises(NonProxiableTypeError):
        store.proxy_batch(["a", True])


def test_a_store_cannot_be_pickled_but_its_configuration_can(store: Store[Any]) -> None:
    with pytest.raises(TypeError, match="config"):
        pickle.dumps(store)
    config = pickle.loads(pickle.dumps(store.config()))
    assert config == store.config()


def test_the_registry(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory")
    assert get_store(store.name) is store
    assert get_store(store.proxy([1])) is store
    assert get_or_create_store(store.config()) is store
    with pytest.raises(ProxyStoreFactoryError):
        get_store(Proxy(list))
    from proxystore_rs.connectors.memory import MemoryConnector

    twin = Store(store.name, MemoryConnector("elsewhere"))
    with pytest.raises(StoreExistsError):
        register_store(twin)
    unregister_store(store.name)
    unregister_store("never seen")
    assert get_store(store.name) is None
    with pytest.raises(ZeroDivisionError), store_registration(twin):
        assert get_store(store.name) is twin
        raise ZeroDivisionError
    assert get_store(store.name) is None


def test_a_registration_that_fails_halfway_is_undone(make_store: Callable[..., Store[Any]]) -> None:
    from proxystore_rs.connectors.memory import MemoryConnector

    known = make_store("memory")
    first, second = Store("first", known.connector), Store(known.name, MemoryConnector("elsewhere"))
    with pytest.raises(StoreExistsError), store_registration(first, second):
        pass
    assert get_store("first") is None
    assert get_store(known.name) is known


def test_connectors_close_at_the_end_of_a_with_block(store: Store[Any]) -> None:
    from proxystore_rs.exceptions import StoreClosedError

    with store.connector as connector:
        assert connector is store.connector
        key = connector.put(b"x")
    if not hasattr(connector, "url"):
        return  # closing a dictionary does nothing
    with pytest.raises(StoreClosedError):
        connector.get(key)


def test_open_store_by_url(tmp_path: Any) -> None:
    for url in ("memory://by-url", f"file://{tmp_path}/by-url", "shm://test-by-url"):
        store = open_store(url)
        assert open_store(url) is store
        received = pickle.loads(pickle.dumps(store.proxy([1], populate_target=False)))
        assert received == [1]
        store.close(clear=True)
    with pytest.raises(ValueError, match="carrier-pigeon"):
        open_store("carrier-pigeon://loft")


def test_directories_of_any_name(tmp_path: Any) -> None:
    from proxystore_rs.connectors.file import FileConnector

    for name in (
        f"/{tmp_path}/two",
        f"{tmp_path}/a b%20?#é",
        f"{tmp_path}/\udcff",
        f"{tmp_path}/x/",
    ):
        store = Store("any-directory", FileConnector(name), register=True)
        assert get_or_create_store(store.config()) is store
        sent = pickle.dumps(store.proxy([1], populate_target=False))
        unregister_store(store)
        assert pickle.loads(sent) == [1]
        other = get_store(store.name)
        assert other is not None and other.config() == store.config()
        other.close()
        store.close()


def test_metrics(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory", metrics=True)
    key = store.put([1, 2, 3])
    store.get(key)
    store.get(key)
    assert store.metrics is not None
    metrics = store.metrics.get_metrics(key)
    assert metrics is not None
    assert metrics.times["store.put"].count == 1
    assert metrics.times["store.get"].count == 2
    assert metrics.counters == {"store.get.cache_hits": 1, "store.get.cache_misses": 1}
    assert metrics.attributes["store.put.object_size"] == key.size
    assert make_store("memory").metrics is None
