"""Streams: objects per second from one process to another, over each broker.

A producer process sends NumPy arrays as fast as it can, and a consumer process gets each as an
array and looks at its ends. Objects of a side go through its store, and events through its broker.
Ours has small objects inside its events, unless the side is "stored"; "bytes" sides send the
pickled arrays through the broker itself. Plain clients of Redis wait for the answer to every
command, but for the pipelined one; ours do not (see `UNEVEN`). Needs `redis-server`, `nats-server`
and, for the other library, `make bench`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import pickle
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import harness
import servers
from harness import Report, Side, Worker, ratio_text, size_text

SIZES = (10_000, 1_000_000, 10_000_000)
TOPIC = "numbers"
UNEVEN = (
    "Plain clients of Redis, and upstream by them, wait for the answer to every command, as programs "
    "usually do. Ours publishes up to 128 events before it waits for an answer, and fetches up to 32 "
    "events ahead: part of what it gains is that. The side that is pipelined does likewise with a plain "
    "client, for objects of 1 MB together at most. Bytes go through lists by the plain client, and "
    "through the other brokers by our own ends of them, so that the comparison there is of references "
    "with bytes alone. Objects of at most 16 KiB travel inside our events, so nothing of theirs goes "
    "through the store, but for the sides that are called stored."
)


class Library:
    """Producers and consumers of a library with upstream's names."""

    options: Mapping[str, Any] = {}

    def __init__(self, package: str, broker: str, store: str, address: str) -> None:
        self.package, self.broker, self.kind, self.address = package, broker, store, address

    def module(self, name: str) -> Any:
        return importlib.import_module(f"{self.package}.{name}")

    def store(self, address: str) -> Any:
        """The store of the objects; every process opens it once."""
        connector: Any
        if self.kind == "file":
            connector = self.module("connectors.file").FileConnector(address)
        elif self.kind == "shm":
            connector = self.module("connectors.shm").SharedMemoryConnector(address)
        else:
            connector = self.module("connectors.redis").RedisConnector(
                "127.0.0.1", int(self.address)
            )
        return self.module("store").Store(
            f"streams-{uuid.uuid4().hex}", connector, cache_size=0, register=True
        )

    def publisher(self) -> Any:
        if self.package == "proxystore_rs":
            return self.module("stream.brokers").open_broker(self.url()).publisher()
        port = int(self.address)
        if self.broker == "zmq":
            return self.module("stream.shims.zmq").ZeroMQPublisher("127.0.0.1", port)
        shims = self.module("stream.shims.redis")
        publishers = {"list": shims.RedisQueuePublisher, "pubsub": shims.RedisPublisher}
        return publishers[self.broker]("127.0.0.1", port)

    def subscriber(self) -> Any:
        if self.package == "proxystore_rs":
            broker = self.module("stream.brokers").open_broker(self.url())
            return broker.subscriber(TOPIC, prefetch=32)
        port = int(self.address)
        if self.broker == "zmq":
            return self.module("stream.shims.zmq").ZeroMQSubscriber("127.0.0.1", port, topic=TOPIC)
        shims = self.module("stream.shims.redis")
        subscribers = {"list": shims.RedisQueueSubscriber, "pubsub": shims.RedisSubscriber}
        return subscribers[self.broker]("127.0.0.1", port, TOPIC)

    def url(self) -> str:
        if self.broker == "shm":
            return f"shm://streams-{self.address}"
        scheme = {"zmq": "zmq+tcp", "nats": "nats"}.get(self.broker, f"{self.broker}+redis")
        return f"{scheme}://127.0.0.1:{self.address}"

    def produce(self, place: str, arrays: Iterator[Any], joined: Callable[[], None]) -> None:
        store = self.store(place)
        producer = self.module("stream").StreamProducer(
            self.publisher(), default_store=store, **self.options
        )
        joined()
        for array in arrays:
            producer.send(TOPIC, array)
        producer.close_topics(TOPIC)
        producer.close()
        store.close(**({"clear": False} if self.kind != "redis" else {}))

    def consume(self, subscriber: Any) -> Iterator[Any]:
        consumer = self.module("stream").StreamConsumer(subscriber)
        yield from consumer.iter_objects()
        consumer.close()


class Stored(Library):
    """The same with all objects in the store, also small ones."""

    options: Mapping[str, Any] = {"inline_bytes": 0}


class Bytes(Library):
    """The same with our broker alone, and pickles."""

    def produce(self, place: str, arrays: Iterator[Any], joined: Callable[[], None]) -> None:
        publisher = self.publisher()
        joined()
        for array in arrays:
            publisher.send_message(TOPIC, pickle.dumps(array, 5))
        publisher.send_message(TOPIC, b"")
        publisher.close()

    def consume(self, subscriber: Any) -> Iterator[Any]:
        while data := subscriber.next_message(timeout=60):
            yield pickle.loads(data)
        subscriber.close()


