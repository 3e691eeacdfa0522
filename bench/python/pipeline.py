"""A chain of tasks, each of which needs the output of the one before, but not at once.

A task takes `s` seconds. For a fraction `f` of them it starts up: it imports, reads a model. Then it
needs its predecessor's output of `d` bytes, computes for the rest, and makes an output of its own.
What is measured is the time from the first submission until the last output is here, of

- *no proxies*: a task is submitted when the one before is done, with its output;
- *proxies*: the same, and outputs travel by proxy;
- *futures*: all are submitted at once, each with the proxy of a future of its predecessor's
  output. Tasks start up while their predecessors compute.

The least possible with futures is `s (1 + (n - 1)(1 - f))`, without `n s`. There are as many workers as
tasks, because one that waits for its predecessor occupies a worker; with two, only neighbours
would overlap, which is enough up to f = 0.5. Work is sleeping, so that cores do not count.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

import engines
import harness
from harness import Report, Side, Worker, ratio_text, size_text, time_text

MODES = ("no proxies", "proxies", "futures")
FRACTIONS = (0.0, 0.2, 0.5, 0.9)


def work(array: Any, start_up: float, compute: float, package: str) -> Any:
    """Be a task: take the predecessor's output after a while, return one of the same size."""
    time.sleep(start_up)
    if type(array) is not np.ndarray:  # a proxy
        array = importlib.import_module(f"{package}.proxy").extract(array)
    time.sleep(compute)
    return array + 1


def work_by_proxy(proxy: Any, start_up: float, compute: float, package: str) -> Any:
    """Put the output into the store that the input came from."""
    output = work(proxy, start_up, compute, package)
    store = importlib.import_module(f"{package}.store").get_store(proxy)
    return store.proxy(output, evict=True, populate_target=False)


def work_for_future(proxy: Any, start_up: float, compute: float, package: str, future: Any) -> None:
    """Set the future to the output."""
    future.set_result(work(proxy, start_up, compute, package))


def meet(package: str, future: Any, *proxies: Any) -> None:
    """Return when all that were called with these futures are up, and have used the store."""
    future.set_result(np.zeros(1000))
    for proxy in proxies:
        work(proxy, 0, 0, package)
    store = importlib.import_module(f"{package}.store").get_store(proxies[0])
    work(store.proxy(np.zeros(1000), evict=True, populate_target=False), 0, 0, package)


