"""Streams through every kind of store: objects arrive, and are freed."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest

from proxystore_rs.proxy import facts, get_factory
from proxystore_rs.store import Store
from proxystore_rs.stream import StreamConsumer, StreamProducer
from proxystore_rs.stream.brokers import Broker

LARGE = b"x" * 20_000

_numbers = itertools.count()


class DictKey(NamedTuple):
    """A key of `DictConnector`."""

    number: int


class DictConnector:
    """A connector written in Python."""

    objects: ClassVar[dict[DictKey, bytes]] = {}

    def close(self) -> None:
        pass

    def config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DictConnector:
        return cls(**config)

    def put(self, obj: Any) -> DictKey:
        key = DictKey(next(_numbers))
        self.objects[key] = bytes(obj)
        return key

    def put_batch(self, objs: Any) -> list[DictKey]:
        return [self.put(obj) for obj in objs]

    def get(self, key: DictKey) -> bytes | None:
        return self.objects.get(key)

    def get_batch(self, keys: Any) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def exists(self, key: DictKey) -> bool:
        return key in self.objects

    def evict(self, key: DictKey) -> None:
        self.objects.pop(key, None)


@pytest.fixture(params=["local", "memory", "file", "shm", "multi", "python", "sealed", "functions"])
def any_store(
    request: pytest.FixtureRequest, make_store: Callable[..., Store[Any]]
) -> Iterator[Store[Any]]:
    """A store of each kind."""
    if request.param == "python":
        with Store(f"dict-{os.getpid()}", DictConnector(), register=True) as store:
            yield store
    elif request.param == "sealed":
        yield make_store("shm", seal=True)
    elif request.param == "functions":
        yield make_store("shm", serializer=pickle.dumps, deserializer=pickle.loads)
    else:
        yield make_store(request.param)


def test_objects_arrive_and_are_freed(broker: Broker, any_store: Store[Any]) -> None:
    consumer: StreamConsumer[Any] = StreamConsumer(
        broker.subscriber("t"), timeout=60, filter_=lambda metadata: metadata["n"] == 1
    )
    publisher = broker.publisher()
    with StreamProducer[Any](publisher, default_store=any_store, batch_size=3) as producer:
        for number in range(4):
            producer.send("t", np.full(5_000, number), metadata={"n": number})
        producer.close_topics("t")
    keys = []
    for metadata, proxy in consumer.iter_with_metadata():
        keys.append(get_factory(proxy).key)  # type: ignore[attr-defined]
        assert any_store.exists(keys[-1])
        assert (proxy == metadata["n"]).all()
    assert len(keys) == 3
    assert not any(any_store.exists(key) for key in keys)


def test_proxies_know_what_they_are_of(broker: Broker, store: Store[Any]) -> None:
    producer: StreamProducer[Any] = StreamProducer(broker.publisher(), default_store=store)
    producer.send("t", np.zeros((3, 1_000)), evict=False)
    proxy = StreamConsumer[Any](broker.subscriber("t")).next()
    assert facts(proxy).shape == (3, 1_000)
    assert proxy.__proxy_default_class__ is np.ndarray
    assert not proxy.__proxy_resolved__


def test_shares_of_signed_references_are_believed(tmp_path: Path) -> None:
    code = (
        "from proxystore_rs import trust\n"
        "from proxystore_rs.store import open_store\n"
        "from proxystore_rs.stream import StreamConsumer, StreamProducer\n"
        "from proxystore_rs.stream.brokers import open_broker\n"
        f"key = trust.make_identity({str(tmp_path / 'key')!r})\n"
        f"trust.identity({str(tmp_path / 'key')!r})\n"
        "broker, store = open_broker('memory://a'), open_store('memory://a', seal='signed')\n"
        "producer = StreamProducer(broker.publisher(), default_store=store, consumers=['a'])\n"
        "consumer = StreamConsumer(broker.subscriber('t', group='a'))\n"
        "trust.require_producers([key])\n"
        "producer.send('t', b'x' * 20_000)\n"
        "print(len(consumer.next_object()))\n"
        "trust.require_producers(['0' * 64])\n"
        "producer.send('t', b'x' * 20_000)\n"
        "try: consumer.next_object()\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["20000", "UntrustedError"], done.stderr
