"""What all tests share: a store on each channel."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxystore_rs.connectors.file import FileConnector
from proxystore_rs.connectors.local import LocalConnector
from proxystore_rs.connectors.memory import MemoryConnector
from proxystore_rs.connectors.multi import MultiConnector, Policy
from proxystore_rs.connectors.shm import SharedMemoryConnector
from proxystore_rs.store import Store

# A run that was started in the background ignores Ctrl-C, which some tests send themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count()

CHANNELS = ("local", "memory", "file", "shm", "multi")
SHARED_CHANNELS = ("file", "shm", "multi")


def _connector(kind: str, name: str, folder: Path) -> Any:
    match kind:
        case "local":
            return LocalConnector()
        case "memory":
            return MemoryConnector(name)
        case "file":
            return FileConnector(str(folder / name))
        case "multi":
            small = SharedMemoryConnector(name), Policy(priority=1, max_size_bytes=100_000)
            return MultiConnector(
                {"small": small, "large": (FileConnector(str(folder / name)), Policy())}
            )
        case _:
            return SharedMemoryConnector(name)


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[..., Store[Any]]]:
    """A function `(kind, **settings)` that opens registered stores, all closed at the end."""
    opened: list[Store[Any]] = []

    def make(kind: str, **settings: Any) -> Store[Any]:
        # Other test runs on this host share its memory.
        name = f"test-{os.getpid()}-{next(_numbers)}-{tmp_path.name}"
        store = Store(name, _connector(kind, name, tmp_path), register=True, **settings)
        opened.append(store)
        return store

    yield make
    for store in opened:
        if isinstance(store.connector, LocalConnector):
            store.close()
        else:
            store.close(clear=True)


@pytest.fixture(params=CHANNELS)
def store(request: pytest.FixtureRequest, make_store: Callable[..., Store[Any]]) -> Store[Any]:
    """A registered store, once on every channel."""
    return make_store(request.param)


@pytest.fixture(params=SHARED_CHANNELS)
def shared_store(
    request: pytest.FixtureRequest, make_store: Callable[..., Store[Any]]
) -> Store[Any]:
    """A registered store, once on every channel that other processes reach."""
    return make_store(request.param)
