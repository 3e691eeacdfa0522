"""What protection costs: checksums, seals, signatures and compression, beside none of them.

Every side is a store in a process of its own that puts an array, gets it and sums it, on each
channel. `image` compresses well (smooth, with some noise), `random` not at all. Ratios are those of
one round, so that both sides met the same machine: their median, and their quartiles in brackets.

Also: what facts cost, beside a proxy made of a key, which has none; and how long pickled proxies are.
Needs `redis-server`, which it starts.
"""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import harness
from harness import Report, Side, Worker, size_text, time_text
from redis_objects import server

CHANNELS = ("memory", "file", "shm", "redis")
PLOTTED = ("file", "redis")
CONTENTS = ("image", "random")
STEPS = ("put", "get + sum")
REFERENCE_STEPS = ("make", "dumps", "loads")
TARGETS = {"no facts": 250, "facts": 450, "facts, sealed": 450, "facts, signed": 450}


class Protected:
    """A store with this protection, on one channel after the other."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.store: Any = None
        self.arrays: dict[tuple[str, int], Any] = {}

    def open(self, channel: str, port: int, **options: Any) -> None:
        """Open the store on a channel; nothing is cached."""
        from proxystore_rs.connectors.file import FileConnector
        from proxystore_rs.connectors.memory import MemoryConnector
        from proxystore_rs.connectors.redis import RedisConnector
        from proxystore_rs.connectors.shm import SharedMemoryConnector
        from proxystore_rs.store import Store

        self.name = f"bench-protection-{os.getpid()}"
        connector: Any = {
            "memory": lambda: MemoryConnector(self.name),
            "file": lambda: FileConnector(f"/dev/shm/{self.name}"),
            "shm": lambda: SharedMemoryConnector(self.name),
            "redis": lambda: RedisConnector("127.0.0.1", port),
        }[channel]()
        chosen = {"checksums": False, **self.options, **options}
        self.store = Store(self.name, connector, cache_size=0, register=True, **chosen)

    def array(self, content: str, size: int) -> Any:
        """An array of that many bytes, the same one every time."""
        if (content, size) not in self.arrays:
            self.arrays.clear()
            count = size // 4
            random = np.random.default_rng(size)
            if content == "random":
                array = np.frombuffer(random.bytes(size), np.int32)
            else:  # counts of a detector, 10 bits: a smooth curve and some noise
                rows = 300 * (1 + np.sin(np.arange(count) / 500)) + random.poisson(4, count)
                array = rows.astype(np.int16).astype(np.float32)
            self.arrays[content, size] = array
        return self.arrays[content, size]

    def measure(self, content: str, size: int, count: int) -> dict[str, float]:
        """Seconds per object to put, and to get and sum; bytes as stored."""
        array = self.array(content, size)
        expected = float(array.sum())
        start = time.perf_counter()
        keys = [self.store.put(array) for _ in range(count)]
        stored = time.perf_counter()
        sums = [float(self.store.get(key).sum()) for key in keys]
        end = time.perf_counter()
        if sums != [expected] * count:
            raise AssertionError("the sum of what was got differs")
        key = getattr(keys[0], "key", keys[0])  # of a sealed one, the connector's
        for one in keys:
            self.store.evict(one)
        return {
            "put": (stored - start) / count,
            "get + sum": (end - stored) / count,
            "stored": key[2],
        }

    def references(self, count: int) -> dict[str, dict[str, float]]:
        """Seconds per proxy, with facts and without, to make it, pickle it and unpickle it."""
        from proxystore_rs.proxy import get_factory

        array = self.array("image", 1_000)
        makers = {
            "no facts": lambda: self.store.proxy_from_key(self.store.put(array)),
            "facts": lambda: self.store.proxy(array, populate_target=False),
        }
        found = {}
        for name, make in makers.items():
            times = [time.perf_counter()]
            proxies = [make() for _ in range(count)]
            times.append(time.perf_counter())
            pickles = [pickle.dumps(proxy) for proxy in proxies]
            times.append(time.perf_counter())
            copies = [pickle.loads(data) for data in pickles]
            times.append(time.perf_counter())
            for proxy in copies:
                self.store.evict(get_factory(proxy).key)
            steps = zip(REFERENCE_STEPS, times, times[1:], strict=False)
            found[name] = {step: (end - start) / count for step, start, end in steps}
        return found

    def pickled_sizes(self, port: int) -> dict[str, int]:
        """Bytes of pickled proxies of an array."""
        array, sizes = self.array("image", 1_000), {}
        with tempfile.NamedTemporaryFile("w") as identity:
            identity.write("07" * 32)
            identity.flush()
            os.environ["PROXYSTORE_SIGNING_KEY"] = identity.name
            for name, seal in (
                ("facts", False),
                ("facts, sealed", True),
                ("facts, signed", "signed"),
            ):
                self.open("file", port, seal=seal)
                proxy = self.store.proxy(array, populate_target=False)
                sizes[name] = len(pickle.dumps(proxy))
                if not seal:
                    bare = self.store.proxy_from_key(self.store.put(array))
                    sizes["no facts"] = len(pickle.dumps(bare))
                self.shut()
        return sizes

    def shut(self) -> None:
        """Close the store, with all it holds."""
        self.store.close(clear=True)
        self.store = None
        shutil.rmtree(f"/dev/shm/{self.name}", ignore_errors=True)


PLAIN = "plain"
OPTIONS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "checksums": {"checksums": True},
    "sealed": {"seal": True},
    "signed": {"seal": "signed"},
    "zstd": {"compression": "zstd"},
    "lz4": {"compression": "lz4"},
    "sealed, zstd": {"seal": True, "compression": "zstd"},
}
SIDES = {name: Side(Protected, (options,), "ours") for name, options in OPTIONS.items()}
Samples = Mapping[str, Sequence[Mapping[str, float]]]


def compare(workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    report = Report("protection", "What protection costs", options)
    report.versions(workers)
    with server() as port:
        for channel in options.channels:
            objects(report, workers, options, channel, port)
        references(report, next(iter(workers.values())), options, port)
    report.write()


def objects(
    report: Report,
    workers: Mapping[str, Worker],
    options: argparse.Namespace,
    channel: str,
    port: int,
) -> None:
    for worker in workers.values():
        worker.call("open", channel=channel, port=port)
    curves: dict[str, dict[str, dict[int, float]]] = {step: {} for step in STEPS}
    for size in options.sizes:
        rounds = options.rounds if size < 100_000_000 else max(options.rounds // 2, 1)
        count = max(1, min(options.count, 4_000_000 // size))
        rows, data = [], {}
        for content in CONTENTS:
            # Contents make no difference to the other sides.
            met = {
                name: worker
                for name, worker in workers.items()
                if content == "image" or name == PLAIN or "compression" in OPTIONS[name]
            }

            def measure(
                worker: Worker, content: str = content, asked: int = size, n: int = count
            ) -> Any:
                return worker.call("measure", content=content, size=asked, count=n)

            answers = harness.interleave(met, rounds, measure)
            found = {name: harness.medians(samples) for name, samples in answers.items()}
            for name, values in found.items():
                spreads = [ratios(answers, name, PLAIN, step) for step in STEPS]
                rows.append(
                    (
                        f"{content}, {name}",
                        *(time_text(values[step]) for step in STEPS),
                        *(spread_text(ratio) for ratio in spreads),
                        size_text(values["stored"]),
                    )
                )
                steps = zip(STEPS, spreads, strict=True)
                data[f"{content}, {name}"] = values | {f"{s} / plain": r for s, r in steps}
                if content == "image":
                    for step in STEPS:
                        curves[step].setdefault(name, {})[size] = values[step]
        header = ("side", *STEPS, *(f"{step} / plain" for step in STEPS), "stored")
        report.table(
            f"{channel}, {size_text(size)}, {rounds} rounds of {count}", header, rows, data
        )
    for step, by_side in curves.items() if channel in PLOTTED else ():
        report.plot(f"{channel}, image: {step}", by_side, "seconds")
    for worker in workers.values():
        worker.call("shut")


def ratios(answers: Samples, name: str, base: str, step: str) -> list[float]:
    """What a step takes beside the base side, in the same rounds."""
    pairs = zip(answers[name], answers.get(base, ()), strict=False)
    return [side[step] / other[step] for side, other in pairs]


def spread_text(ratios: Sequence[float]) -> str:
    """The median, and the quartiles."""
    if not ratios:
        return "-"
    low, middle, high = statistics.quantiles([*ratios, *ratios], n=4, method="inclusive")
    return f"{middle:.2f}x ({low:.2f} to {high:.2f})"


def references(report: Report, worker: Worker, options: argparse.Namespace, port: int) -> None:
    worker.call("open", channel="memory", port=port)
    rounds = max(options.rounds * 5, 2)
    samples = [worker.call("references", count=options.count) for _ in range(rounds + 1)][1:]
    worker.call("shut")
    rows, data = [], {}
    for name in samples[0]:
        values = harness.medians([sample[name] for sample in samples])
        times = (
            f"{time_text(values[step])}, "
            + spread_text([s[name][step] / s["no facts"][step] for s in samples])
            for step in REFERENCE_STEPS
        )
        rows.append((name, *times))
        data[name] = values
    title = f"Proxies of an array of 1 kB in memory, {rounds} rounds of {options.count}"
    report.table(title, ("side", *(f"{step}, / no facts" for step in REFERENCE_STEPS)), rows, data)

    sizes = worker.call("pickled_sizes", port=port)
    rows = [(name, f"{sizes[name]} B", f"{most} B") for name, most in TARGETS.items()]
    report.table("Pickled proxies of that array in files", ("side", "size", "target"), rows, sizes)


def add_options(parser: argparse.ArgumentParser) -> None:
    sizes = (100, 10_000, 1_000_000, 10_000_000, 100_000_000)
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=sizes, metavar="BYTES", help="100 B to 100 MB")
    add("--channels", nargs="+", default=CHANNELS, choices=CHANNELS, help="which (default: all)")
    add("--count", type=int, default=100, help="small objects per round (default: 100)")
    harness.add_quick(parser, rounds=1, sizes=(100, 1_000_000), count=10)


if __name__ == "__main__":
    harness.main(compare, SIDES, __doc__, add_options, rounds=6)
