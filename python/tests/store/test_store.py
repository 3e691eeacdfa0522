"""What a store does, on every channel."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from proxystore_rs.exceptions import SerializationError, StoreConfigError
from proxystore_rs.factory import Factory
from proxystore_rs.proxy import Proxy, ProxyLocker, ProxyResolveError, extract, is_resolved
from proxystore_rs.store import (
    Store,
    StoreFactory,
    get_or_create_store,
    get_store,
    open_store,
)
from proxystore_rs.store.exceptions import (
    NonProxiableTypeError,
    ProxyResolveMissingKeyError,
    ProxyStoreFactoryError,
    StoreExistsError,
)
from proxystore_rs.store.registry import register_store, store_registration, unregister_store

OBJECTS = [
    b"",
    b"raw \x00 bytes",
    "",
    "text äöü \U0001f600",
    "lone surrogate \ud800",
    bytearray(b"mutable"),
    42,
    None,
    [1, "two", b"three"],
    {"a": {"nested": (1, 2)}},
    {1, 2},
    range(5),
]


class Text(str):
    """A subclass, which must keep its type."""


@pytest.mark.parametrize("obj", OBJECTS, ids=repr)
def test_what_was_put_is_got_back(store: Store[Any], obj: object) -> None:
    found = store.get(store.put(obj))
    assert found == obj
    assert type(found) is type(obj)


def test_subclasses_keep_their_type(store: Store[Any]) -> None:
    assert type(store.get(store.put(Text("a")))) is Text


ARRAYS = [
    np.arange(12.0).reshape(3, 4),
    np.asfortranarray(np.arange(12).reshape(3, 4)),
    np.arange(12)[::2],
    np.arange(12).reshape(3, 4)[:, ::2],
    np.array(3.5),
    np.empty((0, 3), np.int8),
    np.array([1 + 2j], np.complex64),
    np.array([True, False]),
    np.arange(3, dtype=">i4"),
    np.array(["2020-01-01", "NaT"], "M8[D]"),
    np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
    np.array(["ab", "c"]),
    np.array([1, "a", None], object),
    np.arange(100_000, dtype=np.float32),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}-{a.shape}")
def test_arrays_come_back_equal_and_writable(
    store: Store[Any], array: np.ndarray[Any, Any]
) -> None:
    found = store.get(store.put(array))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert found.flags.writeable
    if array.flags.f_contiguous and array.ndim > 1:
        assert found.flags.f_contiguous


def test_arrays_inside_other_objects_come_back(store: Store[Any]) -> None:
    obj = {"a": np.arange(10_000), "b": [np.ones((50, 50)), "text"]}
    found = store.get(store.put(obj))
    np.testing.assert_array_equal(found["a"], obj["a"])
    np.testing.assert_array_equal(found["b"][0], obj["b"][0])
    found["a"][0] = 99  # private
    assert obj["a"][0] == 0


def test_writing_to_what_was_got_changes_nothing_else(
    make_store: Callable[..., Store[Any]],
) -> None:
    for kind in ("local", "memory", "file", "shm"):
        store = make_store(kind, cache_size=0)
        key = store.put(np.zeros(100_000))
        first, second = store.get(key), store.get(key)
        first[:] = 1
        assert second.sum() == 0
        assert store.get(key).sum() == 0


def test_a_read_only_store_shares_memory_that_cannot_be_written(
    make_store: Callable[..., Store[Any]],
) -> None:
    for kind in ("memory", "file", "shm"):
        store = make_store(kind, read_only=True)
        array = store.get(store.put(np.arange(100_000)))
        assert array.sum() == np.arange(100_000).sum()
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_dataframes_come_back(store: Store[Any]) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": np.arange(1000.0), "name": ["a", "b"] * 500})
    pandas.testing.assert_frame_equal(store.get(store.put(frame)), frame)


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


class Reentrant:
    """Uses the store while it is pickled, unpickled and dropped."""

    store: ClassVar[Store[Any] | None] = None

    def use(self) -> None:
        if self.store is not None:
            key = self.store.put([1])
            assert self.store.get(key) == [1]
            self.store.evict(key)

    def __reduce__(self) -> tuple[Any, ...]:
        self.use()
        return Reentrant, (), {}

    def __setstate__(self, state: Any) -> None:
        self.use()

    def __del__(self) -> None:
        self.use()


def test_objects_may_use_the_store_that_handles_them(make_store: Callable[..., Store[Any]]) -> None:
    for kind in ("local", "memory", "file", "shm"):
        Reentrant.store = make_store(kind, cache_size=2, metrics=True)
        try:
            keys = Reentrant.store.put_batch([Reentrant() for _ in range(4)])
            for key in keys:
                assert isinstance(Reentrant.store.get(key), Reentrant)
            proxy = Reentrant.store.proxy_from_key(keys[0])
            proxy.__proxy_factory__.resolve_async()
            assert isinstance(proxy, Reentrant)
            for key in keys:
                Reentrant.store.evict(key)
        finally:
            Reentrant.store = None


def test_the_cache_has_a_face_of_its_own(store: Store[Any]) -> None:
    key = store.put([1])
    assert store.cache.get(key, "absent") == "absent"
    store.cache.set(key, "planted")
    assert store.cache.exists(key)
    assert store.get(key) == store.cache.get(key) == "planted"
    store.cache.evict(key)
    assert store.get(key) == [1]


def test_what_is_no_connector_is_refused() -> None:
    with pytest.raises(TypeError, match="not a connector"):
        Store("none", object())


def test_batches(store: Store[Any]) -> None:
    keys = store.put_batch(["a", "b", np.arange(3)])
    assert [store.get(keys[0]), store.get(keys[1])] == ["a", "b"]
    assert store.put_batch([]) == []
    proxies = store.proxy_batch(["a", None, "b"], skip_nonproxiable=True)
    assert proxies[1] is None
    assert [str(proxies[0]), str(proxies[2])] == ["a", "b"]
    with pytest.raises(NonProxiableTypeError):
        store.proxy_batch(["a", True])


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
        sent = pickle.dumps(make_store(kind).proxy(np.arange(10)))
        assert len(sent) <= 250 + 60  # names of test stores are long


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
        len(proxy)
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


def test_custom_serializers(store: Store[Any]) -> None:
    key = store.put([1, 2], serializer=lambda obj: repr(obj).encode())
    assert store.get(key, deserializer=lambda data: data.decode()) == "[1, 2]"
    with pytest.raises(TypeError, match="bytes-like"):
        store.put([1], serializer=lambda obj: "text")
    key = store.put([1], serializer=pickle.dumps)
    with pytest.raises(SerializationError, match="deserializer"):
        store.get(key)
    with pytest.raises(SerializationError):
        store.get(key, deserializer=lambda data: 1 / 0)


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


def test_unpicklable_objects_are_named(store: Store[Any]) -> None:
    import threading

    with pytest.raises(SerializationError, match="lock"):
        store.put(threading.Lock())


def test_an_array_of_addresses_is_refused(make_store: Callable[..., Store[Any]]) -> None:
    from proxystore_rs.exceptions import IncompatibleVersionError

    store = make_store("memory")
    # An array payload like any other, but for the type of its one element: "|O".
    payload = bytes.fromhex(
        "895058530d0a1a0a0100040000000000580000000100000088000000000000000000000000000000"
        "00000000000000000000000000000000009adbca86803a0180000000000000000800000000000000"
        "93a27c4f9101a1430000000000000000000000000000000000000000000000000000000000000000"
        "00000000000000000101010101010101"
    )
    key = store.connector.put(payload)
    with pytest.raises(IncompatibleVersionError, match=r"\|O"):
        store.get(key)


def test_foreign_bytes_are_refused(make_store: Callable[..., Store[Any]]) -> None:
    from proxystore_rs.exceptions import CorruptObjectError

    for kind in ("local", "memory", "file", "shm"):
        store = make_store(kind)
        key = store.connector.put(b"not a payload " * 10)
        with pytest.raises(CorruptObjectError, match="not a payload") as caught:
            store.get(key)
        assert store.name in str(caught.value)
        assert (str(key) if kind == "local" else key[0]) in str(caught.value)
        proxy = store.proxy_from_key(key)
        proxy.__proxy_factory__.resolve_async()
        with pytest.raises(ProxyResolveError) as resolving:
            len(proxy)
        assert str(resolving.value.cause) == str(caught.value)


def test_a_missing_object_of_another_process_says_so() -> None:
    from proxystore_rs.connectors.local import LocalConnector

    there = Store("elsewhere", LocalConnector())
    sent = pickle.dumps(there.proxy([1]))
    with pytest.raises(ProxyResolveError) as caught:
        len(pickle.loads(sent))
    unregister_store("elsewhere")
    assert "memory of another process" in caught.value.cause.__notes__[0]


@pytest.mark.parametrize(
    ("reference", "error", "text"),
    [
        (b"something else", "CorruptObjectError", "not a reference"),
        (b"PXR\x01\x81\x05ab", "CorruptObjectError", "cut short"),
        (b"PXR\x02", "IncompatibleVersionError", "upgrade"),
        (b"PXR\x01\x81\x01a\x85\x01a\x8a\x03abc", "UnpicklingError", "unpickling"),
    ],
)
def test_a_reference_that_cannot_be_read_says_so_when_it_is_used(
    reference: bytes, error: str, text: str
) -> None:
    from proxystore_rs._core import _factory, _restore
    from proxystore_rs.store import StoreFactory

    with pytest.raises(Exception, match=text) as caught:
        _factory(reference, StoreFactory)
    assert type(caught.value).__name__ == error
    proxy = pickle.loads(pickle.dumps(_restore(reference)))
    assert not is_resolved(proxy)
    with pytest.raises(ProxyResolveError) as resolving:
        len(proxy)
    assert type(resolving.value.cause) is type(caught.value)
    assert proxy.__proxy_factory__.reference == reference


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


def test_one_name_on_two_channels_is_an_error_that_says_so(
    make_store: Callable[..., Store[Any]],
) -> None:
    from proxystore_rs.connectors.memory import MemoryConnector

    store = make_store("memory")
    twin = Store(store.name, MemoryConnector("elsewhere"))
    received = pickle.loads(pickle.dumps(twin.proxy([1], populate_target=False)))
    with pytest.raises(ProxyResolveError) as caught:
        len(received)
    assert isinstance(caught.value.cause, StoreConfigError)
    assert "memory://elsewhere" in str(caught.value.cause)
    with pytest.raises(StoreConfigError):
        get_or_create_store(twin.config())


def test_a_closed_store_says_so(make_store: Callable[..., Store[Any]]) -> None:
    from proxystore_rs.exceptions import StoreClosedError

    store = make_store("memory")
    key = store.put("x")
    store.close()
    store.close()
    with pytest.raises(StoreClosedError, match="closed"):
        store.get(key)
    with pytest.raises(StoreClosedError):
        store.put("y")


def test_connectors_close_at_the_end_of_a_with_block(store: Store[Any]) -> None:
    from proxystore_rs.exceptions import StoreClosedError

    with store.connector as connector:
        assert connector is store.connector
        key = connector.put(b"x")
    if not hasattr(connector, "url"):
        return  # closing a dictionary does nothing
    with pytest.raises(StoreClosedError):
        connector.get(key)


def test_what_is_no_key_is_refused(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory")
    for key in ((), (1,), "abc", None):
        with pytest.raises(TypeError, match="not a key of this connector"):
            store.get(key)


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


def test_empty_arrays_are_put_without_a_copy(make_store: Callable[..., Store[Any]]) -> None:
    for kind in ("memory", "file", "shm"):
        store = make_store(kind)
        array = store.empty((100, 200), np.float32)
        array[:] = 7
        proxy = store.proxy(array, populate_target=False)
        assert proxy.shape == (100, 200)
        assert proxy.sum() == 140_000
    with pytest.raises(TypeError, match="plain values"):
        store.empty(3, object)


def test_a_published_array_never_changes(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("shm")
    array = store.empty(1_000_000, np.uint8)
    array[:] = 1
    old_view = array[10:20]
    key = store.put(array)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 2
    old_view[:] = 3  # made before: still legal, and private to this process
    assert store.get(key).sum() == 1_000_000
    again = store.put(array)  # a copy of what the producer sees
    assert store.get(again).sum() == 1_000_020
    nested = {"array": store.empty(100_000), "label": "nested"}
    nested["array"][:] = 1
    assert store.get(store.put(nested))["array"].sum() == 100_000


def test_python_connectors_keep_working(make_store: Callable[..., Store[Any]]) -> None:
    """The base class of none: a connector by duck typing, with options for its `put`."""
    store = Store("duck", Duck(), register=True)
    try:
        key = store.put("x", color="red")
        assert key.color == "red"
        received = pickle.loads(pickle.dumps(store.proxy([1], populate_target=False)))
        assert received == [1]
        odd = DuckKey(-1, "with | and \ud800 and \n")
        store.connector.objects[odd] = store.connector.objects[key]
        assert store.get(odd) == "x"
        assert pickle.loads(pickle.dumps(store.proxy_from_key(odd))).__proxy_factory__.key == odd
        with pytest.raises(RuntimeError, match="out of order"):
            Store("broken", Duck(broken=True)).put("x")
    finally:
        store.close()


def test_a_batch_with_options_is_one_batch_of_the_connector() -> None:
    class Flock(Duck):
        batches: ClassVar[list[tuple[int, str]]] = []

        def put_batch(self, objs: list[bytes], flight: str = "none") -> list[DuckKey]:
            self.batches.append((len(objs), flight))
            return [self.put(obj) for obj in objs]

    store = Store("flock", Flock())
    keys = store.put_batch(["a", "b"], flight="south")
    assert [store.get(key) for key in keys] == ["a", "b"]
    assert [str(proxy) for proxy in store.proxy_batch(["c", "d"], flight="north")] == ["c", "d"]
    assert Flock.batches == [(2, "south"), (2, "north")]


def test_a_connector_that_returns_too_few_keys_is_named() -> None:
    class Lossy(Duck):
        def put_batch(self, objs: list[bytes]) -> list[DuckKey]:
            return super().put_batch(objs)[1:]

    with pytest.raises(TypeError, match=r"Lossy must return a key for each of 2 objects, not 1"):
        Store("lossy", Lossy()).put_batch(["a", "b"])


def test_errors_of_a_batch_name_the_store(make_store: Callable[..., Store[Any]]) -> None:
    from proxystore_rs.exceptions import StoreClosedError

    store = make_store("memory")
    with pytest.raises(TypeError, match="takes no options"):
        store.put_batch(["a"], color="red")
    store.close()
    with pytest.raises(StoreClosedError, match=store.name):
        store.put_batch(["a"])


def test_equal_keys_of_a_python_connector_mean_one_object() -> None:
    store = Store("equal-keys", Duck())
    color = "".join(["bl", "ue"])
    key = store.put("x", color=color)._replace(number=color)  # one string, twice
    twin = DuckKey("".join(["bl", "ue"]), "".join(["bl", "ue"]))  # type: ignore[arg-type]
    assert key == twin
    store.connector.objects[key] = store.connector.objects.popitem()[1]
    assert store.get(key) == "x"
    assert store.is_cached(twin)
    store.evict(twin)
    assert store.get(key) is None


from typing import NamedTuple  # noqa: E402


class DuckKey(NamedTuple):
    """Key of the connector below."""

    number: int
    color: str


class Duck:
    """A connector written in Python, like those of third-party libraries."""

    def __init__(self, broken: bool = False) -> None:
        self.objects: dict[DuckKey, bytes] = {}
        self.broken = broken

    def put(self, obj: bytes, color: str = "blue") -> DuckKey:
        if self.broken:
            raise RuntimeError("out of order")
        key = DuckKey(len(self.objects), color)
        self.objects[key] = bytes(obj)
        return key

    def put_batch(self, objs: list[bytes]) -> list[DuckKey]:
        return [self.put(obj) for obj in objs]

    def get(self, key: DuckKey) -> bytes | None:
        return self.objects.get(key)

    def get_batch(self, keys: list[DuckKey]) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def exists(self, key: DuckKey) -> bool:
        return key in self.objects

    def evict(self, key: DuckKey) -> None:
        self.objects.pop(key, None)

    def close(self) -> None:
        self.objects.clear()

    def config(self) -> dict[str, Any]:
        return {"broken": self.broken}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Duck:
        return cls(**config)