class Pipeline:
    """An engine, and a store for it."""

    def __init__(
        self, engine: str, package: str, connector: str, kind: str, channel: str, **options: Any
    ) -> None:
        self.engine, self.package, self.options = engine, package, options
        self.stack = contextlib.ExitStack()
        # Workers must find the tasks under a name of their own: this file is the main program.
        self.tasks = importlib.import_module("pipeline")
        stores = importlib.import_module(f"{package}.store")
        self.extract = importlib.import_module(f"{package}.proxy").extract
        made = getattr(importlib.import_module(f"{package}.connectors.{connector}"), kind)
        name = channel.rsplit("/", 1)[-1]
        self.store = stores.Store(name, made(channel), register=True, cache_size=0)
        self.stack.callback(self.store.close)

    def start(self, workers: int) -> None:
        """Start the engine; all its workers are up, and have opened the store."""
        self.bare = self.executor = engines.start(self.engine, workers, self.stack)
        if self.package == "proxystore_rs":
            # Engines look at what they carry. This keeps proxies from their eyes, no more.
            executors = importlib.import_module("proxystore_rs.store.executor")
            self.executor = executors.StoreExecutor(self.bare, self.store)
        futures = [self.store.future(**self.options) for _ in range(workers)]
        proxies = [future.proxy() for future in futures]
        tasks = [
            self.executor.submit(self.tasks.meet, self.package, future, *proxies)
            for future in futures
        ]
        for task in tasks:
            task.result()
        for proxy in proxies:
            self.store.evict(proxy.__proxy_factory__.key)

    def run_all(self, **options: Any) -> dict[str, float]:
        """Seconds of every mode, in turn."""
        return {mode: self.run(mode, **options) for mode in MODES}

    def run(self, mode: str, tasks: int, seconds: float, fraction: float, size: int) -> float:
        """Seconds from the first submission until the last output is here."""
        times = seconds * fraction, seconds * (1 - fraction)
        array = np.zeros(size // 8)
        run = {
            "no proxies": self.by_value,
            "proxies": self.by_proxy,
            "futures": self.by_future,
        }[mode]
        start = time.perf_counter()
        output = run(array, tasks, times)
        took = time.perf_counter() - start
        if len(output) != len(array) or output[0] != tasks or output[-1] != tasks:
            raise AssertionError("the last output is wrong")
        return took

    def by_value(self, array: Any, tasks: int, times: tuple[float, float]) -> Any:
        options = {"pure": False} if self.engine == "Dask" else {}
        for _ in range(tasks):
            task = self.bare.submit(self.tasks.work, array, *times, self.package, **options)
            array = task.result()
        return array

    def by_proxy(self, array: Any, tasks: int, times: tuple[float, float]) -> Any:
        proxy = self.store.proxy(array, evict=True)
        for _ in range(tasks):
            task = self.executor.submit(self.tasks.work_by_proxy, proxy, *times, self.package)
            proxy = task.result()
        return self.extract(proxy)

    def by_future(self, array: Any, tasks: int, times: tuple[float, float]) -> Any:
        proxy = self.store.proxy(array, evict=True)
        done = []
        for _ in range(tasks):
            future = self.store.future(evict=True, polling_timeout=120, **self.options)
            arguments = (proxy, *times, self.package, future)
            done.append(self.executor.submit(self.tasks.work_for_future, *arguments))
            proxy = future.proxy()
        output = self.extract(proxy)
        for task in done:
            task.result()
        return output

    def close(self) -> None:
        self.stack.close()


def sides() -> dict[str, Side]:
    """Every engine with our futures, and one with upstream's."""
    found = {}
    for engine, distributions in engines.DISTRIBUTIONS.items():
        channel = f"bench-{engine.split()[0].lower()}-{os.getpid()}"
        found[engine] = Side(
            Pipeline,
            (engine, "proxystore_rs", "shm", "SharedMemoryConnector", channel),
            "engines" if distributions else "ours",
            ("numpy", *(distributions or ("proxystore-rs",))),
            by_path=True,
        )
    found[UPSTREAM] = Side(
        Hurried,
        ("process pool", "proxystore", "file", "FileConnector", f"/dev/shm/bench-{os.getpid()}"),
        "upstream",
        ("numpy", "proxystore"),
    )
    return found


class Hurried(Pipeline):
    """Upstream asks every millisecond, as in the published figures, instead of every second."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, polling_interval=0.001)


UPSTREAM = "process pool, upstream"
SIDES = sides()


def least(options: argparse.Namespace, fraction: float) -> float:
    """Seconds that the tasks take if all that can overlap does, and the rest costs nothing."""
    return float(options.seconds * (1 + (options.tasks - 1) * (1 - fraction)))


def compare(workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    report = Report("pipeline", "A chain of tasks that overlap", options)
    report.versions(workers)
    report.text(
        f"{options.tasks} tasks of {time_text(options.seconds)}, {size_text(options.size)} from each "
        f"to the next, {options.tasks} workers (Dask: two processes with threads). Ours on shared "
        "memory, upstream on files in tmpfs, asking every millisecond."
    )
    for worker in workers.values():
        worker.call("start", workers=options.tasks)
    found: dict[str, dict[str, dict[float, float]]] = {
        name: {mode: {} for mode in MODES} for name in workers
    }
    for fraction in options.fractions:

        def run(worker: Worker, fraction: float = fraction) -> Any:
            return worker.call(
                "run_all",
                tasks=options.tasks,
                seconds=options.seconds,
                fraction=fraction,
                size=options.size,
            )

        for name, samples in harness.interleave(workers, options.rounds, run).items():
            for mode, value in harness.medians(samples).items():
                found[name][mode][fraction] = value
    ideal = {fraction: least(options, fraction) for fraction in options.fractions}
    report.data["least possible"] = ideal
    header = ("mode", *(f"f = {fraction:g}" for fraction in options.fractions))
    for name, modes in found.items():
        rows = [(m, *(time_text(t) for t in curve.values())) for m, curve in modes.items()]
        rows.append(("least possible with futures", *(time_text(t) for t in ideal.values())))
        for other in MODES[:2]:
            ratios = [ratio_text(modes[other][f], modes["futures"][f]) for f in ideal]
            rows.append((f"{other} / futures", *ratios))
        ratios = [ratio_text(modes["futures"][f], ideal[f]) for f in ideal]
        rows.append(("futures / least possible", *ratios))
        report.table(name, header, rows, modes)
        report.plot(
            name,
            modes | {"least possible": ideal},
            "makespan, seconds",
            xlabel="fraction of a task before it needs its input",
            linear=True,
        )
    report.write()


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--tasks", type=int, default=8, help="length of the chain (default: 8)")
    add("--seconds", type=float, default=0.2, help="per task (default: 0.2)")
    add("--size", type=int, default=10_000_000, metavar="BYTES", help="of outputs (default: 10 MB)")
    add("--fractions", type=float, nargs="+", default=FRACTIONS, metavar="F", help="of start-up")
    quick = {"tasks": 4, "seconds": 0.05, "size": 100_000, "fractions": (0.0, 0.9)}
    harness.add_quick(parser, rounds=1, **quick)


if __name__ == "__main__":
    harness.main(compare, SIDES, __doc__, add_options, rounds=3)
