"""The program on the other side, and a channel of each kind between them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from exchange_peer import Rust
from redis_server import RedisServer, need_redis

from proxystore_rs.store import Store, open_store

ROOT = Path(__file__).resolve().parents[3]
CHANNELS = ("file", "shm", "redis")


@pytest.fixture(scope="session")
def rust_program() -> Path:
    """The program, built if `make test` has not built it yet."""
    if shutil.which("cargo") is None:
        reason = "there is no cargo here to build the other side; see CONTRIBUTING.md"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    build = ["cargo", "build", "--quiet", "--workspace", "--all-features", "--example", "exchange"]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return ROOT / target / "debug" / "examples" / "exchange"


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
