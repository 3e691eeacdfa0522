"""What streams ask of publishers, subscribers and filters.

The brokers of [`proxystore_rs.stream.brokers`][] come with publishers and subscribers; any class
with the methods of one of these is one as well, and need not derive from anything here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union, runtime_checkable

if TYPE_CHECKING:
    from proxystore_rs.stream.events import EventBatch

__all__ = [
    "EventPublisher",
    "EventSubscriber",
    "Filter",
    "MessagePublisher",
    "MessageSubscriber",
    "Publisher",
    "Subscriber",
]


@runtime_checkable
class EventPublisher(Protocol):
    """Publishes batches of events, which it turns into whatever its broker carries."""

    def close(self) -> None:
        """Release what it holds."""
        ...

    def send_events(self, events: EventBatch) -> None:
        """Publish the events of a topic."""
        ...


@runtime_checkable
class EventSubscriber(Protocol):
    """Receives batches of events.

    One that has a method `next_events_within(seconds)` too, which returns None where none came in
    time, lets its consumer stop waiting.
    """

    def __next__(self) -> EventBatch:
        """Return the next batch."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...

    def next_events(self) -> EventBatch:
        """Return the next batch; wait for it if need be."""
        ...


@runtime_checkable
class MessagePublisher(Protocol):
    """Publishes messages, which are bytes."""

    def close(self) -> None:
        """Release what it holds."""
        ...

    def send_message(self, topic: str, message: bytes) -> None:
        """Publish a message to a topic."""
        ...


@runtime_checkable
class MessageSubscriber(Protocol):
    """Receives messages.

    One that has a method `next_message_within(seconds)` too, which returns None where no message
    came in time, lets its consumer stop waiting.
    """

    def __next__(self) -> bytes:
        """Return the next message."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...

    def next_message(self) -> bytes:
        """Return the next message; wait for it if need be."""
        ...


class Filter(Protocol):
    """Decides which objects are dropped."""

    def __call__(self, metadata: dict[str, Any]) -> bool:
        """Return whether the object of which this is said is dropped."""
        ...


Publisher: TypeAlias = Union["EventPublisher", "MessagePublisher"]
"""A publisher of either kind."""

Subscriber: TypeAlias = Union["EventSubscriber", "MessageSubscriber"]
"""A subscriber of either kind."""
