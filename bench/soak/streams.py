"""Streams for long at full rate: every event comes, and nothing grows.

For each of some brokers, a process sends arrays of 1 kB to 1 MB as fast as it is let, and two
processes of one group get, check and acknowledge them. Objects are in shared memory, at most
64 MB of them at a time. What each process holds, and the server, is sampled all the while.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench" / "python"))

import servers  # noqa: E402

MB = 1_000_000
BOUND = 64 * MB
SIZES = (1_000, 10_000, 100_000, 1_000_000)
CONSUMERS = 2
PAUSE = 1.0
"""Seconds between two samples."""
GROWTH = 24 * MB
"""By how much the memory of a process may be larger in the last third than in the second."""


def open_ends(url: str) -> tuple[Any, Any]:
    from proxystore_rs.connectors.shm import SharedMemoryConnector
    from proxystore_rs.store import Store
    from proxystore_rs.stream.brokers import open_broker

    store = Store("soak", SharedMemoryConnector(f"soak-{os.getppid()}"), register=True)
    return open_broker(url), store


def produce(url: str, until: float, counts: Any) -> None:
    import numpy as np

    from proxystore_rs.stream import StreamProducer

    broker, store = open_ends(url)
    producer: StreamProducer[Any] = StreamProducer(
        broker.publisher(), default_store=store, max_bytes=BOUND, timeout=120
    )
    number = 0
    while time.time() < until:
        array = np.full(SIZES[number % len(SIZES)] // 8, number, dtype=np.int64)
        producer.send("soak", array)
        number += 1
        counts[0] = number
    producer.close_topics("soak", ends=CONSUMERS)
    producer.close()
    store.close(clear=False)


def consume(url: str, index: int, counts: Any, sums: Any) -> None:
    from proxystore_rs.stream import StreamConsumer

    broker, store = open_ends(url)
    consumer: StreamConsumer[Any] = StreamConsumer(
        broker.subscriber("soak", prefetch=8), timeout=180
    )
    for array in consumer.iter_objects():
        number = int(array[0])
        if int(array[-1]) != number or array.nbytes != SIZES[number % len(SIZES)]:
            raise AssertionError("what arrived differs from what was sent")
        counts[index] += 1
        sums[index] += number
    consumer.close()
    store.close(clear=False)


@dataclass
class Watched:
    """A process, and what it held at moments in order."""

    name: str
    pid: int
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def sample(self) -> None:
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            line = next(line for line in status if line.startswith("RssAnon"))
            files = len(os.listdir(f"/proc/{self.pid}/fd"))
            self.memory.append(int(line.split()[1]) * 1024)
            self.files.append(files)

    def thirds(self, what: list[int]) -> list[float]:
        third = max(1, len(what) // 3)
        parts = what[:third], what[third : 2 * third] or what, what[2 * third :] or what
        return [statistics.median(part) for part in parts]

    def grew(self) -> str | None:
        _, middle, last = self.thirds(self.memory)
        if last > middle + GROWTH:
            return (
                f"the memory of the {self.name} grew from {middle / MB:.0f} to {last / MB:.0f} MB"
            )
        _, middle, last = self.thirds(self.files)
        return f"the {self.name} holds more and more files" if last > middle + 4 else None


def soak(name: str, url: str, server: int | None, seconds: float) -> tuple[list[str], list[str]]:
    """Lines of the report, and what is wrong."""
    context = multiprocessing.get_context("spawn")
    counts = context.Array("q", 1 + CONSUMERS, lock=False)
    sums = context.Array("q", 1 + CONSUMERS, lock=False)
    until = time.time() + seconds
    processes = [context.Process(target=produce, args=(url, until, counts))]
    for index in range(1, 1 + CONSUMERS):
        processes.append(context.Process(target=consume, args=(url, index, counts, sums)))
    for process in processes:
        process.start()
    names = ["producer", *(f"consumer {index}" for index in range(1, 1 + CONSUMERS))]
    watched = [
        Watched(name, process.pid or 0) for name, process in zip(names, processes, strict=True)
    ]
    if server is not None:
        watched.append(Watched("server", server))
    started = time.time()
    while any(process.is_alive() for process in processes):
        time.sleep(PAUSE)
        for one in watched if time.time() < until else ():
            one.sample()
        if sys.stderr.isatty():
            print(f"\r{name}: {sum(counts[1:])} of {counts[0]} events", end="", file=sys.stderr)
        if time.time() > until + 300 or any(process.exitcode for process in processes):
            break
    bad = []
    for process, role in zip(processes, names, strict=True):
        if process.exitcode != 0:
            bad.append(f"the {role} ended with {process.exitcode}")
            process.kill()
        process.join()
    sent = counts[0]
    if sum(counts[1:]) != sent or sum(sums) != sent * (sent - 1) // 2:
        bad.append(f"{sum(counts[1:])} of {sent} events came")
    bad += [found for one in watched if (found := one.grew())]
    from proxystore_rs.connectors.shm import SharedMemoryConnector

    SharedMemoryConnector(f"soak-{os.getpid()}").close(clear=True)
    size = sum(SIZES) / len(SIZES) * sent
    lines = [
        f"## {name}",
        "",
        f"{sent} events in {time.time() - started:.0f} s, {size / 1e9:.1f} GB of objects.",
        "",
        "| process | | first third | second | last |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in watched:
        memory = " | ".join(f"{value / MB:.0f}" for value in one.thirds(one.memory))
        files = " | ".join(f"{value:.0f}" for value in one.thirds(one.files))
        lines.append(f"| {one.name} | memory, MB | {memory} |")
        lines.append(f"| {one.name} | files | {files} |")
    return [*lines, ""], [f"{name}: {text}" for text in bad]


def main(arguments: list[str] | None = None) -> int:
    """Soak; 0 when all is well."""
    parser: Any = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of all brokers together")
    output = ROOT / "bench" / "results" / "soak_streams.md"
    parser.add_argument("--output", type=Path, default=output)
    given = parser.parse_args(arguments)
    lines = ["# Streams at full rate", "", f"`make soak`, {given.minutes:g} minutes.", ""]
    bad: list[str] = []
    seconds = given.minutes * 60 / 2
    with tempfile.TemporaryDirectory() as folder:
        port = servers.free_port()
        command = ["redis-server", "--port", str(port), "--dir", folder, "--save", ""]
        with servers.running([*command, "--bind", "127.0.0.1"], port) as process:
            url = f"stream+redis://127.0.0.1:{port}"
            found = [soak("Redis streams", url, process.pid, seconds)]
        found.append(soak("Shared memory", f"shm://soak-{os.getpid()}", None, seconds))
    for more, wrong in found:
        lines += more
        bad += wrong
    lines.append("Verdict: " + ("; ".join(bad) if bad else "every event came, nothing grew."))
    given.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
