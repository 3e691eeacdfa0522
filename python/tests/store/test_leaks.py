"""Stores give back what they took: memory, descriptors, mappings, shared memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

CYCLES = """
import gc, os, pickle, resource, sys
import numpy as np
from proxystore_rs.exceptions import ProxyStoreError
from proxystore_rs.store import open_store

kind, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
url = {"memory": "memory://leaks", "shm": "shm://test-leaks", "file": f"file://{folder}"}[kind]
store = open_store(url, cache_size=4)
objects = [b"x" * 100, np.arange(40), {"a": [1, np.ones(20_000)]}, "text"]

def cycle(obj):
    proxy = store.proxy(obj, evict=True, populate_target=False)
    copy = pickle.loads(pickle.dumps(proxy))
    copy.__proxy_wrapped__
    key = proxy.__proxy_factory__.key
    assert store.get(key) is None
    try:
        len(proxy)
    except Exception:
        pass

def state():
    gc.collect()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    with open("/proc/self/maps") as file:
        maps = len(file.readlines())
    return pages * 4096, len(os.listdir("/proc/self/fd")), maps, len(gc.get_objects())

for _ in range(count // 4):
    for obj in objects:
        cycle(obj)
before = state()
for _ in range(count):
    for obj in objects:
        cycle(obj)
growth = [after - earlier for after, earlier in zip(state(), before)]
store.close(clear=True)
print(*growth)
"""


@pytest.mark.parametrize(("kind", "count"), [("memory", 20_000), ("shm", 5_000), ("file", 2_000)])
def test_nothing_grows_over_many_objects(kind: str, count: int, tmp_path: object) -> None:
    command = [sys.executable, "-c", CYCLES, kind, str(tmp_path), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    memory, descriptors, mappings, objects = map(int, done.stdout.split())
    assert memory < 8 << 20
    assert descriptors <= 0
    assert mappings < 50
    assert objects < 100
