"""The ends of brokers as native code takes them: by messages, whatever their own way is."""

from __future__ import annotations

from typing import Any

from proxystore_rs._core import BrokerPublisher, BrokerSubscriber
from proxystore_rs.stream.events import EventBatch, bytes_to_event, event_to_bytes
from proxystore_rs.stream.protocols import (
    EventPublisher,
    EventSubscriber,
    MessagePublisher,
    MessageSubscriber,
    Publisher,
    Subscriber,
)


class _EventsOut:
    """Makes events of messages, for publishers of events."""

    def __init__(self, publisher: EventPublisher) -> None:
        self._publisher = publisher

    def send_message(self, topic: str, message: bytes) -> None:
        batch = bytes_to_event(message)
        self._publisher.send_events(
            batch if isinstance(batch, EventBatch) else EventBatch(topic, [batch])
        )

    def close(self) -> None:
        self._publisher.close()


class _EventsIn:
    """Makes messages of the events of a subscriber."""

    def __init__(self, subscriber: EventSubscriber) -> None:
        self._subscriber = subscriber

    def next_message(self) -> bytes:
        return event_to_bytes(self._subscriber.next_events())

    def close(self) -> None:
        self._subscriber.close()


class _EventsWithin(_EventsIn):
    """The same of a subscriber that can stop waiting."""

    def next_message_within(self, seconds: float) -> bytes | None:
        events: EventBatch | None = self._subscriber.next_events_within(seconds)  # type: ignore[attr-defined]
        return None if events is None else event_to_bytes(events)


def publishes_events(publisher: Publisher) -> bool:
    """Return whether a publisher takes events, and not messages."""
    return not isinstance(publisher, BrokerPublisher) and isinstance(publisher, EventPublisher)


def publisher_of_messages(publisher: Publisher) -> Any:
    """Return what takes messages for a publisher.

    Raises:
        TypeError: It is no publisher.
    """
    if publishes_events(publisher):
        return _EventsOut(publisher)  # type: ignore[arg-type]  # as was just asked
    if isinstance(publisher, BrokerPublisher | MessagePublisher):
        return publisher
    raise TypeError(
        f"a publisher has the methods send_message and close, or send_events and close; "
        f"{type(publisher).__name__} has not"
    )


def subscriber_of_messages(subscriber: Subscriber) -> Any:
    """Return what gives the messages of a subscriber.

    Raises:
        TypeError: It is no subscriber.
    """
    if isinstance(subscriber, BrokerSubscriber):
        return subscriber
    if isinstance(subscriber, EventSubscriber):
        bounded = hasattr(subscriber, "next_events_within")
        return _EventsWithin(subscriber) if bounded else _EventsIn(subscriber)
    if isinstance(subscriber, MessageSubscriber):
        return subscriber
    raise TypeError(
        f"a subscriber has the methods next_message, close and __next__, or next_events, close and "
        f"__next__; {type(subscriber).__name__} has not"
    )
