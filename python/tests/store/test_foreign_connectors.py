"""Connectors written in Python."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import (
    Any,
    ClassVar,
    NamedTuple,
)

import pytest

from proxystore_rs.store import (
    Store,
)


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
    with pytest.raises(TypeError, match="takes no option"):
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
