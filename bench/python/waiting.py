"""How long after `future.set_result` a consumer that waits for it has the value.

The consumer begins to wait; after a while, drawn anew each round and the same for all sides, the
producer sets the result, in another process (in another thread where the channel is one of
threads). What counts is the time from the call of `set_result`, storing included, until the
consumer has the value, and how much of a processor the waiting process used. Upstream asks again
every second unless it is told otherwise; so it runs twice, as it is and asking every millisecond.

The aim for processes of one site that share an endpoint is 1 ms.

Starts an endpoint and a Redis server of its own; without `redis-server` the sides on Redis are left
out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import multiprocessing
import os
import queue
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import harness
import servers
from harness import Report, Side, Worker, ratio_text, time_text


def produce(receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Set futures when told to, until told nothing; answer when each was."""
    while (command := receive()) is not None:
        future, delay, value = command
        time.sleep(delay)
        start = time.monotonic()
        future.set_result(value)
        send(start)


class Waiting:
    """A consumer here, a producer elsewhere."""

    def __init__(self, package: str, module: str, kind: str, interval: float | None) -> None:
        self.package, self.module, self.kind = package, module, kind
        self.options = {} if interval is None else {"polling_interval": interval}

    def connect(self, redis: int, endpoint: str, home: str) -> None:
        """Open the store, now that there are servers, and start the producer."""
        channel = f"bench-waiting-{os.getpid()}"
        arguments: dict[str, tuple[Any, ...]] = {
            "local": (),
            "memory": (channel,),
            "shm": (channel,),
            "file": (f"/dev/shm/{channel}",),
            "redis": ("127.0.0.1", redis),
            "endpoint": ([endpoint], home),
        }
        connectors = importlib.import_module(f"{self.package}.connectors.{self.module}")
        stores = importlib.import_module(f"{self.package}.store")
        self.extract = importlib.import_module(f"{self.package}.proxy").extract
        connector = getattr(connectors, self.kind)(*arguments[self.module])
        self.producer: Any
        if self.module in ("local", "memory"):
            commands: queue.Queue[Any] = queue.Queue()
            answers: queue.Queue[Any] = queue.Queue()
            self.tell, self.answer = commands.put, answers.get
            self.producer = threading.Thread(target=produce, args=(commands.get, answers.put))
        else:
            ours, theirs = multiprocessing.Pipe()
            self.tell, self.answer = ours.send, ours.recv
            context = multiprocessing.get_context("spawn")
            self.producer = context.Process(target=produce, args=(theirs.recv, theirs.send))
        self.producer.start()
        self.store = stores.Store(channel, connector, register=True)

    def wait(self, delay: float, size: int) -> dict[str, float]:
        """Seconds until the value of one future was seen, and share of the processor meanwhile."""
        value = os.urandom(size)
        future = self.store.future(evict=True, **self.options)
        proxy = future.proxy()
        self.tell((future, delay, value))
        used = time.process_time()
        found = self.extract(proxy)
        seen = time.monotonic()
        used = time.process_time() - used
        latency = seen - self.answer()
        if found != value:
            raise AssertionError("the value differs from what was set")
        return {"latency": latency, "processor": used / (delay + latency)}

    def close(self) -> None:
        self.tell(None)
        self.producer.join()
        self.store.close()


OURS, THEIRS = ("ours", ("proxystore-rs",)), ("upstream", ("proxystore", "redis"))
CHANNELS = {
    "threads": (("memory", "MemoryConnector"), ("local", "LocalConnector")),
    "shm": (("shm", "SharedMemoryConnector"), None),
    "file": (("file", "FileConnector"), ("file", "FileConnector")),
    "Redis": (("redis", "RedisConnector"), ("redis", "RedisConnector")),
    "endpoint": (("endpoint", "EndpointConnector"), None),
}


def sides() -> dict[str, Side]:
    """Ours, upstream, and upstream in a hurry, on every channel they have."""
    found = {}
    for channel, (ours, theirs) in CHANNELS.items():
        found[f"ours, {channel}"] = Side(Waiting, ("proxystore_rs", *ours, None), *OURS)
        if theirs is not None:
            made = ("proxystore", *theirs)
            found[f"upstream, {channel}"] = Side(Waiting, (*made, None), *THEIRS)
            found[f"upstream, {channel}, 1 ms"] = Side(Waiting, (*made, 0.001), *THEIRS)
    return found


SIDES = sides()


def compare(workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    report = Report("waiting", "From setting a future to having its value", options)
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        endpoint = stack.enter_context(servers.endpoint(Path(home), "bench"))
        places: dict[str, Any] = {"redis": 0, "endpoint": endpoint, "home": home}
        if shutil.which("redis-server") is None:
            workers = {name: worker for name, worker in workers.items() if "Redis" not in name}
            report.text("Without Redis: there is no `redis-server` here.")
        else:
            places["redis"] = stack.enter_context(servers.redis())
        measure(report, workers, options, places)
    report.write()


def measure(
    report: Report,
    workers: Mapping[str, Worker],
    options: argparse.Namespace,
    places: Mapping[str, Any],
) -> None:
    report.versions(workers)
    for worker in workers.values():
        worker.call("connect", **places)
    delays = [random.uniform(0.1, options.longest) for _ in range(options.rounds + 1)]
    left = {name: iter(delays) for name in workers}

    def wait(worker: Worker) -> Any:
        return worker.call("wait", delay=next(left[worker.name]), size=options.size)

    answers = harness.interleave(workers, options.rounds, wait)
    for worker in workers.values():
        worker.close()  # while there is a server to take leave of
    rows, data = [], {}
    for name, samples in answers.items():
        latencies = [sample["latency"] for sample in samples]
        data[name] = harness.medians(samples) | {
            "least": min(latencies),
            "most": max(latencies),
            "below 1 ms": sum(latency < 1e-3 for latency in latencies) / len(latencies),
        }
    for name, values in data.items():
        channel = name.split(", ")[1].replace("shm", "file")  # upstream's nearest
        upstream = data.get(f"upstream, {channel}", {}).get("latency")
        rows.append(
            (
                name,
                *(time_text(values[key]) for key in ("latency", "least", "most")),
                f"{values['below 1 ms']:.0%}",
                f"{values['processor']:.2%}",
                ratio_text(upstream, values["latency"]),
            )
        )
    header = ("side", "median", "least", "most", "within 1 ms", "processor", "upstream / side")
    report.table(f"{options.size} B, set after 0.1 to {options.longest} s", header, rows, data)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, default=1000, help="bytes per value (default: 1000)")
    parser.add_argument(
        "--longest", type=float, default=1.1, help="seconds to set after, at most (default: 1.1)"
    )
    harness.add_quick(parser, rounds=2, longest=0.2)


if __name__ == "__main__":
    harness.main(compare, SIDES, __doc__, add_options, rounds=20)
