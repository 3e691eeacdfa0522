"""All patterns at once, by many threads and processes, on every channel: no error, nothing left."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hammer import in_processes, in_threads, settles

from proxystore_rs.connectors.shm import SharedMemoryConnector
from proxystore_rs.store import Store

# Python warns of forking a process with threads, which is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


ROUNDS = 10


def left(store: Store[Any]) -> list[str]:
    """The files of objects in a channel that consists of files."""
    connector = store.connector
    folder = getattr(connector, "store_dir", None)
    if folder is not None:
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return [path.name for path in files if not path.name.startswith(".")]
    if isinstance(connector, SharedMemoryConnector):
        session = Path(f"/dev/shm/proxystore-{os.getuid()}", connector.name)
        return [path.name for path in session.glob("o-*")]
    return []  # memory, which holds no files


def test_what_is_left_is_seen(make_store: Callable[..., Store[Any]]) -> None:
    for kind in ("file", "shm"):
        store = make_store(kind)
        key = store.put("x")
        assert len(left(store)) == 1
        store.evict(key)
        assert left(store) == []


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("kind", ["local", "memory", "file", "shm", "multi"])
def test_threads(make_store: Callable[..., Store[Any]], kind: str) -> None:
    store = make_store(kind, cache_size=2)
    in_threads(store, 1)  # what is opened once stays
    gc.collect()
    before = threads(), descriptors()
    in_threads(store, ROUNDS)
    assert settles(threads, before[0])
    assert settles(descriptors, before[1])
    assert settles(lambda: len(left(store)), 0), left(store)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", ["file", "shm", "multi"])
def test_processes(make_store: Callable[..., Store[Any]], kind: str, method: str) -> None:
    store = make_store(kind)
    before = threads(), descriptors()
    in_processes(store, method, 1)
    # A channel keeps a descriptor or two once it is used.
    assert settles(threads, before[0] + 1)
    assert settles(descriptors, before[1] + 4)
    assert settles(lambda: len(left(store)), 0), left(store)
