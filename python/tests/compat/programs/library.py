"""A library as others wrote it for `proxystore`, and a program that uses it. Not a line knows better."""

from __future__ import annotations

import pickle
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import proxystore
from proxystore.connectors.file import FileConnector, FileKey
from proxystore.connectors.local import LocalConnector
from proxystore.connectors.protocols import Connector, DeferrableConnector
from proxystore.factory import Factory, SimpleFactory
from proxystore.proxy import (
    Proxy,
    ProxyResolveError,
    extract,
    get_factory,
    is_resolved,
    resolve,
)
from proxystore.serialize import BytesLike, SerializationError, deserialize, serialize
from proxystore.store import (
    Store,
    StoreConfig,
    StoreFactory,
    get_or_create_store,
    get_store,
    register_store,
    store_registration,
    unregister_store,
)
from proxystore.store.base import Store as BaseStore
from proxystore.store.config import ConnectorConfig
from proxystore.store.exceptions import (
    NonProxiableTypeError,
    ProxyResolveMissingKeyError,
    ProxyStoreFactoryError,
    StoreExistsError,
)
from proxystore.store.types import ConnectorKeyT, ConnectorT, DeserializerT, SerializerT
from proxystore.store.utils import get_key, resolve_async
from proxystore.utils.imports import get_object_path, import_from_path
from proxystore.utils.timer import Timer
from proxystore.warnings import ExperimentalWarning


class MyKey(NamedTuple):
    name: str


class MyConnector:
    """A connector of the library's own, on a dictionary."""

    objects: dict[MyKey, bytes] = {}  # noqa: RUF012

    def close(self) -> None: ...

    def config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MyConnector:
        return cls(**config)

    def evict(self, key: MyKey) -> None:
        self.objects.pop(key, None)

    def exists(self, key: MyKey) -> bool:
        return key in self.objects

    def get(self, key: MyKey) -> BytesLike | None:
        return self.objects.get(key)

    def get_batch(self, keys: list[MyKey]) -> list[BytesLike | None]:
        return [self.get(key) for key in keys]

    def put(self, obj: BytesLike) -> MyKey:
        key = MyKey(str(len(self.objects)))
        self.objects[key] = bytes(obj)
        return key

    def put_batch(self, objs: list[BytesLike]) -> list[MyKey]:
        return [self.put(obj) for obj in objs]


class Counted(Factory[int]):
    calls = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def resolve(self) -> int:
        Counted.calls += 1
        return self.number


class LazyDict(Proxy[dict[str, int]]):
    """A proxy class of the library's own."""


def work(values: list[int]) -> int:
    assert isinstance(values, list)
    return sum(values)


def main() -> None:
    assert proxystore.__version__.startswith("1.1.0")

    store = Store("library", LocalConnector(), cache_size=3)
    assert isinstance(store, BaseStore)
    register_store(store)
    assert get_store("library") is store
    try:
        register_store(Store("library", LocalConnector()))
    except StoreExistsError:
        pass
    else:
        raise AssertionError

    p: Proxy[list[int]] = store.proxy([1, 2, 3], populate_target=False)
    assert isinstance(p, Proxy) and not is_resolved(p)
    resolve_async(p)
    resolve(p)
    assert p == [1, 2, 3] and extract(p) == [1, 2, 3]
    assert store.exists(get_key(p)) and isinstance(get_factory(p), StoreFactory)
    again = pickle.loads(pickle.dumps(p))
    assert not is_resolved(again) and again == p
    try:
        store.proxy(None)
    except NonProxiableTypeError:
        pass
    else:
        raise AssertionError
    try:
        get_store(Proxy(SimpleFactory(1)))
    except ProxyStoreFactoryError:
        pass
    else:
        raise AssertionError
    store.evict(get_key(p))
    try:
        resolve(store.proxy_from_key(get_key(p)))
    except ProxyResolveError as error:
        assert isinstance(error.__cause__, ProxyResolveMissingKeyError)
    else:
        raise AssertionError
    unregister_store("library")

    config = StoreConfig(
        name="mine", connector=ConnectorConfig(kind=get_object_path(MyConnector), options={})
    )
    assert isinstance(MyConnector(), Connector)
    assert not isinstance(MyConnector(), DeferrableConnector)
    mine = get_or_create_store(config)
    assert mine.get(mine.put("text")) == "text" and mine.config() == config
    mine.close()

    q = Proxy(Counted(3), cache_defaults=True, target=3)
    assert is_resolved(q) and q + 1 == 4 and Counted.calls == 0
    assert LazyDict(lambda: {"a": 1})["a"] == 1

    assert deserialize(serialize({"a": 1})) == {"a": 1}
    try:
        deserialize(b"XX\n")
    except SerializationError:
        pass
    else:
        raise AssertionError
    assert import_from_path("proxystore.store.base.Store") is Store
    assert issubclass(ExperimentalWarning, Warning)
    assert {type(name) for name in (ConnectorKeyT, ConnectorT, DeserializerT, SerializerT)}
    with Timer() as timer:
        pass
    assert timer.elapsed_ms >= 0

    with tempfile.TemporaryDirectory() as folder:
        files = Store("files", FileConnector(folder))
        with store_registration(files), ProcessPoolExecutor(1) as pool:
            values = files.proxy([1, 2, 3])
            assert isinstance(get_key(values), FileKey)
            assert pool.submit(work, values).result(timeout=60) == 6
        files.config().write_toml(f"{folder}.toml")
        assert StoreConfig.from_toml(f"{folder}.toml") == files.config()
        files.close()


if __name__ == "__main__":
    sys.modules["library"] = sys.modules["__main__"]
    main()
    print("done")
