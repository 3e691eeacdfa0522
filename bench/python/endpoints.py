"""An endpoint and its clients: requests per second of many, and large objects of one.

Every side has a server of its own on this host and the same clients: processes that put and get
by the side's connector. Needs `redis-server` and, for the other library, `make bench`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import multiprocessing
import os
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
import servers
from harness import Report, Side, Worker, ratio_text, size_text, time_text

CLIENTS = (1, 4, 16)
SIZES = (1_000, 100_000, 1_000_000, 10_000_000, 100_000_000)


def connect(package: str, module: str, name: str, arguments: tuple[Any, ...]) -> Any:
    """A connector of a library."""
    return getattr(importlib.import_module(f"{package}.connectors.{module}"), name)(*arguments)


def client(
    connector: tuple[Any, ...], environment: Mapping[str, str], commands: Any, barrier: Any
) -> None:
    """A process that does what it is told, all of them at the same moment."""
    os.environ.update(environment)
    channel = connect(*connector)
    while (command := commands.recv()) is not None:
        commands.send(repeat(channel, barrier, *command))
    channel.close()


def repeat(
    channel: Any, barrier: Any, operation: str, size: int, count: int
) -> tuple[float, float, float]:
    """When the operations began and ended, and the median time of one."""
    data = os.urandom(size)
    key = channel.put(data)
    channel.evict(channel.put(data))  # so that no connection is made while it counts
    stored = []

    def get() -> None:
        channel.get(key)

    def put() -> None:
        stored.append(channel.put(data))

    call = get if operation == "get" else put
    times = []
    barrier.wait()
    start = time.perf_counter()
    for _ in range(count):
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    end = time.perf_counter()
    if bytes(channel.get(key)) != data:
        raise AssertionError("what was got differs from what was put")
    for used in [*stored, key]:
        channel.evict(used)
    return start, end, statistics.median(times)


class Clients:
    """A server, and clients of it."""

    def __init__(self, kind: str) -> None:
        self.stack = contextlib.ExitStack()
        self.environment: dict[str, str] = {}
        self.home = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.connector = getattr(self, f"start_{kind}")()
        os.environ.update(self.environment)
        self.one = connect(*self.connector)

    def start_unix(self) -> tuple[Any, ...]:
        identity = self.stack.enter_context(servers.endpoint(self.home, "bench"))
        self.environment["PROXYSTORE_HOME"] = str(self.home)
        return ("proxystore_rs", "endpoint", "EndpointConnector", ([identity],))

    def start_tcp(self) -> tuple[Any, ...]:
        options = ("--host", "127.0.0.1")
        identity = self.stack.enter_context(servers.endpoint(self.home, "bench", *options))
        import tomllib

        folder = self.home / "bench"
        card = tomllib.loads((folder / "address.toml").read_text())
        self.environment |= {
            "PROXYSTORE_HOME": str(self.home / "nothing"),
            "PROXYSTORE_ENDPOINT_ADDRESS": card["tcp"],
            "PROXYSTORE_ENDPOINT_TOKEN": (folder / "token").read_text().strip(),
        }
        return ("proxystore_rs", "endpoint", "EndpointConnector", ([identity],))

    def start_redis(self) -> tuple[Any, ...]:
        port = self.stack.enter_context(servers.redis())
        return ("proxystore_rs", "redis", "RedisConnector", ("127.0.0.1", port))

    def start_shm(self) -> tuple[Any, ...]:
        return ("proxystore_rs", "shm", "SharedMemoryConnector", (f"bench-{os.getpid()}",))

    def start_upstream(self) -> tuple[Any, ...]:
        identity = self.stack.enter_context(servers.upstream_endpoint(self.home, "bench"))
        self.environment["PROXYSTORE_HOME"] = str(self.home)
        return ("proxystore", "endpoint", "EndpointConnector", ([identity],))

    def load(self, operation: str, clients: int, size: int, count: int) -> dict[str, float]:
        """Requests per second of all clients, and the median time of one request."""
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(clients)
        pipes, processes = [], []
        for _ in range(clients):
            ours, theirs = context.Pipe()
            arguments = (self.connector, self.environment, theirs, barrier)
            process = context.Process(target=client, args=arguments, daemon=True)
            process.start()
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            pipe.send((operation, size, count))
        answers = [pipe.recv() for pipe in pipes]
        for pipe in pipes:
            pipe.send(None)
        for process in processes:
            process.join()
        starts, ends, times = zip(*answers, strict=True)
        return {
            "per second": clients * count / (max(ends) - min(starts)),
            "median": statistics.median(times),
        }

    def transfer(self, size: int) -> dict[str, float]:
        """Seconds to put an object, and to get it."""
        data = os.urandom(size)
        start = time.perf_counter()
        key = self.one.put(data)
        stored = time.perf_counter()
        found = self.one.get(key)
        end = time.perf_counter()
        if bytes(found) != data:
            raise AssertionError("what was got differs from what was put")
        del found
        self.one.evict(key)
        return {"put": stored - start, "get": end - stored}

    def close(self) -> None:
        self.one.close()
        self.stack.close()


class RawTcp:
    """The same bytes over a socket of this host, to a thread-free process that keeps them."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.process = context.Process(target=keep, args=(theirs,), daemon=True)
        self.process.start()
        self.socket = socket.create_connection(("127.0.0.1", ours.recv()))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def transfer(self, size: int) -> dict[str, float]:
        """Seconds to send bytes, and to get them back."""
        data = os.urandom(size)
        start = time.perf_counter()
        self.socket.sendall(struct.pack("<Q", size))
        self.socket.sendall(data)
        receive(self.socket, bytearray(1))
        stored = time.perf_counter()
        self.socket.sendall(struct.pack("<Q", 0))
        found = bytearray(size)
        receive(self.socket, found)
        end = time.perf_counter()
        if found != data:
            raise AssertionError("what came back differs from what was sent")
        return {"put": stored - start, "get": end - stored}

    def close(self) -> None:
        self.socket.close()
        self.process.join()


