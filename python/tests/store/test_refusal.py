"""With `codec="data"` nothing is unpickled, wherever the pickle lies.

Each test puts a bomb under a valid key, or into a valid reference: an object whose unpickling makes
a file. That the file is made without `codec="data"` shows that the bomb works.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from proxystore_rs.connectors.memory import MemoryConnector
from proxystore_rs.connectors.multi import MultiConnector, Policy
from proxystore_rs.exceptions import FutureFailedError, UntrustedError
from proxystore_rs.proxy import ProxyResolveError, resolve
from proxystore_rs.store import Store, StoreFactory, register_store, unregister_store
from proxystore_rs.store.utils import resolve_async

Open = Callable[..., Store[Any]]


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)

    def __call__(self, data: Any) -> Any:
        return bytes(data)


class BombError(Exception):
    def __init__(self, path: Path) -> None:
        super().__init__("no more")
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[Bomb]:
    bomb = Bomb(tmp_path / "exploded")
    yield bomb
    assert not bomb.path.exists()


def explodes(bomb: Bomb, action: Callable[[], Any]) -> None:
    """See that the bomb works, so that a test which finds it whole says something."""
    try:
        action()
    except Exception:  # what is wrong with a directory's name as an object depends
        assert bomb.path.exists()
    assert bomb.path.exists()
    bomb.path.rmdir()


@pytest.fixture
def open_store() -> Iterator[Open]:
    stores: list[Store[Any]] = []

    def open_one(codec: Any = None, *, name: str = "refusal", **settings: Any) -> Store[Any]:
        store = Store(name, MemoryConnector("test-refusal"), codec=codec, **settings)
        stores.append(store)
        return store

    yield open_one
    unregister_store("refusal")
    for store in stores:
        store.close()


def test_an_object_is_not_unpickled(bomb: Bomb, open_store: Open) -> None:
    lenient, strict = open_store(cache_size=0), open_store("data")
    key = lenient.put(bomb)
    explodes(bomb, lambda: lenient.get(key))
    with pytest.raises(UntrustedError, match=r"stored as a Python pickle.*codec='data'.*trust"):
        strict.get(key)
    with pytest.raises(UntrustedError, match="stored as a Python pickle"):
        lenient.get(key, codec="data")
    assert not bomb.path.exists()


def test_a_call_cannot_loosen_a_store(bomb: Bomb, open_store: Open) -> None:
    key = open_store().put(bomb)
    strict = open_store("data")
    with pytest.raises(UntrustedError):
        strict.get(key, codec="msgpack")
    with pytest.raises(UntrustedError):
        strict.get(key, type=dict)
    with pytest.raises(UntrustedError):
        strict.get(key, codec=None)


def test_nothing_cached_hides_a_pickle(bomb: Bomb, open_store: Open) -> None:
    lenient = open_store()
    key = lenient.put({1})
    assert lenient.get(key) == {1}
    with pytest.raises(UntrustedError):
        lenient.get(key, codec="data")


def test_a_proxy_does_not_unpickle(bomb: Bomb, open_store: Open) -> None:
    key = open_store().put(bomb)
    strict = open_store("data")
    for proxy in (strict.proxy_from_key(key), strict.proxy_from_key(key)):
        with pytest.raises(ProxyResolveError) as caught:
            resolve(proxy)
        assert isinstance(caught.value.__cause__, UntrustedError)
        with pytest.raises(ProxyResolveError, match="stored as a Python pickle"):
            str(proxy)


def test_a_prefetched_object_is_not_unpickled(bomb: Bomb, open_store: Open) -> None:
    key = open_store().put(bomb)
    proxy = open_store("data").proxy_from_key(key)
    resolve_async(proxy)
    with pytest.raises(ProxyResolveError, match="stored as a Python pickle"):
        resolve(proxy)


def test_an_object_inside_its_reference_is_not_unpickled(bomb: Bomb, open_store: Open) -> None:
    lenient = open_store(inline_bytes=10_000)
    data = pickle.dumps(lenient.proxy(bomb))
    assert pickle.loads(data).__proxy_factory__._is_inline
    register_store(lenient)
    explodes(bomb, lambda: resolve(pickle.loads(data)))
    unregister_store(lenient)
    register_store(open_store("data"))
    with pytest.raises(ProxyResolveError, match="stored as a Python pickle"):
        resolve(pickle.loads(data))


def test_a_result_is_not_unpickled(bomb: Bomb, open_store: Open) -> None:
    lenient, strict = open_store(), open_store("data")
    register_store(strict)
    future: Any = strict.future()
    lenient_factory = StoreFactory(future._factory.key, lenient.config())
    lenient.connector.set(lenient_factory.key, bytes(lenient.connector.get(lenient.put(bomb))))
    with pytest.raises(UntrustedError, match="stored as a Python pickle"):
        future.result()
    with pytest.raises(ProxyResolveError, match="stored as a Python pickle"):
        resolve(future.proxy())


def test_an_exception_is_its_text_alone(
    bomb: Bomb, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenient, strict = open_store(), open_store("data")
    future: Any = lenient.future()
    # Setting one unpickles it once to see whether it comes back, hence the dud.
    monkeypatch.setattr("proxystore_rs.store.future._pickled", pickle.dumps)
    future.set_exception(BombError(bomb.path))
    key = future._factory.key
    explodes(bomb, future.exception)
    explodes(bomb, lambda: lenient.get(key))
    with pytest.raises(FutureFailedError, match="BombError: no more"):
        strict.get(key)
    with pytest.raises(FutureFailedError, match="BombError: no more"):
        lenient.get(key, codec="data")
    register_store(strict)
    arrived: Any = pickle.loads(pickle.dumps(future))
    assert isinstance(arrived.exception(), FutureFailedError)
    with pytest.raises(FutureFailedError, match="BombError: no more"):
        arrived.result()


def test_a_failure_holds_no_pickle(open_store: Open) -> None:
    for store, codec in ((open_store("data"), None), (open_store(name="other"), "data")):
        future: Any = store.future(codec=codec)
        future.set_exception(ValueError("no"))
        assert b"\x80\x04" not in bytes(store.connector.get(future._factory.key))
        with pytest.raises(FutureFailedError, match="ValueError: no"):
            future.result()


def test_a_custom_serializer_needs_the_callers_own_deserializer(open_store: Open) -> None:
    strict = open_store("data")
    key = strict.put([1], serializer=pickle.dumps)
    with pytest.raises(UntrustedError, match=r"custom serializer.*deserializer"):
        strict.get(key)
    assert strict.get(key, deserializer=pickle.loads) == [1]
    own = open_store("data", serializer=pickle.dumps, deserializer=pickle.loads, cache_size=0)
    assert own.get(own.put([2])) == [2]
    lenient = open_store(serializer=pickle.dumps, deserializer=pickle.loads, cache_size=0)
    with pytest.raises(UntrustedError, match="custom serializer"):
        lenient.get(key, codec="data")  # it may have come with a reference


def test_functions_in_references_are_not_unpickled(bomb: Bomb, open_store: Open) -> None:
    lenient = open_store(serializer=bytes, deserializer=bomb)
    data = pickle.dumps(lenient.proxy(b"x", populate_target=False))
    explodes(bomb, lambda: pickle.loads(data))
    strict = open_store("data")
    register_store(strict)
    with pytest.raises(ProxyResolveError, match="pickled serializer or deserializer"):
        resolve(pickle.loads(data))
    unregister_store(strict)
    proxy = pickle.loads(data)
    bomb.path.rmdir()
    register_store(strict)  # after it arrived
    factory = proxy.__proxy_factory__
    with pytest.raises(UntrustedError, match="pickled serializer or deserializer"):
        factory.get_store()
    with pytest.raises(UntrustedError, match="pickled serializer or deserializer"):
        factory.store_config  # noqa: B018
    with pytest.raises(UntrustedError, match="pickled serializer or deserializer"):
        pickle.dumps(factory)


def test_a_deserializer_in_a_reference_is_not_unpickled(bomb: Bomb, open_store: Open) -> None:
    lenient = open_store()
    data = pickle.dumps(lenient.proxy(b"x", deserializer=bomb, populate_target=False))
    explodes(bomb, lambda: pickle.loads(data))
    register_store(open_store("data"))
    with pytest.raises(ProxyResolveError, match="pickled serializer or deserializer"):
        resolve(pickle.loads(data))


def test_nothing_pickled_leaves(open_store: Open) -> None:
    strict = open_store("data", serializer=pickle.dumps, deserializer=pickle.loads)
    assert b"pickle" not in pickle.dumps(strict.proxy([1]))[50:]
    proxy = strict.proxy_from_key(strict.put([1]), deserializer=pickle.loads)
    assert proxy == [1]
    with pytest.raises(UntrustedError, match="pickled serializer or deserializer"):
        pickle.dumps(proxy)


class Key(NamedTuple):
    inner: Any


class Connector:
    """A connector with keys and a configuration that are no plain data."""

    objects: dict[str, bytes] = {}  # noqa: RUF012 (that of all instances)

    def __init__(self, extra: Any = None) -> None:
        self.extra = extra

    def put(self, obj: Any) -> Key:
        self.objects[str(len(self.objects))] = bytes(obj)
        return Key([str(len(self.objects) - 1)])

    def get(self, key: Key) -> bytes | None:
        return self.objects.get(key.inner[0])

    def exists(self, key: Key) -> bool:
        return key.inner[0] in self.objects

    def evict(self, key: Key) -> None: ...

    def close(self) -> None: ...

    def config(self) -> dict[str, Any]:
        return {} if self.extra is None else {"extra": self.extra}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Connector:
        return cls(**config)


def references(connector: Any, key: Any) -> bytes:
    """The pickle of a proxy of an object of a lenient store."""
    return pickle.dumps(Store("refusal", connector).proxy_from_key(key))


def multi(connector: Any) -> MultiConnector:
    return MultiConnector({"part": (connector, Policy())})


@pytest.mark.parametrize("wrap", [lambda c: c, multi], ids=["alone", "multi"])
def test_a_pickled_configuration_is_not_unpickled(
    bomb: Bomb, open_store: Open, wrap: Callable[[Any], Any]
) -> None:
    connector = wrap(Connector(bomb))
    store = Store("refusal", connector)
    data = pickle.dumps(store.proxy([1], populate_target=False))
    explodes(bomb, lambda: resolve(pickle.loads(data)))
    register_store(open_store("data"))
    with pytest.raises(ProxyResolveError, match="the connector's configuration is a pickle"):
        resolve(pickle.loads(data))
    with pytest.raises(UntrustedError, match="the connector's configuration is a pickle"):
        Store("strict", connector, codec="data")


@pytest.mark.parametrize("wrap", [lambda c: c, multi], ids=["alone", "multi"])
def test_a_pickled_key_is_not_unpickled(
    bomb: Bomb, open_store: Open, wrap: Callable[[Any], Any]
) -> None:
    connector = wrap(Connector())
    key: Any = Key(bomb)
    key = (
        key if isinstance(connector, Connector) else connector.put(b"")._replace(connector_key=key)
    )
    data = references(connector, key)
    explodes(bomb, lambda: pickle.loads(data).__proxy_factory__.key)
    proxy = pickle.loads(data)
    register_store(open_store("data"))
    with pytest.raises(ProxyResolveError, match="the reference has a pickled key"):
        resolve(pickle.loads(data))
    factory = proxy.__proxy_factory__
    assert "#" in repr(factory)
    with pytest.raises(UntrustedError, match="the reference has a pickled key"):
        factory.key  # noqa: B018
    with pytest.raises(ProxyResolveError, match="the reference has a pickled key"):
        resolve(proxy)


def test_a_reference_that_says_data_is_held_to_it(bomb: Bomb, open_store: Open) -> None:
    """Whoever reads a strict store's references is strict, with no store of its own."""
    strict = open_store("data")
    key = open_store().put(bomb)
    proxy = pickle.loads(pickle.dumps(strict.proxy_from_key(key)))
    with pytest.raises(ProxyResolveError, match="stored as a Python pickle"):
        resolve(proxy)


