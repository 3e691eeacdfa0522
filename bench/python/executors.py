"""A task that does nothing, on four engines: its input and its output are as large as each other.

Every side is an engine with one worker process, alone, with this package's `StoreExecutor` and
shared memory, or with upstream's and files on tmpfs. Times are round trips, from `submit` to the
use of the result, which is freed then.

There is no side of upstream on Parsl, which hashes what a task returns: upstream's proxy of an
array resolves for that, and an array has no hash.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

import engines
import harness
from harness import Report, Side, Worker, ratio_text, size_text, time_text

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)


def touch(array: Any) -> Any:
    """Use the input and return something as large that is not the input."""
    return array + 1


class Engine:
    """An engine, alone or with a `StoreExecutor` of one of the packages around it."""

    def __init__(self, engine: str, package: str | None, connector: str, kind: str) -> None:
        sys.path.append(str(harness.ROOT / "python"))  # the package is not installed there
        task = importlib.import_module("executors").touch  # workers import it by this name
        self.task, self.arrays = task, {}  # type: ignore[var-annotated]
        self.stack = contextlib.ExitStack()
        self.executor = engines.start(engine, 1, self.stack)
        self.extract: Any = lambda item: item
        self.options: dict[str, Any] = {}
        self.wrapped: Any = None
        if engine == "Dask":
            self.options["pure"] = False
        if package is None:
            return
        channel = f"bench-executors-{os.getpid()}"
        if kind == "FileConnector":
            channel = f"/dev/shm/{channel}"
        made = getattr(importlib.import_module(f"{package}.connectors.{connector}"), kind)(channel)
        stores: Any = importlib.import_module(f"{package}.store")
        module: Any = importlib.import_module(f"{package}.store.executor")
        self.store = stores.Store(f"bench-{os.getpid()}", made, register=True)
        self.extract = importlib.import_module(f"{package}.proxy").extract
        # Every object of the smallest size and more goes by proxy, on both sides.
        self.executor = self.wrapped = module.StoreExecutor(
            self.executor,
            self.store,
            module.ProxyType(np.ndarray),
            # Upstream warns that its owners do not work with Dask.
            ownership=package == "proxystore_rs",
        )

    def round_trips(self, size: int, count: int) -> float:
        """Median seconds of a few round trips."""
        if size not in self.arrays:
            self.arrays = {size: np.arange(size // 8, dtype=np.float64)}
        array = self.arrays[size]
        times = []
        for _ in range(count):
            start = time.perf_counter()
            result = self.executor.submit(self.task, array, **self.options).result()
            last = self.extract(result)[-1]
            times.append(time.perf_counter() - start)
            if last != array[-1] + 1:
                raise AssertionError("the result is not that of the input")
            self.free(result)
            del result
        return statistics.median(times)

    def free(self, result: Any) -> None:
        """Evict a result that has no owner."""
        if self.wrapped is not None and not self.wrapped.ownership:
            self.store.evict(result.__proxy_factory__.key)

    def close(self) -> None:
        self.executor.shutdown() if hasattr(self.executor, "shutdown") else self.executor.close()
        self.stack.close()


VALUE, OURS, UPSTREAM = "no proxies", "ours, shm", "upstream, file on tmpfs"
PACKAGES: dict[str, tuple[str | None, str, str]] = {
    VALUE: (None, "", ""),
    OURS: ("proxystore_rs", "shm", "SharedMemoryConnector"),
    UPSTREAM: ("proxystore", "file", "FileConnector"),
}
VERSIONS = ("numpy", "distributed", "ray", "parsl", "proxystore")
SIDES = {
    f"{engine}: {name}": Side(Engine, (engine, *package), "engines", VERSIONS)
    for engine in engines.NAMES
    for name, package in PACKAGES.items()
    if (engine, name) != ("Parsl", UPSTREAM)
}


def compare(workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    report = Report("executors", "Round trip of a task on four engines", options)
    report.versions(workers)
    sizes = [size for size in SIZES if size <= options.largest]
    header = ("side", *(size_text(size) for size in sizes))
    for engine in engines.NAMES:
        sides = {n: w for n, w in workers.items() if n.startswith(f"{engine}: ")}
        if not sides:
            continue
        curves: dict[str, dict[int, float]] = {name: {} for name in sides}
        for size in sizes:
            count = 20 if size < 1_000_000 else 5

            def round_trips(worker: Worker, size: int = size, count: int = count) -> Any:
                return worker.call("round_trips", size=size, count=count)

            for name, samples in harness.interleave(sides, options.rounds, round_trips).items():
                curves[name][size] = statistics.median(samples)
        rows = [(n, *(time_text(curve[s]) for s in sizes)) for n, curve in curves.items()]
        report.table(f"{engine}: median round trip, input = output", header, rows, curves)
        base = curves.get(f"{engine}: {VALUE}")
        if base is not None:
            ratios = [
                (n, *(ratio_text(base[s], curve[s]) for s in sizes)) for n, curve in curves.items()
            ]
            report.table(f"{engine}: {VALUE} / side", header, ratios, None)
        report.plot(engine, curves, "seconds")
    report.write()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--largest", type=int, default=SIZES[-1], metavar="BYTES", help="largest array"
    )


if __name__ == "__main__":
    harness.main(compare, SIDES, __doc__, add_options)
