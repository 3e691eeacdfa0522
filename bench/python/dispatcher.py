"""A dispatcher takes the items of a stream and sends a task for each to workers that sleep.

A generator publishes an item of `d` bytes every `s / n` seconds, for `n` workers whose tasks use the
object and sleep `s` seconds: as fast as they can be kept busy at best. What is measured is the tasks
that are done per second, and the dispatching process's own processor time per task, of

- *bytes*: objects travel inside their events, and through the dispatcher to the workers;
- *upstream*: upstream's producer and consumer, with a bare loop that submits the proxies, and waits
  for the oldest task when all workers are busy;
- *ours*: this package's producer, consumer and `Dispatcher`.

Events travel over Redis lists, and the objects of upstream and of one of ours over the same server.
Tasks sleep, so that cores do not count; what does not sleep shares them with everybody else.
Starts a server of its own on this host; needs `redis-server`.
"""

from __future__ import annotations

import argparse
import collections
import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import harness
import servers
from harness import Report, Side, Worker, ratio_text, size_text, time_text

SIZES = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
TOPIC = "bench-items"


def compute(item: Any, sleep: float) -> int:
    """Be a task: use the object, and sleep."""
    size = len(item)
    time.sleep(sleep)
    return size


class Streaming:
    """What the sides share: the generator, the workers, and the clocks."""

    def connect(self, port: int) -> None:
        """Note where the server is, now that there is one."""
        self.port = port

    def send(self, count: int, size: int, pause: float) -> None:
        """Be the generator, in a process of its own."""
        send, close = self.sender()
        data = os.urandom(size)
        due = time.monotonic()
        for _ in range(count):
            send(data)
            due += pause
            time.sleep(max(0.0, due - time.monotonic()))
        close()

    def dispatch(self, size: int, count: int, workers: int, sleep: float) -> dict[str, float]:
        """Tasks per second, and processor seconds of this process per task."""
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            pool.submit(len, b"").result()  # all workers are there from now on
            generator = context.Process(target=self.send, args=(count, size, sleep / workers))
            generator.start()
            start, spent = time.perf_counter(), time.process_time()
            done = self.run(pool, count, workers, sleep)
            seconds, spent = time.perf_counter() - start, time.process_time() - spent
            generator.join()
        if done != [size] * count:
            raise AssertionError("tasks are missing, or had the wrong objects")
        return {"rate": count / seconds, "cpu": spent / count}

    def sender(self) -> tuple[Callable[[bytes], Any], Callable[[], Any]]:
        """Functions that send an object, and end the stream."""
        raise NotImplementedError

    def run(self, pool: Any, count: int, workers: int, sleep: float) -> list[int]:
        """Dispatch all items, and return the results."""
        raise NotImplementedError

    def close(self) -> None:
        """Every run has closed what it opened."""


def submit_all(pool: Any, items: Iterator[Any], workers: int, sleep: float) -> list[int]:
    """Submit a task per item; when all workers are busy, wait for the oldest."""
    running: collections.deque[Any] = collections.deque()
    done = []
    for item in items:
        running.append(pool.submit(compute, item, sleep))
        if len(running) >= workers:
            done.append(running.popleft().result())
    return done + [task.result() for task in running]


class Bytes(Streaming):
    """Objects inside their events, by redis-py."""

    def sender(self) -> tuple[Callable[[bytes], Any], Callable[[], Any]]:
        import redis

        client = redis.Redis("127.0.0.1", self.port)
        return lambda data: client.rpush(TOPIC, data), client.close

    def run(self, pool: Any, count: int, workers: int, sleep: float) -> list[int]:
        import redis

        client: Any = redis.Redis("127.0.0.1", self.port)
        items = (client.blpop(TOPIC)[1] for _ in range(count))
        done = submit_all(pool, items, workers, sleep)
        client.close()
        return done


class Upstream(Streaming):
    """Upstream's streams over its Redis queues, its store on Redis."""

    def sender(self) -> tuple[Callable[[bytes], Any], Callable[[], Any]]:
        from proxystore.connectors.redis import RedisConnector
        from proxystore.store import Store
        from proxystore.stream import StreamProducer
        from proxystore.stream.shims.redis import RedisQueuePublisher

        store = Store(f"bench-{os.getpid()}", RedisConnector("127.0.0.1", self.port))
        publisher = RedisQueuePublisher("127.0.0.1", self.port)
        producer = StreamProducer(publisher, default_store=store)

        def close() -> None:
            producer.close(topics=[TOPIC])

        return lambda data: producer.send(TOPIC, data), close

    def run(self, pool: Any, count: int, workers: int, sleep: float) -> list[int]:
        from proxystore.stream import StreamConsumer
        from proxystore.stream.shims.redis import RedisQueueSubscriber

        subscriber = RedisQueueSubscriber("127.0.0.1", self.port, TOPIC)
        consumer: Any = StreamConsumer(subscriber)
        done = submit_all(pool, consumer, workers, sleep)
        consumer.close()
        return done


