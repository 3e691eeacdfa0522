"""What a consumer receives."""

from __future__ import annotations

import threading
from typing import Any, Generic, TypeVar, cast

from proxystore_rs._core import Proxy, StreamArrival
from proxystore_rs.proxy import ProxyOr, get_factory

T = TypeVar("T")


class StreamItem(Generic[T]):
    """An object of a stream, with what its producer says of it.

    Attributes:
        topic: The topic.
        metadata: What the producer says of the object.
        value: A proxy of the object, or the object itself on topics without a store.
        tries: How many tasks a `Dispatcher` made of it so far.
    """

    __slots__ = ("_arrival", "metadata", "topic", "tries", "value")

    def __init__(self, arrival: StreamArrival, metadata: dict[str, Any]) -> None:
        self._arrival = arrival
        self.topic: str = arrival.topic
        self.metadata = metadata
        self.value: ProxyOr[T] = arrival.value()
        self.tries = 0

    @property
    def proxy(self) -> ProxyOr[T]:
        """The same as `value`."""
        return self.value

    @property
    def attempts(self) -> int:
        """The how-manieth delivery this is, from 1 on."""
        return self._arrival.attempts

    def acknowledge(self) -> None:
        """Say that the item was dealt with: its object is freed, if it was sent to be.

        On brokers that deliver at least once it is not delivered again. Saying it again is fine.
        """
        self._arrival.acknowledge()

    def lend(self) -> ProxyOr[T]:
        """Return a new proxy for whoever works on the object until the item is acknowledged.

        Unlike copies of `value`, it does not free the object, so that it is there when the work has
        to be done again. On brokers that deliver at most once it is such a copy; on topics without
        a store it is the object.
        """
        lent: ProxyOr[T] = self._arrival.lend()
        return lent

    def _hold(self) -> None:
        """Leave freeing the object to `acknowledge`, on brokers that deliver at most once too."""
        if self._arrival.hold():
            self.value = self._arrival.value()

    def __repr__(self) -> str:
        return (
            f"StreamItem(topic={self.topic!r}, metadata={self.metadata!r}, "
            f"attempts={self.attempts})"
        )

    def _object(self) -> T:
        # By the factory: with the proxy, its target would stay until the next item is asked for.
        if not issubclass(type(self.value), Proxy):
            return cast(T, self.value)
        return get_factory(cast(Proxy[T], self.value))()


class Handed:
    """The item that each thread was handed last and that is not acknowledged yet."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def take(self) -> StreamArrival | None:
        """Return it, and forget it."""
        arrival: StreamArrival | None = self._of_thread.__dict__.pop("arrival", None)
        return arrival

    def put(self, item: StreamItem[Any]) -> None:
        """Note what is handed over; the native part alone, so that the object need not stay."""
        self._of_thread.arrival = item._arrival
