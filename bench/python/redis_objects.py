"""Objects over Redis: small ones by proxy, large ones by put and get, beside bare SET and GET.

Starts a server of its own on this host; needs `redis-server`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from typing import Any

import harness
import servers
from harness import Report, Side, Worker, ratio_text, size_text, time_text
from small_objects import STEPS, Library

SIZES = (1_000_000, 10_000_000)


class Objects(Library):
    """A library with upstream's interface, on Redis."""

    def __init__(self, package: str) -> None:
        self.package = package

    def connect(self, port: int) -> None:
        """Open the store, now that there is a server."""
        super().__init__(self.package, "redis", "RedisConnector", "127.0.0.1", port)

    def large(self, size: int) -> dict[str, float]:
        """Seconds to put an object, and to get it."""
        target = os.urandom(size)
        start = time.perf_counter()
        key = self.store.put(target)
        stored = time.perf_counter()
        found = self.store.get(key)
        end = time.perf_counter()
        if found != target:
            raise AssertionError("what was got differs from what was put")
        self.store.evict(key)
        return {"put": stored - start, "get": end - stored}


class Bare:
    """SET and GET by redis-py: what Redis itself costs in Python."""

    def connect(self, port: int) -> None:
        import redis

        self.client = redis.Redis("127.0.0.1", port)

    def cycle(self, count: int, size: int) -> dict[str, float]:
        """Seconds per object of a SET and a GET."""
        target = bytes(size)
        names = [f"bare-{number}" for number in range(count)]
        start = time.perf_counter()
        for name in names:
            self.client.set(name, target)
        stored = time.perf_counter()
        found = [self.client.get(name) for name in names]
        end = time.perf_counter()
        if found != [target] * count:
            raise AssertionError("what was got differs from what was set")
        self.client.delete(*names)
        return {
            "proxy": (stored - start) / count,
            "resolve": (end - stored) / count,
            "all four": (end - start) / count,
        }

    def large(self, size: int) -> dict[str, float]:
        """Seconds to set a value, and to get it."""
        target = os.urandom(size)
        start = time.perf_counter()
        self.client.set("bare", target)
        stored = time.perf_counter()
        found = self.client.get("bare")
        end = time.perf_counter()
        if found != target:
            raise AssertionError("what was got differs from what was set")
        self.client.delete("bare")
        return {"put": stored - start, "get": end - stored}

    def close(self) -> None:
        self.client.close()


BARE = "bare SET and GET"
UPSTREAM = "upstream"
SIDES = {
    "ours": Side(Objects, ("proxystore_rs",), "ours", ("proxystore-rs",)),
    UPSTREAM: Side(Objects, ("proxystore",), "upstream", ("proxystore", "redis")),
    BARE: Side(Bare, (), "ours", ("redis",)),
}


def compare(workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    report = Report("redis_objects", "Objects over Redis", options)
    report.versions(workers)
    with servers.redis() as port:
        for worker in workers.values():
            worker.call("connect", port=port)
        small(report, workers, options)
        for size in SIZES:
            large(report, workers, options, size)
        for worker in workers.values():
            worker.close()  # while there is a server to take leave of
    report.write()


def small(report: Report, workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    def cycle(worker: Worker) -> Any:
        return worker.call("cycle", count=options.count, size=options.size)

    answers = harness.interleave(workers, options.rounds, cycle)
    found = {name: harness.medians(samples) for name, samples in answers.items()}
    bare = found.get(BARE, {}).get("all four")
    upstream = found.get(UPSTREAM, {}).get("all four")
    rows = [
        (
            name,
            *(time_text(values.get(step)) for step in (*STEPS, "all four")),
            "-" if bare is None else f"{(values['all four'] - bare) * 1e6:+.1f} us",
            ratio_text(upstream, values["all four"]),
        )
        for name, values in found.items()
    ]
    header = ("side", *STEPS, "all four", "side - bare", "upstream / side")
    report.table(f"Time per object of {options.size} B", header, rows, found)


def large(
    report: Report, workers: Mapping[str, Worker], options: argparse.Namespace, size: int
) -> None:
    answers = harness.interleave(workers, options.rounds, lambda w: w.call("large", size=size))
    found = {name: harness.medians(samples) for name, samples in answers.items()}
    upstream, bare = found.get(UPSTREAM, {}), found.get(BARE, {})
    rows = [
        (
            name,
            *(time_text(values[step]) for step in ("put", "get")),
            *(ratio_text(values[step], bare.get(step)) for step in ("put", "get")),
            *(ratio_text(upstream.get(step), values[step]) for step in ("put", "get")),
        )
        for name, values in found.items()
    ]
    header = ("side", "put", "get", "put / bare", "get / bare", "upstream / put", "upstream / get")
    report.table(f"Objects of {size_text(size)}", header, rows, found)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=500, help="objects per round (default: 500)")
    parser.add_argument("--size", type=int, default=100, help="bytes per object (default: 100)")


if __name__ == "__main__":
    harness.main(compare, SIDES, __doc__, add_options)