class Ours(Streaming):
    """This package's streams over Redis lists, and a store on some channel."""

    def __init__(self, channel: str) -> None:
        self.channel = channel

    def sender(self) -> tuple[Callable[[bytes], Any], Callable[[], Any]]:
        from proxystore_rs.store import open_store
        from proxystore_rs.stream import StreamProducer
        from proxystore_rs.stream.brokers import open_broker

        store = open_store(self.channel.format(port=self.port, pid=os.getppid()))
        broker = open_broker(f"list+redis://127.0.0.1:{self.port}/0")
        # The objects of all sides are stored, also the small ones.
        producer: Any = StreamProducer(broker.publisher(), default_store=store, inline_bytes=0)

        def close() -> None:
            producer.close(topics=[TOPIC])

        return lambda data: producer.send(TOPIC, data), close

    def run(self, pool: Any, count: int, workers: int, sleep: float) -> list[int]:
        from proxystore_rs.store import open_store
        from proxystore_rs.stream import StreamConsumer
        from proxystore_rs.stream.brokers import open_broker
        from proxystore_rs.stream.dispatch import Dispatcher

        # What the generator leaves in shared memory stays as long as somebody has it open.
        store = open_store(self.channel.format(port=self.port, pid=os.getpid()))
        broker = open_broker(f"list+redis://127.0.0.1:{self.port}/0")
        function = functools.partial(compute, sleep=sleep)
        with StreamConsumer[Any](broker.subscriber(TOPIC), acknowledge="manual") as consumer:
            done = list(Dispatcher(consumer, pool, function, max_in_flight=workers))
        store.close()
        return done


SIDES = {
    "bytes": Side(Bytes, (), "ours", ("redis",)),
    "upstream, Redis": Side(Upstream, (), "upstream", ("proxystore", "redis")),
    "ours, Redis": Side(Ours, ("redis://127.0.0.1:{port}/1",), "ours", ("proxystore-rs",)),
    "ours, shm": Side(Ours, ("shm://bench-dispatcher-{pid}",), "ours", ("proxystore-rs",)),
}


def compare(workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    report = Report("dispatcher", "Dispatching the items of a stream", options)
    report.versions(workers)
    rates: dict[str, dict[int, float]] = {name: {} for name in workers}
    spent: dict[str, dict[int, float]] = {name: {} for name in workers}
    sizes = [size for size in SIZES if size <= options.largest]
    with servers.redis() as port:
        for worker in workers.values():
            worker.call("connect", port=port)
        for size in sizes:
            # Sixteen tasks for each worker, if there is room for their objects.
            count = min(16 * options.workers, max(2 * options.workers, options.room // size))

            def dispatch(worker: Worker, size: int = size, count: int = count) -> Any:
                return worker.call(
                    "dispatch",
                    size=size,
                    count=count,
                    workers=options.workers,
                    sleep=options.sleep,
                )

            answers = harness.interleave(workers, options.rounds, dispatch)
            for name, samples in answers.items():
                found = harness.medians(samples)
                rates[name][size], spent[name][size] = found["rate"], found["cpu"]
    show(report, "Tasks per second", rates, sizes, lambda rate: f"{rate:.1f}")
    show(report, "Processor time of the dispatcher per task", spent, sizes, time_text)
    base = rates.get("bytes")
    if base is not None:
        ratios = {
            name: {size: ratio_text(curve[size], base[size]) for size in sizes}
            for name, curve in rates.items()
        }
        show(report, "Tasks per second, side / bytes", ratios, sizes, str)
    report.text(
        f"The most there could be is {options.workers / options.sleep:.0f} tasks per second."
    )
    report.plot("Tasks", rates, "per second")
    report.plot("Dispatcher", spent, "processor seconds per task")
    report.write()


def show(
    report: Report,
    title: str,
    curves: Mapping[str, Mapping[int, Any]],
    sizes: list[int],
    text: Callable[[Any], str],
) -> None:
    """A table with a row per side and a column per size."""
    rows = [(name, *(text(curve[size]) for size in sizes)) for name, curve in curves.items()]
    report.table(title, ("side", *map(size_text, sizes)), rows, curves)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=8, help="that sleep (default: %(default)s)")
    parser.add_argument(
        "--sleep", type=float, default=0.1, help="seconds of a task (default: %(default)s)"
    )
    parser.add_argument(
        "--largest", type=int, default=SIZES[-1], metavar="BYTES", help="largest object"
    )
    parser.add_argument(
        "--room", type=int, default=2 * 10**9, help="bytes of all objects of a run, about"
    )
    harness.add_quick(parser, rounds=1, workers=2, sleep=0.01, largest=100_000)


if __name__ == "__main__":
    harness.main(compare, SIDES, __doc__, add_options, rounds=3)