PROCESS = """
import pickle, sys
from pathlib import Path
from proxystore_rs._core import _restore
from proxystore_rs.connectors.file import FileConnector
from proxystore_rs.exceptions import SerializationError, UntrustedError
from proxystore_rs.proxy import ProxyResolveError, resolve
from proxystore_rs.store import Store

folder, *references = sys.argv[1:]
for reference in references:
    try:
        resolve(_restore(bytes.fromhex(reference)))
        print("resolved")
    except ProxyResolveError as error:
        print(type(error.__cause__).__name__)
store = Store("process", FileConnector(folder))
try:
    store.put({1})
except SerializationError:
    print("strict")
assert store.get(store.put({"a": [1]}, codec="msgpack")) == {"a": [1]}
"""


def run(folder: Path, codec: str, *references: bytes) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROCESS, str(folder), *(data.hex() for data in references)],
        env=os.environ | {"PROXYSTORE_CODEC": codec},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_environment_sets_a_whole_process(bomb: Bomb, tmp_path: Path) -> None:
    from proxystore_rs.connectors.file import FileConnector

    folder = tmp_path / "objects"
    with Store("process", FileConnector(str(folder)), inline_bytes=0) as store:
        functions = Store("other", store.connector, serializer=bytes, deserializer=bomb)
        key = store.put(bomb)
        proxies = [
            store.proxy_from_key(key),
            store.proxy_from_key(key, deserializer=bomb),
            functions.proxy_from_key(key),
            Store("inline", store.connector, inline_bytes=9999).proxy(bomb),
            Store("foreign", Connector(bomb)).proxy([1]),
            store.proxy_from_key(store.put("text")),
        ]
        references = [proxy.__reduce__()[1][0] for proxy in proxies]
        done = run(folder, "data", *references)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["UntrustedError"] * 5 + ["resolved", "strict"]
        assert not bomb.path.exists()
        explodes(bomb, lambda: run(folder, "", references[0]))
        done = run(folder, "dada", references[-1])
        assert "PROXYSTORE_CODEC must be 'data' or unset, not \"dada\"" in done.stderr


@dataclass
class Cleaner:
    path: str

    def __del__(self) -> None: ...


def test_a_class_that_cleans_up_needs_to_be_asked_for(open_store: Open) -> None:
    strict = open_store("data", cache_size=0)
    key = strict.put(Cleaner("nothing"), codec="data")
    with pytest.raises(UntrustedError, match=r"has a __del__.*type="):
        strict.get(key)
    assert strict.get(key, type=Cleaner).path == "nothing"
    assert open_store(cache_size=0).get(key).path == "nothing"
