"""How many bytes a store holds while a workflow runs, and after it.

Rounds of mappers, each with an input and an output of its own, and a reducer that reads all of
their outputs. The tasks sleep for a while; who frees the objects differs:

- *no proxies*: everything goes through the pool by value, and the store is not used;
- *default*: inputs and outputs are plain proxies, and nobody evicts: all of it stays;
- *manual*: the driver evicts the inputs of a stage when the stage has finished;
- *owned*: inputs are owned and lent to the tasks, and outputs get an owner on arrival. What goes
  out of scope is freed.

The store keeps files on tmpfs; their sizes are sampled every 10 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import harness
from harness import Report, Side, Worker, ratio_text, size_text, time_text
from proxystore_rs.connectors.file import FileConnector
from proxystore_rs.store import Store, get_store
from proxystore_rs.store.ref import borrow, into_owned
from proxystore_rs.store.scopes import submit

INTERVAL = 0.01  # seconds between samples


def task(size: int, seconds: float, *inputs: Any) -> Any:
    """Read the inputs, sleep, return an array whose items are all the sum of theirs."""
    total = sum(int(array.sum(dtype=np.int64)) // array.size for array in inputs)
    time.sleep(seconds)
    return np.full(size, total % 256, np.uint8)


def task_by_proxy(size: int, seconds: float, *inputs: Any) -> Any:
    """Put the output into the store that the first input came from."""
    store = get_store(inputs[0])
    assert store is not None
    return store.proxy(task(size, seconds, *inputs), populate_target=False)


class Workflow:
    """A pool and a store, and one way to manage the objects."""

    def __init__(self, mode: str, folder: str, pool: ProcessPoolExecutor) -> None:
        self.folder, self.pool = Path(folder), pool
        self.store = Store(self.folder.name, FileConnector(folder), register=True, cache_size=0)
        self.stage: Callable[..., list[Any]] = getattr(self, mode.replace(" ", "_"))

    def run(self, rounds: int, mappers: int, sizes: Sequence[int], seconds: float) -> list[int]:
        """What the reducers of all rounds found."""
        results = []
        for number in range(rounds):
            inputs = [np.full(sizes[0], number + one, np.uint8) for one in range(mappers)]
            outputs = self.stage(inputs, sizes[1:], seconds)
            results.append(int(outputs[0][0]))
        return results

    def no_proxies(self, inputs: list[Any], sizes: Sequence[int], seconds: float) -> list[Any]:
        mapped = [self.pool.submit(task, sizes[0], seconds, one) for one in inputs]
        outputs = [future.result() for future in mapped]
        return [self.pool.submit(task, sizes[1], seconds, *outputs).result()]

    def default(self, inputs: list[Any], sizes: Sequence[int], seconds: float) -> list[Any]:
        proxies = [self.store.proxy(one) for one in inputs]
        mapped = [self.pool.submit(task_by_proxy, sizes[0], seconds, one) for one in proxies]
        outputs = [future.result() for future in mapped]
        return [self.pool.submit(task_by_proxy, sizes[1], seconds, *outputs).result()]

    def manual(self, inputs: list[Any], sizes: Sequence[int], seconds: float) -> list[Any]:
        proxies = [self.store.proxy(one) for one in inputs]
        mapped = [self.pool.submit(task_by_proxy, sizes[0], seconds, one) for one in proxies]
        outputs = [future.result() for future in mapped]
        for proxy in proxies:
            self.store.evict(proxy.__proxy_factory__.key)
        reduced = self.pool.submit(task_by_proxy, sizes[1], seconds, *outputs).result()
        for proxy in outputs:
            self.store.evict(proxy.__proxy_factory__.key)
        reduced.sum()  # resolved: the object itself is no longer needed
        self.store.evict(reduced.__proxy_factory__.key)
        return [reduced]

    def owned(self, inputs: list[Any], sizes: Sequence[int], seconds: float) -> list[Any]:
        # Nobody keeps the owners of the inputs: each lives as long as the task it is lent to.
        mapped = [self.lend(sizes[0], seconds, self.store.owned_proxy(one)) for one in inputs]
        outputs = [into_owned(future.result()) for future in mapped]
        return [into_owned(self.lend(sizes[1], seconds, *outputs).result())]

    def lend(self, size: int, seconds: float, *owners: Any) -> Future[Any]:
        borrows = [borrow(owner, populate_target=False) for owner in owners]
        return submit(self.pool.submit, args=(task_by_proxy, size, seconds, *borrows))


def stored(folder: Path) -> int:
    """Bytes of the objects in a folder."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # freed meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


