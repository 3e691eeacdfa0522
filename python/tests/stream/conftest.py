"""Brokers and a store for the tests of streams."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dispatch_pools import make_pool
from numbered_stream import NumberedStream
from redis_server import RedisServer, free_port, need_redis

from proxystore_rs.store import Store
from proxystore_rs.stream.brokers import Broker, open_broker

_numbers = itertools.count()

LARGE = b"x" * 20_000
"""An object that does not travel inside its event."""


@pytest.fixture
def broker() -> Broker:
    """A broker in memory, of the test's own."""
    return open_broker(f"memory://test-{next(_numbers)}")


@pytest.fixture(scope="session")
def stream_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server whose keys every test of streams may use."""
    need_redis()
    server = RedisServer(tmp_path_factory.mktemp("redis-streams"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of NATS with JetStream."""
    if shutil.which("nats-server") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("run scripts/servers")
    port = free_port()
    folder = str(tmp_path_factory.mktemp("nats"))
    command = ["nats-server", "-js", "-a", "127.0.0.1", "-p", str(port), "-sd", folder]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        yield f"nats://127.0.0.1:{port}"
        server.kill()


@pytest.fixture
def topic() -> str:
    """A topic of the test's own."""
    return f"topic-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def store(make_store: Callable[..., Store[Any]]) -> Store[Any]:
    """A store in memory."""
    return make_store("memory")


@pytest.fixture
def folder_store(make_store: Callable[..., Store[Any]]) -> Store[Any]:
    """A store that other processes reach."""
    return make_store("file")


@pytest.fixture
def count(tmp_path: Path) -> Callable[[Store[Any]], int]:
    """A function that counts the objects of `folder_store`."""

    def count(store: Store[Any]) -> int:
        names = [path.name for path in Path(store.connector.store_dir).iterdir()]
        return sum(not name.startswith(".") for name in names)

    return count


@pytest.fixture
def stream(make_store: Callable[..., Store[Any]]) -> NumberedStream:
    """A stream through memory, and a store of files that counts."""
    return NumberedStream(make_store("file", metrics=True))


@pytest.fixture(scope="module", params=["thread", "fork", "spawn"])
def pool(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Two workers of each kind."""
    with make_pool(request.param) as executor:
        yield executor


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Four workers."""
    with ThreadPoolExecutor(4) as executor:
        yield executor
