"""A task in a process pool that does nothing: its input and its output are as large as each other.

By value, the pool pickles the array on its way in and on its way out. By proxy, the input is put
into a store, the worker resolves it, puts an array of the same size, and the caller resolves
that; every object is freed as soon as its consumer has it.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

import harness
from harness import Report, Side, Worker, ratio_text, size_text, time_text


def no_op(array: Any) -> Any:
    """By value: the input is the output."""
    return array


def no_op_by_proxy(package: str, proxy: Any) -> Any:
    """By proxy: resolve the input, put an output, return its proxy."""
    array = importlib.import_module(f"{package}.proxy").extract(proxy)
    store = importlib.import_module(f"{package}.store").get_store(proxy)
    return store.proxy(array, evict=True, populate_target=False)


class ByValue:
    """The pool alone."""

    def __init__(self) -> None:
        self.pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
        self.arrays: dict[int, Any] = {}

    def round_trips(self, size: int, count: int) -> float:
        """Median seconds of a few round trips."""
        if size not in self.arrays:
            self.arrays = {size: np.arange(size // 8, dtype=np.float64)}
        array = self.arrays[size]
        times = []
        for _ in range(count):
            start = time.perf_counter()
            result = self.round_trip(array)
            last = result[-1]
            times.append(time.perf_counter() - start)
            if last != array[-1] or len(result) != len(array):
                raise AssertionError("the result differs from the input")
            del result
        return statistics.median(times)

    def round_trip(self, array: Any) -> Any:
        return self.pool.submit(no_op, array).result()

    def close(self) -> None:
        self.pool.shutdown()


class ByProxy(ByValue):
    """The pool with a store."""

    def __init__(self, package: str, connector: str, kind: str, channel: str) -> None:
        super().__init__()
        self.package = package
        module = importlib.import_module(f"{package}.connectors.{connector}")
        stores = importlib.import_module(f"{package}.store")
        self.extract = importlib.import_module(f"{package}.proxy").extract
        made = getattr(module, kind)(channel)
        self.store = stores.Store(channel.rsplit("/", 1)[-1], made, register=True)

    def round_trip(self, array: Any) -> Any:
        proxy = self.store.proxy(array, evict=True)
        return self.extract(self.pool.submit(no_op_by_proxy, self.package, proxy).result())

    def close(self) -> None:
        super().close()
        self.store.close()


VALUE, UPSTREAM = "no proxies", "upstream, file on tmpfs"
SIDES = {
    VALUE: Side(ByValue),
    UPSTREAM: Side(
        ByProxy,
        ("proxystore", "file", "FileConnector", f"/dev/shm/bench-pool-{os.getpid()}"),
        "upstream",
        ("numpy", "proxystore"),
    ),
    "ours, shm": Side(
        ByProxy,
        ("proxystore_rs", "shm", "SharedMemoryConnector", f"bench-pool-{os.getpid()}"),
        "ours",
        ("numpy", "proxystore-rs"),
    ),
}


def compare(workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    report = Report("process_pool", "Round trip of a task that does nothing", options)
    report.versions(workers)
    sizes = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
    curves: dict[str, dict[int, float]] = {name: {} for name in workers}
    for size in [size for size in sizes if size <= options.largest]:
        count = 20 if size <= 1_000_000 else 4

        def round_trips(worker: Worker, size: int = size, count: int = count) -> Any:
            return worker.call("round_trips", size=size, count=count)

        answers = harness.interleave(workers, options.rounds, round_trips)
        for name, samples in answers.items():
            curves[name][size] = statistics.median(samples)
    shown = sorted(next(iter(curves.values())))
    header = ("side", *(size_text(size) for size in shown))
    times = [(n, *(time_text(curve[s]) for s in shown)) for n, curve in curves.items()]
    report.table("One worker, input = output, median round trip", header, times, curves)
    for reference in (VALUE, UPSTREAM):
        if reference in curves:
            ratios = [
                (n, *(ratio_text(curves[reference][s], curve[s]) for s in shown))
                for n, curve in curves.items()
            ]
            report.table(f"Ratio: {reference} / side", header, ratios, None)
    report.plot("Round trip, input = output", curves, "seconds")
    report.write()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--largest", type=int, default=10_000_000, metavar="BYTES", help="largest array"
    )


if __name__ == "__main__":
    harness.main(compare, SIDES, __doc__, add_options)
