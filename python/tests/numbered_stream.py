"""A stream for tests: arrays of 80 kB, each of them full of its number."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np

from proxystore_rs.store import Store
from proxystore_rs.stream import StreamConsumer, StreamProducer
from proxystore_rs.stream.brokers import open_broker

_names = itertools.count()


class NumberedStream:
    """Through a broker without a server, and a store of files that counts."""

    def __init__(self, store: Store[Any], kind: str = "memory") -> None:
        self.store = store
        self.broker = open_broker(f"{kind}://numbered-{os.getpid()}-{next(_names)}")

    def producer(self) -> StreamProducer[Any]:
        return StreamProducer(self.broker.publisher(), default_store=self.store)

    def send(self, *numbers: int, end: bool = True) -> None:
        with self.producer() as producer:
            for number in numbers:
                array = np.full(10_000, float(number))
                producer.send("frames", array, metadata={"frame": number})
            if end:
                producer.close_topics("frames")

    def consumer(self, topic: str = "frames", **options: Any) -> StreamConsumer[Any]:
        options = {"acknowledge": "manual"} | options
        return StreamConsumer(self.broker.subscriber([topic]), **options)

    def objects(self) -> int:
        """How many objects are in the channel."""
        folder = Path(self.store.connector.store_dir)
        return sum(path.is_file() for path in folder.rglob("*")) if folder.exists() else 0

    def gets(self) -> float:
        """How often this process took an object from the channel."""
        return gets(self.store)


def gets(store: Any) -> float:
    """How often this process took an object from the channel of a store that counts."""
    lines = store.metrics.to_prometheus().splitlines()
    about = [line for line in lines if "operations_total" in line and '"get"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in about)
