"""What a put or a get costs when the processor's caches hold something else.

In `large_arrays.py` every operation follows tens of megabytes of other traffic, so code and
tables come from memory. Here the same operation runs twice: again and again, and each time after
a sum over 100 MB. What differs between the two columns is not the size of the object.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from harness import Report, size_text, time_text, versions
from proxystore_rs.connectors.shm import SharedMemoryConnector
from proxystore_rs.store import Store

SIZES = (1_000, 1_000_000, 10_000_000, 100_000_000)


class Bench:
    """Two stores on one session, and something to fill the caches with."""

    def __init__(self) -> None:
        connector = SharedMemoryConnector(f"cold-caches-{os.getpid()}")
        self.private = Store("cold-private", connector, cache_size=0)
        self.shared = Store("cold-shared", connector, cache_size=0, read_only=True)
        self.other = np.zeros(100_000_000, np.uint8)

    def medians(self, size: int, rounds: int, cold: bool) -> dict[str, float]:
        """Median seconds of each operation."""
        source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
        samples: dict[str, list[float]] = {}

        def timed(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
            if cold:
                self.other.sum()
            start = time.perf_counter()
            result = call(*arguments)
            samples.setdefault(name, []).append(time.perf_counter() - start)
            return result

        for turn in range(rounds + 3):
            timed("copy", np.copyto, target, source)
            key = timed("put", self.private.put, source)
            timed("get", self.private.get, key)
            timed("get read-only", self.shared.get, key)
            self.private.evict(key)
            if turn == 2:  # segments recycle from here on
                samples.clear()
        return {name: statistics.median(values) for name, values in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="bench/results", help="folder (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=25, help="rounds (default: %(default)s)")
    options = parser.parse_args()

    bench = Bench()
    rows, data = [], {}
    for size in SIZES:
        found = {
            f"{name}, {state}": seconds
            for state in ("warm", "cold")
            for name, seconds in bench.medians(size, options.rounds, state == "cold").items()
        }
        data[size] = found
        rows.append([size_text(size), *(time_text(value) for value in found.values())])
    report = Report("cold_caches", "Put and get with warm and with cold caches", options)
    report.data["versions"] = {"ours": versions(("proxystore-rs", "numpy"))}
    report.table("One process", ["size", *data[SIZES[0]]], rows, data)
    report.write()
    bench.private.close(clear=True)


if __name__ == "__main__":
    main()
