"""One small object in one process: make a proxy, pickle it, unpickle it, resolve it.

Also: the size of a pickled proxy, the time to import the store, and what happens when eight
threads resolve at once.
"""

from __future__ import annotations

import argparse
import importlib
import pickle
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import harness
from harness import Report, Side, Worker, ratio_text, time_text

STEPS = ("proxy", "dumps", "loads", "resolve")


class SleepingConnector:
    """A connector in Python whose `get` takes 100 ms, like a distant server."""

    objects: dict[str, bytes] = {}  # noqa: RUF012 (shared on purpose)

    def close(self) -> None:
        pass

    def config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SleepingConnector:
        return cls(**config)

    def put(self, data: Any) -> tuple[str]:
        key = (str(len(self.objects)),)
        self.objects[key[0]] = bytes(data)
        return key

    def put_batch(self, datas: Any) -> list[tuple[str]]:
        return [self.put(data) for data in datas]

    def get(self, key: tuple[str]) -> bytes | None:
        time.sleep(0.1)
        return self.objects.get(key[0])

    def get_batch(self, keys: Any) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def exists(self, key: tuple[str]) -> bool:
        return key[0] in self.objects

    def evict(self, key: tuple[str]) -> None:
        self.objects.pop(key[0], None)


class Library:
    """A library with upstream's interface, on one of its connectors."""

    def __init__(self, package: str, connector: str, kind: str, *arguments: str) -> None:
        self.package = package
        module = importlib.import_module(f"{package}.connectors.{connector}")
        self.proxies = importlib.import_module(f"{package}.proxy")
        self.stores = importlib.import_module(f"{package}.store")
        made = getattr(module, kind)(*arguments)
        self.store = self.stores.Store("bench-small", made, register=True)

    def cycle(self, count: int, size: int) -> dict[str, float]:
        """Seconds per object of each step."""
        clock = time.perf_counter
        target = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
        t0 = clock()
        proxies = [self.store.proxy(target) for _ in range(count)]
        t1 = clock()
        pickles = [pickle.dumps(proxy) for proxy in proxies]
        t2 = clock()
        copies = [pickle.loads(data) for data in pickles]
        t3 = clock()
        for copy in copies:
            self.proxies.resolve(copy)
        t4 = clock()
        if not all(copy == target for copy in copies):
            raise AssertionError("a resolved proxy differs from its target")
        for proxy in proxies:
            self.store.evict(self.proxies.get_factory(proxy).key)
        ends = dict(zip(STEPS, (t1 - t0, t2 - t1, t3 - t2, t4 - t3), strict=True))
        ends["all four"] = t4 - t0
        return {step: seconds / count for step, seconds in ends.items()}

    def pickled_size(self, size: int) -> int:
        """Bytes of a pickled proxy of an object of that size."""
        proxy = self.store.proxy(bytes(size))
        length = len(pickle.dumps(proxy))
        self.store.evict(self.proxies.get_factory(proxy).key)
        return length

    def import_seconds(self) -> float:
        """Seconds that importing the store takes in a new interpreter."""
        code = (
            "import time; start = time.perf_counter(); "
            f"from {self.package}.store import Store; print(time.perf_counter() - start)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        return float(done.stdout)

    def threads_keys(self, threads: int) -> float:
        """Seconds until that many threads got one key each from a connector that takes 100 ms."""
        store = self.stores.Store("bench-sleeping", SleepingConnector(), cache_size=0)
        keys = [store.put(b"value") for _ in range(threads)]
        start = time.perf_counter()
        run_together([lambda key=key: store.get(key) for key in keys])
        return time.perf_counter() - start

    def threads_proxy(self, threads: int) -> int:
        """How often that many threads, resolving one proxy together, call its factory."""
        calls = []

        def factory() -> str:
            calls.append(1)
            time.sleep(0.05)
            return "target"

        proxy = self.proxies.Proxy(factory)
        run_together([lambda: self.proxies.resolve(proxy)] * threads)
        return len(calls)

    def close(self) -> None:
        self.store.close()


def run_together(functions: list[Any]) -> None:
    """Call every function in a thread of its own."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


OURS, UPSTREAM = ("numpy", "proxystore-rs"), ("numpy", "proxystore")
LOCAL = ("local", "LocalConnector")
MEMORY = ("memory", "MemoryConnector", "bench-small")
SHM = ("shm", "SharedMemoryConnector", "bench-small")
SIDES = {
    "ours, local": Side(Library, ("proxystore_rs", *LOCAL), "ours", OURS),
    "ours, memory": Side(Library, ("proxystore_rs", *MEMORY), "ours", OURS),
    "ours, shm": Side(Library, ("proxystore_rs", *SHM), "ours", OURS),
    "upstream, local": Side(Library, ("proxystore", *LOCAL), "upstream", UPSTREAM),
}


def compare(workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    report = Report("small_objects", "One small object in one process", options)
    report.versions(workers)
    upstream = "upstream, local"

    def cycle(worker: Worker) -> Any:
        return worker.call("cycle", count=options.count, size=options.size)

    answers = harness.interleave(workers, options.rounds, cycle)
    found = {name: harness.medians(samples) for name, samples in answers.items()}
    rows = [
        (
            name,
            *(time_text(values[step]) for step in (*STEPS, "all four")),
            ratio_text(found.get(upstream, {}).get("all four"), values["all four"]),
        )
        for name, values in found.items()
    ]
    report.table(
        f"Time per object of {options.size} B",
        ("side", *STEPS, "all four", "upstream / side"),
        rows,
        found,
    )

    sizes = {name: w.call("pickled_size", size=options.size) for name, w in workers.items()}
    rows = [(n, f"{v} B", ratio_text(sizes.get(upstream), v)) for n, v in sizes.items()]
    report.table("Pickled proxy", ("side", "size", "upstream / side"), rows, sizes)

    def seconds(method: str, **arguments: Any) -> dict[str, float]:
        rounds = min(options.rounds, 7)
        answers = harness.interleave(workers, rounds, lambda w: w.call(method, **arguments))
        return {name: statistics.median(samples) for name, samples in answers.items()}

    imports = seconds("import_seconds")
    rows = [(n, time_text(v), ratio_text(imports.get(upstream), v)) for n, v in imports.items()]
    report.table("Importing the store", ("side", "time", "upstream / side"), rows, imports)

    keys = seconds("threads_keys", threads=8)
    rows = [(n, time_text(v), ratio_text(keys.get(upstream), v)) for n, v in keys.items()]
    title = "Eight threads, eight keys, a connector that takes 100 ms"
    report.table(title, ("side", "time", "upstream / side"), rows, keys)

    calls = seconds("threads_proxy", threads=8)
    rows = [(name, f"{value:g}") for name, value in calls.items()]
    report.table("Eight threads, one proxy", ("side", "calls of the factory"), rows, calls)
    report.write()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=500, help="objects per round (default: 500)")
    parser.add_argument("--size", type=int, default=100, help="bytes per object (default: 100)")


if __name__ == "__main__":
    harness.main(compare, SIDES, __doc__, add_options)
