"""A chain of tasks in a process pool that overlap, because their inputs are futures.

Every task takes a while to start up, as one does that imports a large library or reads a model. Then it
needs the output of the task before. A driver that submits a task when its input is there pays for
the start-up of each; one that submits all at once, each with the proxy of a future, pays for the first.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import Future as Task
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from proxystore_rs.connectors.shm import SharedMemoryConnector
from proxystore_rs.store import Store
from proxystore_rs.store.future import Future


class Times(NamedTuple):
    """When a task began, had its input, and was done."""

    began: float
    received: float
    done: float


def work(array: Any, output: Future[Any], start_up: float, compute: float) -> Times:
    """The task. It knows nothing of futures at its one end, and sets one at the other."""
    began = time.monotonic()
    time.sleep(start_up)
    array.sum()  # the first use waits until somebody has set the array
    received = time.monotonic()
    time.sleep(compute)
    output.set_result(array + 1)
    return Times(began, received, time.monotonic())


def tell(_: Task[Times]) -> None:
    """Say that one more task is done."""
    print(".", end="", file=sys.stderr, flush=True)


def run(
    pool: ProcessPoolExecutor, store: Store[Any], options: argparse.Namespace, at_once: bool
) -> list[Times]:
    """Run the chain; check its output, and return what the tasks say."""
    array: Any = store.proxy(np.zeros(options.size // 8), evict=True)
    tasks: list[Task[Times]] = []
    for _ in range(options.tasks):
        output: Future[Any] = store.future(evict=True, polling_timeout=60)
        tasks.append(pool.submit(work, array, output, options.start_up, options.compute))
        tasks[-1].add_done_callback(tell)
        array = output.proxy()
        if not at_once:
            tasks[-1].result()
    if not (array == options.tasks).all():
        sys.exit("futures_pipeline: the last output is wrong")
    return [task.result() for task in tasks]


def show(title: str, tasks: list[Times], width: int = 60) -> float:
    """Draw who did what when; return how long it took."""
    first, last = min(task.began for task in tasks), max(task.done for task in tasks)
    print(f"\n{title}: {last - first:.2f} s")
    for number, task in enumerate(tasks):
        began, received, done = (round(width * (at - first) / (last - first)) for at in task)
        bar = " " * began + "." * (received - began) + "#" * max(1, done - received)
        print(f"  task {number} |{bar:{width}}|")
    return last - first


def main() -> None:
    """Run the chain both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--tasks", type=int, default=6, help="length of the chain (default: 6)")
    add("--start-up", type=float, default=0.3, help="seconds before a task needs its input")
    add("--compute", type=float, default=0.1, help="seconds after that")
    add("--size", type=int, default=10_000_000, help="bytes from task to task (default: 10 MB)")
    options = parser.parse_args()

    name = f"futures-pipeline-{os.getpid()}"
    # A worker for every task: one that waits for its input occupies it.
    context = multiprocessing.get_context("fork")
    with (
        ProcessPoolExecutor(options.tasks, mp_context=context) as pool,
        Store(name, SharedMemoryConnector(name), register=True) as store,
    ):
        print("One after the other ", end="", file=sys.stderr, flush=True)
        slow = run(pool, store, options, at_once=False)
        print(" all at once ", end="", file=sys.stderr, flush=True)
        fast = run(pool, store, options, at_once=True)
        print(file=sys.stderr)
    ratio = show("Submitted when the input is there", slow)
    ratio /= show("Submitted at once, with futures", fast)
    print(f"\n.... starting up and waiting   #### computing   {ratio:.1f} times as fast")


if __name__ == "__main__":
    main()
