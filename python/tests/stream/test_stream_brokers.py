"""The brokers of the library, by themselves and under streams."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from redis_server import RedisServer, free_port

from proxystore_rs.exceptions import ChannelTimeoutError, StoreClosedError, StoreConfigError
from proxystore_rs.store import Store
from proxystore_rs.stream import StreamConsumer, StreamProducer
from proxystore_rs.stream.brokers import Broker, BrokerSubscriber, open_broker

LARGE = b"x" * 20_000


@pytest.fixture(params=["memory", "shm", "list", "pubsub", "stream", "nats"])
def any_broker(request: pytest.FixtureRequest, topic: str) -> Broker:
    if request.param in ("memory", "shm"):
        return open_broker(f"{request.param}://{topic}")
    if request.param == "nats":
        return open_broker(request.getfixturevalue("nats_url"))
    server: RedisServer = request.getfixturevalue("stream_server")
    return open_broker(f"{request.param}+{server.url}")


def test_a_stream_runs_over_every_broker(
    any_broker: Broker, topic: str, folder_store: Store[Any]
) -> None:
    consumer: StreamConsumer[Any] = StreamConsumer(any_broker.subscriber(topic), timeout=60)
    with StreamProducer[Any](any_broker.publisher(), default_store=folder_store) as producer:
        for obj in ("small", LARGE):
            producer.send(topic, obj, metadata={"size": len(obj)})
        producer.close_topics(topic)
    assert list(consumer.iter_objects_with_metadata()) == [
        ({"size": 5}, "small"),
        ({"size": 20_000}, LARGE),
    ]
    consumer.close()


def test_messages_are_bytes_of_any_kind(any_broker: Broker, topic: str) -> None:
    subscriber = any_broker.subscriber([topic], prefetch=4)
    with any_broker.publisher() as publisher:
        for message in (b"", b"one", bytearray(b"two"), memoryview(b"three")):
            publisher.send_message(topic, message)
        publisher.flush(timeout=60)
        with subscriber:
            found = [subscriber.next_message(timeout=60) for _ in range(4)]
    assert found == [b"", b"one", b"two", b"three"]


def test_a_stream_runs_over_zeromq(folder_store: Store[Any]) -> None:
    broker = open_broker(f"zmq+tcp://127.0.0.1:{free_port()}")
    producer: StreamProducer[Any] = StreamProducer(broker.publisher(), default_store=folder_store)
    consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"))
    while True:  # who has just subscribed may miss what comes first
        producer.send("t", LARGE)
        try:
            assert consumer.next_item(timeout=0.05).value == LARGE
            break
        except ChannelTimeoutError:
            pass
    consumer.close()
    producer.close()


def test_subscribers_iterate_and_wait_so_long(broker: Broker) -> None:
    subscriber = broker.subscriber("t", group="mine")
    assert isinstance(subscriber, BrokerSubscriber)
    assert subscriber.group == "mine"
    broker.publisher().send_message("t", b"hello")
    assert next(iter(subscriber)) == b"hello"
    with pytest.raises(TimeoutError):
        subscriber.next_message(timeout=0.01)
    subscriber.close()
    with pytest.raises(StoreClosedError):
        subscriber.next_message()


def test_closing_a_subscriber_ends_its_wait(broker: Broker) -> None:
    subscriber = broker.subscriber("t")
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            subscriber.next_message()
        except StoreClosedError as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    subscriber.close()
    thread.join(60)
    assert len(raised) == 1


def test_brokers_say_what_they_promise(stream_server: RedisServer) -> None:
    memory = open_broker("memory://a")
    assert (memory.guarantee, memory.sharing, memory.cross_process) == (
        "at_least_once",
        "groups",
        False,
    )
    lists = open_broker(f"list+{stream_server.url}")
    assert (lists.guarantee, lists.sharing, lists.cross_process) == (
        "at_most_once",
        "queue",
        True,
    )
    secret = open_broker("list+redis://user:hush@127.0.0.1:1/0")
    assert "hush" not in repr(secret)
    assert "hush" not in secret.url


def test_wrong_urls_topics_and_options_are_refused(broker: Broker) -> None:
    with pytest.raises(StoreConfigError, match="its kind is unknown"):
        open_broker("pigeon://a")
    with pytest.raises(TypeError, match="options"):
        open_broker("memory://a", username="me")
    with pytest.raises(StoreConfigError, match="topic"):
        broker.publisher().send_message("", b"")
    with pytest.raises(ValueError, match="a topic at least"):
        broker.subscriber([])