class Bare:
    """The same with a client library of the broker alone, and pickles."""

    def __init__(self, broker: str, store: str, address: str) -> None:
        self.broker, self.kind, self.address = broker, store, address

    def client(self) -> Any:
        import redis

        return redis.StrictRedis("127.0.0.1", int(self.address))

    def subscriber(self) -> Any:
        return self.client()

    def produce(self, place: str, arrays: Iterator[Any], joined: Callable[[], None]) -> None:
        client = self.client()
        joined()
        for array in arrays:
            data = pickle.dumps(array, 5)
            if self.kind == "redis":
                key = uuid.uuid4().hex.encode()
                client.set(key, data)
                data = key
            client.rpush(TOPIC, data)
        client.rpush(TOPIC, b"")

    def consume(self, subscriber: Any) -> Iterator[Any]:
        while True:
            data = subscriber.blpop(TOPIC)[1]
            if not data:
                break
            if self.kind == "redis":
                key = data
                data = subscriber.get(key)
                subscriber.delete(key)
            yield pickle.loads(data)


class Pipelined(Bare):
    """The same, waiting for few answers, as ours does."""

    def produce(self, place: str, arrays: Iterator[Any], joined: Callable[[], None]) -> None:
        pipeline = self.client().pipeline(transaction=False)
        joined()
        for number, array in enumerate(arrays, 1):
            key = uuid.uuid4().hex.encode()
            pipeline.set(key, pickle.dumps(array, 5)).rpush(TOPIC, key)
            if number % max(1, min(64, 1_000_000 // array.nbytes)) == 0:
                pipeline.execute()
        pipeline.rpush(TOPIC, b"").execute()

    def consume(self, subscriber: Any) -> Iterator[Any]:
        while True:
            for key in subscriber.lpop(TOPIC, 32) or subscriber.blpop(TOPIC)[1:]:
                if not key:
                    return
                both = subscriber.pipeline(transaction=False).get(key).delete(key)
                yield pickle.loads(both.execute()[0])


class Stream:
    """A consumer in this process, and a producer in another, for every run."""

    def __init__(self, make: Callable[..., Any], *arguments: str) -> None:
        self.stack = contextlib.ExitStack()
        self.make, self.arguments = make, arguments

    def address(self, broker: str, store: str) -> str:
        """What the run needs: a server, a port, a name of its own."""
        if broker == "nats":
            return str(self.stack.enter_context(nats()))
        if broker in ("list", "pubsub", "stream") or store == "redis":
            return str(self.stack.enter_context(servers.redis()))
        return str(servers.free_port())

    def run(self, size: int, count: int) -> dict[str, float]:
        """Objects per second, from the first that is sent to the last that is looked at."""
        *_, broker, store = self.arguments
        with self.stack:
            address = self.address(broker, store)
            side = self.make(*self.arguments, address)
            place = self.stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))
            if store == "shm":
                place = f"streams-{address}-{os.getpid()}"
            consumer_store = side.store(place) if store == "shm" else None
            subscriber = side.subscriber()
            reader, writer = os.pipe()
            process = os.fork()
            if process == 0:
                status = 1
                try:
                    self.produce(side, place, size, count, writer)
                    status = 0
                finally:
                    os._exit(status)
            os.close(writer)
            found = 0
            for number, array in enumerate(side.consume(subscriber)):
                if array[0] != number or array[-1] != number or array.nbytes != size:
                    raise AssertionError("what arrived differs from what was sent")
                found += 1
                del array
            end = time.perf_counter()
            if os.waitpid(process, 0)[1] or found != count:
                raise AssertionError(f"{found} of {count} objects came")
            with os.fdopen(reader) as answers:
                start = float(answers.read())
            if consumer_store is not None:
                consumer_store.close(clear=True)
            return {"per second": count / (end - start)}

    def produce(self, side: Any, place: str, size: int, count: int, answers: int) -> None:
        import numpy as np

        array = np.zeros(size // 8)

        def arrays() -> Iterator[Any]:
            for number in range(count):
                array[0] = array[-1] = number
                yield array

        def joined() -> None:
            time.sleep(0.3)  # who is not there yet would miss the beginning
            os.write(answers, repr(time.perf_counter()).encode())

        side.produce(place, arrays(), joined)


@contextlib.contextmanager
def nats() -> Iterator[int]:
    """A NATS server with JetStream; its port."""
    if shutil.which("nats-server") is None:
        sys.exit("There is no 'nats-server' here; scripts/servers says how to get it.")
    port = servers.free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config")
        config.write_text("max_payload: 64000000\n")  # 1 MB by default
        command = ["nats-server", "-c", str(config), "-js", "-sd", folder]
        command += ["-a", "127.0.0.1", "-p", str(port)]
        with servers.running(command, port):
            yield port


def ours(broker: str, store: str, make: type[Library] = Library) -> Side:
    return Side(Stream, (make, "proxystore_rs", broker, store), "ours", ("proxystore-rs",))


def upstream(broker: str, store: str) -> Side:
    return Side(Stream, (Library, "proxystore", broker, store), "upstream", ("proxystore",))


def bare(broker: str, store: str, kind: type[Bare] = Bare) -> Side:
    return Side(Stream, (kind, broker, store), "upstream", ("redis",))


# Of each, the broker and what it is compared with.
SIDES = {
    "ours, Redis list, shm": ours("list", "shm"),
    "ours, Redis list, shm, stored": ours("list", "shm", Stored),
    "upstream, Redis list, files": upstream("list", "file"),
    "bytes, Redis list": bare("list", "none"),
    "ours, Redis pub/sub, shm": ours("pubsub", "shm"),
    "ours, Redis pub/sub, shm, stored": ours("pubsub", "shm", Stored),
    "upstream, Redis pub/sub, files": upstream("pubsub", "file"),
    "bytes, Redis pub/sub": ours("pubsub", "none", Bytes),
    "ours, Redis streams, shm": ours("stream", "shm"),
    "bytes, Redis streams": ours("stream", "none", Bytes),
    "ours, ZeroMQ, shm": ours("zmq", "shm"),
    "ours, ZeroMQ, shm, stored": ours("zmq", "shm", Stored),
    "upstream, ZeroMQ, files": upstream("zmq", "file"),
    "bytes, ZeroMQ": ours("zmq", "none", Bytes),
    "ours, NATS, shm": ours("nats", "shm"),
    "bytes, NATS": ours("nats", "none", Bytes),
    "ours, shared memory, shm": ours("shm", "shm"),
    "bytes, shared memory": ours("shm", "none", Bytes),
    "ours, Redis list, Redis": ours("list", "redis"),
    "ours, Redis list, Redis, stored": ours("list", "redis", Stored),
    "upstream, Redis list, Redis": upstream("list", "redis"),
    "bare client, Redis list, Redis": bare("list", "redis"),
    "bare client, Redis list, Redis, pipelined": bare("list", "redis", Pipelined),
}


# The rings of shared memory take no larger messages, and all larger objects are stored.
LARGEST = {"bytes, shared memory": 1_000_000} | {
    name: 16_000 for name in SIDES if name.endswith(", stored")
}


def compare(workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    report = Report("streams", "Streams: one producer, one consumer", options)
    report.versions(workers)
    report.text(UNEVEN)
    curves: dict[str, dict[int, float]] = {name: {} for name in workers}
    for size in options.sizes:
        count = max(20, min(options.count, options.bytes // size))
        able = {name: worker for name, worker in workers.items() if size <= LARGEST.get(name, size)}
        answers = harness.interleave(
            able,
            options.rounds,
            lambda worker, size=size, count=count: worker.call("run", size=size, count=count),
        )
        found = {name: harness.medians(samples)["per second"] for name, samples in answers.items()}
        rows = []
        for name, rate in found.items():
            curves[name][size] = rate
            _, broker, *store = name.split(", ")
            by_redis = store[:1] == ["Redis"]
            same = f"upstream, {broker}, " + ("Redis" if by_redis else "files")
            plain = f"bare client, {broker}, Redis" if by_redis else f"bytes, {broker}"
            rows.append(
                (
                    name,
                    f"{rate:.0f}",
                    f"{size_text(rate * size)}/s",
                    ratio_text(rate, found.get(same)),
                    ratio_text(rate, found.get(plain)),
                )
            )
        header = ("side", "objects/s", "bytes/s", "side / upstream", "side / plain client")
        report.table(f"{size_text(size)}, {count} objects", header, rows, found)
    report.plot("one producer, one consumer", curves, "objects/s")
    report.write()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--count", type=int, default=5000, help="objects of a run at most (default: 5000)"
    )
    parser.add_argument(
        "--bytes", type=int, default=500_000_000, help="bytes of a run, about (default: 500 MB)"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    harness.add_quick(parser, rounds=1, count=500, bytes=100_000_000, sizes=(10_000, 1_000_000))


if __name__ == "__main__":
    harness.main(compare, SIDES, __doc__, add_options, rounds=3)
