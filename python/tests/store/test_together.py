"""Every way in which an object gets from here to there, on every channel, stored in every way.

Each feature has its own tests; here they meet: whatever combination, the object arrives as it was, and what
is known of it before it arrives is true.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from redis_server import RedisServer, need_redis

from proxystore_rs.connectors.redis import RedisConnector
from proxystore_rs.proxy import (
    Proxy,
    ProxyResolveError,
    extract,
    facts,
    get_factory,
    is_resolved,
    no_resolve,
)
from proxystore_rs.store import Store
from proxystore_rs.store.executor import ProxyAlways, StoreExecutor
from proxystore_rs.store.ref import OwnedProxy, borrow

CHANNELS = ("memory", "file", "shm", "multi", "redis")

PROTECTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "checksums": {"checksums": True},
    "zstd": {"compression": "zstd"},
    "lz4 and checksums": {"compression": "lz4", "checksums": True},
    "sealed": {"seal": True},
    "signed and zstd": {"seal": "signed", "compression": "zstd"},
    "data": {"codec": "data"},
    "data sealed and lz4": {"codec": "data", "seal": True, "compression": "lz4"},
    "inline": {"inline_bytes": 4000},
}


@dataclass
class Point:
    """What a program defines for itself."""

    x: int
    tags: list[str]


OBJECTS: dict[str, Any] = {
    "bytes": b"0123456789" * 100,
    "empty bytes": b"",
    "str": "naïve " * 100,
    "int": 12345,
    "dict": {"a": [1, 2.5, None], "b": {"c": "d"}},
    "array": np.arange(60_000, dtype="<i4").reshape(300, 200),
    "array in Fortran order": np.asfortranarray(np.arange(600.0).reshape(20, 30)),
    "table": pa.table({"a": range(1000), "b": [f"row {row}" for row in range(1000)]}),
    "dataclass": Point(1, ["a", "b"]),
}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need_redis()
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(params=CHANNELS)
def channel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PROTECTIONS)
def store(
    request: pytest.FixtureRequest,
    channel: str,
    make_store: Callable[..., Store[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Store[Any]]:
    settings = PROTECTIONS[request.param]
    if settings.get("seal") == "signed":
        (tmp_path / "key").write_text("07" * 32)
        monkeypatch.setenv("PROXYSTORE_SIGNING_KEY", str(tmp_path / "key"))
    if channel != "redis":
        yield make_store(channel, **settings)
        return
    server: RedisServer = request.getfixturevalue("redis")
    connector = RedisConnector("127.0.0.1", server.port)
    with Store(f"together-{tmp_path.name}", connector, register=True, **settings) as made:
        yield made


def assert_same(found: Any, obj: Any) -> None:
    assert type(found) is type(obj)
    if isinstance(obj, np.ndarray):
        assert found.dtype == obj.dtype
        assert found.flags.f_contiguous == obj.flags.f_contiguous
        np.testing.assert_array_equal(found, obj)
    else:
        assert found == obj


def assert_facts(p: Proxy[Any], obj: Any) -> None:
    """What an unresolved proxy tells is true of its target."""
    assert not is_resolved(p)
    told = facts(p)
    size = len(obj) if hasattr(obj, "__len__") else None
    assert told.len in (None, size)
    assert told.shape in (None, getattr(obj, "shape", None))
    assert told.dtype in (None, getattr(getattr(obj, "dtype", None), "str", None))
    assert told.nbytes in (None, getattr(obj, "nbytes", size))
    assert told.created is not None
    with no_resolve():
        if told.len is not None:
            assert len(p) == size
        if told.shape is not None:
            assert p.shape == obj.shape
        assert repr(p).startswith("<Proxy at")
    if isinstance(obj, (bytes, str, dict, np.ndarray, pa.Table)):
        assert told.len is not None
    assert not is_resolved(p)


def assert_views(store: Store[Any], source: Any, obj: Any) -> None:
    """A view gives what the object gives."""
    view = store.view(source)
    match obj:
        case np.ndarray():
            assert (view.shape, view.dtype) == (obj.shape, obj.dtype)
            np.testing.assert_array_equal(view[3:-4:2, -1], obj[3:-4:2, -1])
        case bytes():
            assert (len(view), view[3:20]) == (len(obj), obj[3:20])
        case str():
            assert view[3:20] == obj[3:20]
        case pa.Table():
            assert (view.shape, view.columns) == (obj.shape, obj.column_names)
            assert view["b"].equals(obj["b"])
    assert_same(view.load(parallel=2), obj)


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_arrive_by_every_way(store: Store[Any], name: str) -> None:
    obj = OBJECTS[name]
    key = store.put(obj)
    assert_views(store, key, obj)
    assert_same(store.get(key), obj)
    assert_same(extract(store.proxy_from_key(key)), obj)

    here = store.proxy(obj)
    assert is_resolved(here)
    sent = pickle.dumps(here)
    text = here.to_text(secret=True)
    unresolved = store.proxy(obj, populate_target=False)
    (of_batch,) = store.proxy_batch([obj], populate_target=False)
    for p in (unresolved, of_batch, pickle.loads(sent), Proxy.from_text(text)):
        assert_facts(p, obj)
        assert_views(store, p, obj)
        assert_facts(pickle.loads(pickle.dumps(p)), obj)
        assert_same(extract(p), obj)

    future: Any = store.future()
    waiting = pickle.loads(pickle.dumps(future.proxy()))
    future.set_result(obj)
    assert_views(store, waiting, obj)
    assert_same(extract(waiting), obj)
    assert_same(future.result(), obj)


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_are_freed_by_every_way(store: Store[Any], name: str) -> None:
    obj = OBJECTS[name]
    evicting = store.proxy(obj, evict=True, populate_target=False)
    is_stored = not get_factory(evicting)._is_inline
    copy = pickle.dumps(evicting)
    assert facts(evicting).len is None  # asking would be a use
    assert_views(store, evicting, obj)
    assert not is_resolved(evicting)
    assert_same(extract(evicting), obj)
    if is_stored:
        with pytest.raises(ProxyResolveError):
            extract(pickle.loads(copy))

    owner: OwnedProxy[Any] = store.owned_proxy(obj, populate_target=False)
    borrowed: Any = borrow(owner)
    assert_views(store, owner, obj)
    assert_same(extract(borrowed), obj)
    del borrowed, owner


@pytest.mark.parametrize("codec", ["data", "msgpack"])
def test_a_proxy_shows_the_class_of_what_arrives(
    make_store: Callable[..., Store[Any]], codec: Any
) -> None:
    store = make_store("memory", populate_target=False)
    for obj in ((1, 2), bytearray(b"ab"), [1], {"a": 1}, np.float64(1.5), Point(1, [])):
        here = store.proxy(obj, codec=codec)
        (of_batch,) = store.proxy_batch([obj], codec=codec)
        held = store.proxy(obj, codec=codec, populate_target=True)
        for p in (here, of_batch, *pickle.loads(pickle.dumps([here, of_batch, held]))):
            with no_resolve():
                shown, told = p.__class__, facts(p).type
            assert type(extract(p)) is shown
            assert told is not None and told.endswith(shown.__qualname__)
            assert pickle.loads(pickle.dumps(p)).__class__ is shown
    kept = pickle.loads(pickle.dumps(store.proxy((1, 2))))
    assert kept.__class__ is tuple


def echo(obj: Any) -> Any:
    return obj


@pytest.mark.parametrize("name", OBJECTS)
def test_tasks_take_and_return_objects(store: Store[Any], name: str) -> None:
    obj = OBJECTS[name]
    pool = ThreadPoolExecutor(1)
    with StoreExecutor(pool, store, ProxyAlways(), close_store=False) as executor:
        assert_same(extract(executor.submit(echo, obj).result()), obj)