def receive(stream: socket.socket, into: bytearray) -> bool:
    """Fill the buffer; false when the other side has gone."""
    view = memoryview(into)
    while view:
        count = stream.recv_into(view)
        if not count:
            return False
        view = view[count:]
    return True


def keep(pipe: Any) -> None:
    """Keep what is sent, and send it back on request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        stream, _ = listener.accept()
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    kept, head = bytearray(), bytearray(8)
    while receive(stream, head):
        (size,) = struct.unpack("<Q", head)
        if size:
            kept = bytearray(size)
            receive(stream, kept)
            stream.sendall(b"k")
        else:
            stream.sendall(kept)


OURS, TCP, UPSTREAM = "ours", "ours, TCP", "upstream"
REDIS, SHM, RAW = "Redis, our client", "shared memory alone", "raw TCP"
SIDES = {
    OURS: Side(Clients, ("unix",), "ours", ("proxystore-rs",)),
    TCP: Side(Clients, ("tcp",), "ours", ("proxystore-rs",)),
    UPSTREAM: Side(Clients, ("upstream",), "upstream", ("proxystore",)),
    REDIS: Side(Clients, ("redis",), "ours", ("proxystore-rs",)),
    SHM: Side(Clients, ("shm",), "ours", ("proxystore-rs",)),
    RAW: Side(RawTcp, (), "ours", ()),
}


def compare(workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    report = Report("endpoints", "An endpoint and its clients", options)
    report.versions(workers)
    loaded = {name: worker for name, worker in workers.items() if name not in (SHM, RAW)}
    curves: dict[str, dict[int, float]] = {name: {} for name in loaded}
    for operation in ("get", "put"):
        for clients in options.clients:
            found = many(report, loaded, options, operation, clients)
            if operation == "get":
                for name, values in found.items():
                    curves[name][clients] = values["per second"]
    report.plot("get of 1 kB", curves, "requests/s", xlabel="clients", linear=True)
    large(report, workers, options)
    report.write()


def many(
    report: Report,
    workers: Mapping[str, Worker],
    options: argparse.Namespace,
    operation: str,
    clients: int,
) -> dict[str, dict[str, float]]:
    def load(worker: Worker) -> Any:
        count = options.count if worker.name != UPSTREAM else max(options.count // 10, 20)
        return worker.call("load", operation=operation, clients=clients, size=1000, count=count)

    answers = harness.interleave(workers, options.rounds, load)
    found = {name: harness.medians(samples) for name, samples in answers.items()}
    upstream = found.get(UPSTREAM, {}).get("per second")
    redis = found.get(REDIS, {}).get("per second")
    rows = [
        (
            name,
            f"{values['per second']:.0f}",
            time_text(values["median"]),
            ratio_text(values["per second"], upstream),
            ratio_text(values["per second"], redis),
        )
        for name, values in found.items()
    ]
    header = ("side", "requests/s", "median", "side / upstream", "side / Redis")
    report.table(f"{operation} of 1 kB, clients: {clients}", header, rows, found)
    return found


def large(report: Report, workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    curves: dict[str, dict[int, float]] = {name: {} for name in workers}
    for size in options.sizes:
        answers = harness.interleave(
            workers, options.rounds, lambda worker, size=size: worker.call("transfer", size=size)
        )
        found = {name: harness.medians(samples) for name, samples in answers.items()}
        upstream = found.get(UPSTREAM, {})
        rows = []
        for name, values in found.items():
            curves[name][size] = size / values["get"] / 1e6
            rows.append(
                (
                    name,
                    time_text(values["put"]),
                    time_text(values["get"]),
                    ratio_text(upstream.get("put"), values["put"]),
                    ratio_text(upstream.get("get"), values["get"]),
                )
            )
        header = ("side", "put", "get", "upstream / put", "upstream / get")
        report.table(f"One client, {size_text(size)}", header, rows, found)
    report.plot("get, one client", curves, "MB/s")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--count", type=int, default=2000, help="requests per client and round (default: 2000)"
    )
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    harness.add_quick(parser, rounds=1, count=200, clients=(1, 4), sizes=(1_000, 1_000_000))


if __name__ == "__main__":
    harness.main(compare, SIDES, __doc__, add_options, rounds=5)
