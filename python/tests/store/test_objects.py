"""What goes into a store comes out of it, on every channel."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import (
    Any,
    ClassVar,
)

import numpy as np
import pytest

from proxystore_rs.exceptions import SerializationError
from proxystore_rs.store import (
    Store,
)

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
