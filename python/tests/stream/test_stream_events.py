"""Event classes, their bytes, and publishers and subscribers that users write."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from proxystore_rs.exceptions import ChannelTimeoutError, CorruptObjectError, StoreClosedError
from proxystore_rs.proxy import Proxy
from proxystore_rs.store import Store
from proxystore_rs.stream import StreamConsumer, StreamProducer
from proxystore_rs.stream.brokers import Broker
from proxystore_rs.stream.events import (
    EndOfStreamEvent,
    Event,
    EventBatch,
    NewObjectEvent,
    NewObjectKeyEvent,
    bytes_to_event,
    dict_to_event,
    event_to_bytes,
    event_to_dict,
)
from proxystore_rs.stream.protocols import (
    EventPublisher,
    EventSubscriber,
    MessagePublisher,
    MessageSubscriber,
)

LARGE = b"x" * 20_000


def events_of(store: Store[Any]) -> list[Event]:
    key = store.put([1, 2, 3])
    return [
        EndOfStreamEvent("t"),
        NewObjectEvent("t", [1, (2,)], {"a": 1, "b": (2,)}),
        NewObjectKeyEvent.from_key(
            key, evict=True, metadata={"a": 1}, store_config=store.config(), topic="t"
        ),
    ]


def test_events_survive_as_bytes_and_as_dicts(store: Store[Any]) -> None:
    events = events_of(store)
    for event in (
        *events,
        EventBatch("t", events),
        EventBatch("t", events[:1]),
        EventBatch("t", []),
    ):
        assert bytes_to_event(event_to_bytes(event)) == event
        data = event_to_dict(event)
        assert dict_to_event(data) == event
        assert "event_type" not in data
    kinds = [event_to_dict(event)["event_type"] for event in (*events, EventBatch("t", []))]
    assert kinds == ["END_OF_STREAM", "NEW_OBJECT", "NEW_OBJECT_KEY", "EVENT_BATCH"]


def test_the_key_of_an_event_is_that_of_its_object(store: Store[Any]) -> None:
    event = events_of(store)[2]
    assert isinstance(event, NewObjectKeyEvent)
    assert store.get(event.get_key()) == [1, 2, 3]


def test_other_bytes_are_no_event() -> None:
    with pytest.raises(CorruptObjectError):
        bytes_to_event(b"hello")


def test_events_of_messages_have_the_objects_inside(broker: Broker, store: Store[Any]) -> None:
    subscriber = broker.subscriber("t")
    producer: StreamProducer[Any] = StreamProducer(
        broker.publisher(), default_store=store, batch_size=2
    )
    producer.send("t", "small")
    producer.send("t", LARGE, metadata={"a": 1})
    small, large = bytes_to_event(subscriber.next_message()).events  # type: ignore[union-attr]
    assert small == NewObjectEvent("t", "small", {})
    assert isinstance(large, NewObjectKeyEvent)
    assert (large.evict, large.metadata, large.store_config) == (True, {"a": 1}, store.config())
    assert store.get(large.get_key()) == LARGE


class Events:
    """Batches of events in a list; both ends."""

    def __init__(self) -> None:
        self.batches: deque[EventBatch] = deque()
        self.closed = 0

    def send_events(self, events: EventBatch) -> None:
        self.batches.append(events)

    def next_events(self) -> EventBatch:
        if not self.batches:
            raise StopIteration
        return self.batches.popleft()

    __next__ = next_events

    def close(self) -> None:
        self.closed += 1


class Messages:
    """Messages in a list; both ends."""

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()

    def send_message(self, topic: str, message: bytes) -> None:
        self.messages.append(message)

    def next_message(self) -> bytes:
        if not self.messages:
            raise ConnectionError("the line is dead")
        return self.messages.popleft()

    __next__ = next_message

    def close(self) -> None:
        self.messages.clear()


def test_publishers_of_events_get_events(store: Store[Any]) -> None:
    events = Events()
    assert isinstance(events, EventPublisher)
    assert isinstance(events, EventSubscriber)
    with StreamProducer[Any](events, default_store=store, stores={"b": None}) as producer:
        producer.send("a", "small", metadata={"n": 1})
        producer.send("b", [1])
        producer.close_topics("a")
    stored, inline, end = (event for batch in events.batches for event in batch.events)
    assert isinstance(stored, NewObjectKeyEvent)  # small as it is
    assert store.get(stored.get_key()) == "small"
    assert inline == NewObjectEvent("b", [1], {})
    assert end == EndOfStreamEvent("a")
    assert events.closed == 1

    with StreamConsumer[Any](events) as consumer:
        proxy = consumer.next()
        assert type(proxy) is Proxy
        assert proxy == "small"
        assert not store.exists(stored.get_key())
        assert consumer.next() == [1]
        with pytest.raises(StopIteration):
            consumer.next()
        with pytest.raises(StopIteration):  # of the subscriber
            consumer.next()
        assert list(consumer.iter_objects()) == []
    assert events.closed == 2


class Waiting(Events):
    """Events that can be waited for, and for a while."""

    def next_events(self) -> EventBatch:
        raise AssertionError("would wait for ever")

    __next__ = next_events

    def next_events_within(self, seconds: float) -> EventBatch | None:
        if not self.batches:
            time.sleep(seconds)
            return None
        return self.batches.popleft()


def test_waiting_for_events_ends_where_the_subscriber_can_stop(store: Store[Any]) -> None:
    events = Waiting()
    assert isinstance(events, EventSubscriber)
    consumer: StreamConsumer[Any] = StreamConsumer(events)
    with pytest.raises(ChannelTimeoutError):
        consumer.next_item(timeout=0.01)
    StreamProducer[Any](events, default_store=store).send("t", 1)
    assert consumer.next_object() == 1
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(consumer.next)
        consumer.close()
        with pytest.raises(StoreClosedError):
            waiting.result(60)


def test_publishers_of_messages_get_bytes(store: Store[Any]) -> None:
    messages = Messages()
    assert isinstance(messages, MessagePublisher)
    assert isinstance(messages, MessageSubscriber)
    producer: StreamProducer[Any] = StreamProducer(messages, default_store=store)
    producer.send("t", LARGE)
    (message,) = messages.messages
    assert type(message) is bytes
    consumer: StreamConsumer[Any] = StreamConsumer(messages)
    proxy = consumer.next()
    key = proxy.__proxy_factory__.key
    assert proxy == LARGE
    assert not store.exists(key)  # the first use of it, as there is no acknowledging
    with pytest.raises(ConnectionError, match="the line is dead"):
        consumer.next()


def test_event_classes_cannot_say_everything(store: Store[Any]) -> None:
    with pytest.raises(ValueError, match="event classes"):
        StreamProducer(Events(), default_store=store, consumers=["a", "b"])
    with pytest.raises(ValueError, match="event classes"):
        StreamProducer(Events(), default_store=store, max_bytes=1, when_full="drop_oldest")


def test_what_a_publisher_raises_comes_through(store: Store[Any]) -> None:
    class Broken(Messages):
        def send_message(self, topic: str, message: bytes) -> None:
            raise ConnectionError(topic)

    producer: StreamProducer[Any] = StreamProducer(Broken(), default_store=store)
    with pytest.raises(ConnectionError, match="t"):
        producer.send("t", LARGE)
    assert producer.metrics()["sent"] == 0
