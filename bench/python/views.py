"""A view of a part beside the whole object, and a whole object read by several ranges at once.

One array is stored per channel; every side reads it in a process of its own (in memory, each stores
its own). What moves is what the kernel counts for the process or the server sends; memory that is
shared or mapped does not move. Needs `redis-server`, which it starts.
"""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
from harness import Report, Side, Worker, size_text, time_text
from protection import CHANNELS, ratios, spread_text
from redis_objects import server

WHOLE = "whole"
PART = 1_000_000


class Reader:
    """Reads an array in one way; the time is until it is summed, since mapped bytes come when used."""

    def __init__(self, way: str) -> None:
        self.way = way

    def open(self, channel: str, name: str, port: int) -> None:
        """Open the channel, which all sides share."""
        from proxystore_rs.connectors.file import FileConnector
        from proxystore_rs.connectors.memory import MemoryConnector
        from proxystore_rs.connectors.redis import RedisConnector
        from proxystore_rs.connectors.shm import SharedMemoryConnector
        from proxystore_rs.store import Store

        connector: Any = {
            "memory": lambda: MemoryConnector(name),
            "file": lambda: FileConnector(f"/dev/shm/{name}", clear=False),
            "shm": lambda: SharedMemoryConnector(name),
            "redis": lambda: RedisConnector("127.0.0.1", port),
        }[channel]()
        self.port = port if channel == "redis" else 0
        self.counted = channel in ("file", "redis")
        self.store = Store(name, connector, cache_size=0, register=True)

    def put(self, size: int) -> str:
        """Store the array; its key."""
        import numpy as np

        return pickle.dumps(self.store.put(np.arange(size // 8))).hex()

    def moved(self) -> int:
        """Bytes that came out of the channel so far."""
        if self.port:
            import redis

            with redis.Redis("127.0.0.1", self.port) as client:
                return int(client.info("stats")["total_net_output_bytes"])
        text = Path("/proc/self/io").read_text()
        return int(text.split("rchar:", 1)[1].split()[0])

    def read(self, key: str) -> dict[str, float]:
        """Seconds to get and sum; bytes moved, if they are counted."""
        found = pickle.loads(bytes.fromhex(key))
        before = self.moved() if self.counted else 0
        start = time.perf_counter()
        if self.way == WHOLE:
            array = self.store.get(found)
        elif self.way == "view":
            middle = len(self.store.view(found)) // 2
            array = self.store.view(found)[middle : middle + PART // 8]
        else:
            array = self.store.view(found).load(parallel=4)
        array.sum()
        seconds = time.perf_counter() - start
        after = self.moved() if self.counted else 0
        if int(array[-1]) - int(array[0]) != len(array) - 1:
            raise AssertionError("what was read is not what was stored")
        return {"seconds": seconds, "moved": after - before}

    def shut(self) -> None:
        """Close the store, with all it holds."""
        self.store.close(clear=True)


SIDES = {
    WHOLE: Side(Reader, (WHOLE,)),
    "view of 1 MB": Side(Reader, ("view",)),
    "load(parallel=4)": Side(Reader, ("load",)),
}


def compare(workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    report = Report("views", "A part of an object, and several ranges at once", options)
    report.versions(workers)
    name = f"bench-views-{os.getpid()}"
    with server() as port:
        try:
            for channel in options.channels:
                size = min(options.size, options.redis_size) if channel == "redis" else options.size
                for worker in workers.values():
                    worker.call("open", channel=channel, name=name, port=port)
                read(report, workers, options.rounds, channel, size)
                for worker in workers.values():
                    worker.call("shut")
        finally:
            shutil.rmtree(f"/dev/shm/{name}", ignore_errors=True)
    report.write()


def read(
    report: Report, workers: Mapping[str, Worker], rounds: int, channel: str, size: int
) -> None:
    first, *others = workers
    keys = {first: workers[first].call("put", size=size)}
    for name in others:
        shared = channel != "memory"
        keys[name] = keys[first] if shared else workers[name].call("put", size=size)
    answers = harness.interleave(workers, rounds, lambda w: w.call("read", key=keys[w.name]))
    rows, data = [], {}
    for name, samples in answers.items():
        found = data[name] = harness.medians(samples)
        moved = size_text(found["moved"]) if found["moved"] else "-"
        spread = spread_text(ratios(answers, name, WHOLE, "seconds"))
        rows.append((name, time_text(found["seconds"]), spread, moved))
    header = ("side", "get + sum", "side / whole", "bytes moved")
    report.table(f"{channel}, {size_text(size)}, {rounds} rounds", header, rows, data)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--size", type=int, default=1_000_000_000, help="bytes of the object (default: 1 GB)")
    add("--redis-size", type=int, default=256_000_000, help="at most, on Redis (default: 256 MB)")
    add("--channels", nargs="+", default=CHANNELS, choices=CHANNELS, help="which (default: all)")
    harness.add_quick(parser, rounds=1, size=10_000_000)


if __name__ == "__main__":
    harness.main(compare, SIDES, __doc__, add_options, rounds=5)
