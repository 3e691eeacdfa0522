"""Publishers and subscribers under upstream's names."""

from __future__ import annotations

import multiprocessing
import queue
import sys
import types
from typing import Any

import pytest
from redis_server import RedisServer, free_port

from proxystore_rs.exceptions import ChannelPermissionError
from proxystore_rs.store import Store
from proxystore_rs.stream import StreamConsumer, StreamProducer
from proxystore_rs.stream.protocols import MessagePublisher, MessageSubscriber
from proxystore_rs.stream.shims.kafka import KafkaPublisher, KafkaSubscriber
from proxystore_rs.stream.shims.queue import QueuePublisher, QueueSubscriber
from proxystore_rs.stream.shims.redis import (
    RedisPublisher,
    RedisQueuePublisher,
    RedisQueueSubscriber,
    RedisSubscriber,
)
from proxystore_rs.stream.shims.zmq import ZeroMQPublisher, ZeroMQSubscriber

LARGE = b"x" * 20_000


def exchange(publisher: Any, subscriber: Any, store: Store[Any], topic: str) -> None:
    """Send three objects, and receive them."""
    assert isinstance(publisher, MessagePublisher)
    assert isinstance(subscriber, MessageSubscriber)
    with StreamProducer[Any](publisher, default_store=store, batch_size=2) as producer:
        for number in range(3):
            producer.send(topic, LARGE, metadata={"n": number})
        producer.close_topics(topic)
        consumer: StreamConsumer[Any] = StreamConsumer(subscriber)
        found = list(consumer.iter_objects_with_metadata())
        consumer.close()
    assert found == [({"n": number}, LARGE) for number in range(3)]


def test_queues_of_threads(folder_store: Store[Any]) -> None:
    frames: queue.Queue[bytes] = queue.Queue()
    exchange(QueuePublisher({"t": frames}), QueueSubscriber(frames), folder_store, "t")
    with pytest.raises(ValueError, match="'other' has no queue"):
        QueuePublisher({"t": frames}).send_message("other", b"")


def test_queues_of_processes(folder_store: Store[Any]) -> None:
    frames: Any = multiprocessing.get_context("spawn").Queue()
    subscriber = QueueSubscriber(frames)
    exchange(QueuePublisher({"t": frames}), subscriber, folder_store, "t")
    with pytest.raises(StopIteration):
        subscriber.next_message()
    assert list(StreamConsumer[Any](QueueSubscriber(frames))) == []
    frames.join_thread()


def test_an_empty_queue_raises_as_it_does() -> None:
    frames: queue.Queue[bytes] = queue.Queue()
    for options in ({"block": False}, {"timeout": 0.01}):
        subscriber = QueueSubscriber(frames, **options)  # type: ignore[arg-type]
        with pytest.raises(queue.Empty):
            next(subscriber)
        with pytest.raises(queue.Empty):
            StreamConsumer[Any](subscriber).next()


def test_redis_lists_and_channels(
    stream_server: RedisServer, topic: str, folder_store: Store[Any]
) -> None:
    where = ("127.0.0.1", stream_server.port)
    for publisher, subscriber in (
        (RedisQueuePublisher(*where), RedisQueueSubscriber(*where, topic, timeout=60)),
        (RedisPublisher(*where, db=0), RedisSubscriber(*where, [topic], ssl=False)),
    ):
        exchange(publisher, subscriber, folder_store, topic)
    late = RedisQueueSubscriber(*where, topic, timeout=0)
    with pytest.raises(TimeoutError):
        late.next_message()
    with pytest.raises(TimeoutError):
        StreamConsumer[Any](late).next()


def test_redis_takes_what_has_a_meaning(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = RedisServer(tmp_path_factory.mktemp("locked"), password="hush", tls=True)
    try:
        given = {"ssl": True, "ssl_ca_certs": server.ca_file}
        RedisQueuePublisher("127.0.0.1", server.port, password="hush", **given).send_message(
            "t", b"hello"
        )
        subscriber = RedisQueueSubscriber("127.0.0.1", server.port, "t", password="hush", **given)
        assert subscriber.next_message() == b"hello"
        subscriber.close()
        with pytest.raises(ChannelPermissionError):
            RedisQueueSubscriber(
                "127.0.0.1", server.port, "t", password="wrong", **given
            ).next_message(timeout=60)
    finally:
        server.kill()
    with pytest.raises(TypeError, match="decode_responses"):
        RedisPublisher("127.0.0.1", 1, decode_responses=True)


def test_zeromq_with_one_topic_and_with_all(folder_store: Store[Any]) -> None:
    port = free_port()
    publisher = ZeroMQPublisher("127.0.0.1", port)
    ends = [ZeroMQSubscriber("127.0.0.1", port), ZeroMQSubscriber("127.0.0.1", port, topic="t")]
    for subscriber in ends:
        while True:  # until it is connected
            publisher.send_message("t", b"hello")
            try:
                assert subscriber.next_message(timeout=0.05) == b"hello"
                break
            except TimeoutError:
                pass
    publisher.send_message("other", b"hello")
    publisher.send_message("t", b"bye")
    for subscriber, wanted in zip(ends, ([b"hello", b"bye"], [b"bye"]), strict=True):
        found: list[bytes] = []
        while found[-1:] != [b"bye"]:
            found.append(subscriber.next_message(timeout=60))
        assert [*found[-len(wanted) :]] == wanted
        subscriber.close()
    publisher.close()


class Client:
    """As much of the clients of Kafka as is used."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.unsent: list[tuple[bytes, Any]] = []
        self.failure: object = None
        self.flushed = 0
        self.closed = False

    def produce(self, topic: str, message: bytes, *, on_delivery: Any = None) -> None:
        self.unsent.append((message, on_delivery))

    def flush(self) -> None:
        self.flushed += 1
        for message, on_delivery in self.unsent:
            if self.failure is None:
                self.messages.append(Message(message))
            if on_delivery is not None:
                on_delivery(self.failure, Message(message))
        self.unsent.clear()

    def poll(self, timeout: float) -> Any:
        return self.messages.pop(0) if self.messages else None

    def close(self) -> None:
        self.closed = True


class Message:
    def __init__(self, value: bytes, error: object = None) -> None:
        self._value, self._error = value, error

    def value(self) -> bytes:
        return self._value

    def error(self) -> object:
        return self._error


def test_clients_of_kafka(folder_store: Store[Any]) -> None:
    client = Client()
    exchange(KafkaPublisher(client), KafkaSubscriber(client), folder_store, "t")
    assert client.closed
    assert client.flushed == 4  # one a message, and closing


def test_errors_of_kafka_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    class KafkaException(Exception):
        pass

    module = types.ModuleType("confluent_kafka")
    monkeypatch.setattr(module, "KafkaException", KafkaException, raising=False)
    monkeypatch.setitem(sys.modules, "confluent_kafka", module)
    client = Client()
    client.failure = "delivery timed out"
    with pytest.raises(KafkaException, match="timed out"):
        KafkaPublisher(client).send_message("t", b"hello")
    client.failure = None
    KafkaPublisher(client).send_message("t", b"hello")
    assert client.poll(0).value() == b"hello"
    client.messages.append(Message(b"", error="no such topic"))
    with pytest.raises(KafkaException, match="no such topic"):
        next(KafkaSubscriber(client))
    client.messages.append(Message(b"hello"))
    assert next(iter(KafkaSubscriber(client))) == b"hello"
