"""The program on the other side, and a channel of each kind between them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from exchange_peer import Rust
from redis_server import RedisServer, need_redis
from rust_programs import rust_example

from proxystore_rs.store import Store, open_store

CHANNELS = ("file", "shm", "redis")


@pytest.fixture(scope="session")
def rust_program() -> Path:
    """The program."""
    return rust_example("exchange")


@pytest.fixture
def start_rust(rust_program: Path) -> Iterator[Callable[[], Rust]]:
    """A function that starts the program once more."""
    started: list[Rust] = []

    def start() -> Rust:
        started.append(Rust(rust_program))
        return started[-1]

    yield start
    for rust in started:
        rust.process.kill()
        rust.process.communicate()


@pytest.fixture(scope="session")
def rust(rust_program: Path) -> Iterator[Rust]:
    """The program, the same for all tests that do not wait in it."""
    rust = Rust(rust_program)
    yield rust
    rust.close()


@pytest.fixture(scope="session")
def _urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    servers: list[RedisServer] = []

    def redis() -> str:
        if not servers:
            servers.append(RedisServer(tmp_path_factory.mktemp("redis")))
        return servers[0].url

    def url(channel: str) -> str:
        match channel:
            case "file":
                return f"file://{folder}"
            case "shm":
                return f"shm://exchange-{os.getpid()}"
            case _:
                need_redis()
                return redis()

    folder = tmp_path_factory.mktemp("exchange")
    yield url
    for server in servers:
        server.kill()


@pytest.fixture(params=CHANNELS)
def url(request: pytest.FixtureRequest, _urls: Callable[[str], str]) -> str:
    """Where objects are, once for every channel that both programs reach."""
    return _urls(request.param)


@pytest.fixture
def store(url: str) -> Iterator[Store[Any]]:
    """Python's store of the channel."""
    with open_store(url) as store:
        yield store
        store.connector.close(clear=True)