@contextlib.contextmanager
def sampled(folder: Path) -> Iterator[list[tuple[float, int]]]:
    """Seconds since the beginning, and bytes stored, every so often while the block runs."""
    samples = [(0.0, stored(folder))]
    start, over = time.perf_counter(), threading.Event()

    def sample() -> None:
        samples.append((time.perf_counter() - start, stored(folder)))

    def watch() -> None:
        while not over.wait(INTERVAL):
            sample()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield samples
    finally:
        over.set()
        watcher.join()
        sample()


class Watched:
    """Runs a workflow as often as asked, and watches what is stored."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        context = multiprocessing.get_context("fork")
        self.pool = ProcessPoolExecutor(2, mp_context=context)

    def run(self, **options: Any) -> dict[str, Any]:
        folder = Path(f"/dev/shm/bench-memory-{os.getpid()}")
        workflow = Workflow(self.mode, str(folder), self.pool)
        start = time.perf_counter()
        with sampled(folder) as samples:
            results = workflow.run(**options)
            took = time.perf_counter() - start
        workflow.store.close(clear=True)
        return {"makespan": took, "samples": samples, "results": results}

    def close(self) -> None:
        self.pool.shutdown()


MODES = ("no proxies", "default", "manual", "owned")
SIDES = {mode: Side(partial(Watched, mode), (), "ours", ("proxystore-rs",)) for mode in MODES}


def compare(workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    report = Report("memory", "Bytes stored while a workflow runs", options)
    report.versions(workers)
    run = {
        "rounds": options.stages,
        "mappers": options.mappers,
        "sizes": options.sizes,
        "seconds": options.seconds,
    }
    large, middle, small = options.sizes
    per_round = options.mappers * (large + middle) + small
    answers = harness.interleave(workers, options.rounds, lambda w: w.call("run", **run))
    expected = [
        sum(round_ + one for one in range(options.mappers)) % 256
        for round_ in range(options.stages)
    ]
    data: dict[str, Any] = {"all objects": options.stages * per_round}
    rows, curves = [], {}
    for name, runs in answers.items():
        if any(one["results"] != expected for one in runs):
            raise AssertionError(f"{name}: the reducers found something else than {expected}")
        sizes = [[size for _, size in one["samples"]] for one in runs]
        found = data[name] = {
            "makespan": statistics.median(one["makespan"] for one in runs),
            "peak": statistics.median(max(values) for values in sizes),
            "end": statistics.median(values[-1] for values in sizes),
        }
        curves[name] = {at: size / 1e6 for at, size in runs[-1]["samples"]}
        base = data.get("manual", {}).get("peak")
        rows.append(
            (
                name,
                *(size_text(found[key]) for key in ("peak", "end")),
                ratio_text(found["end"], data["all objects"]),
                time_text(found["makespan"]),
                ratio_text(found["peak"], base),
            )
        )
    title = (
        f"{options.stages} rounds of {options.mappers} mappers: {size_text(large)} to "
        f"{size_text(middle)}, and a reducer to {size_text(small)}; all objects: "
        f"{size_text(data['all objects'])}; 2 workers"
    )
    header = ("mode", "peak", "end", "end / all objects", "makespan")
    report.table(title, (*header, "peak / manual"), rows, data)
    report.plot("Bytes stored", curves, "MB", xlabel="seconds", linear=True)
    report.write()


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--stages", type=int, default=4, help="rounds of mappers and a reducer (default: 4)")
    add("--mappers", type=int, default=4, help="per stage (default: 4)")
    add(
        "--sizes",
        type=int,
        nargs=3,
        default=(10_000_000, 1_000_000, 100_000),
        metavar="BYTES",
        help="input of a mapper, its output, output of the reducer (default: 10 MB, 1 MB, 100 kB)",
    )
    add("--seconds", type=float, default=0.5, help="per task (default: 0.5)")
    harness.add_quick(parser, rounds=1, sizes=(100_000, 10_000, 1_000), seconds=0.02)


if __name__ == "__main__":
    harness.main(compare, SIDES, __doc__, add_options, rounds=3)
