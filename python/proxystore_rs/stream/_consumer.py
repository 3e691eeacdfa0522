"""The end of a stream that receives objects."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterable
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

from proxystore_rs._core import BrokerSubscriber, StreamArrival, StreamInbox
from proxystore_rs.exceptions import (
    ChannelTimeoutError,
    CorruptObjectError,
    ProxyResolveMissingKeyError,
    SerializationError,
)
from proxystore_rs.proxy import ProxyOr
from proxystore_rs.store.registry import get_store
from proxystore_rs.stream._ends import subscriber_of_messages
from proxystore_rs.stream._item import Handed, StreamItem
from proxystore_rs.stream._threads import Threads
from proxystore_rs.stream.filters import NullFilter
from proxystore_rs.stream.protocols import Filter, Subscriber

__all__ = ["StreamConsumer"]

T = TypeVar("T")

_SLICE = 0.25
"""How many seconds a thread waits at a time: for an asyncio task, which may be cancelled, and before it
looks whether there is an item of a task that was."""


class End:
    """A producer closed its topic, or the subscriber has no more."""

    def __init__(self, arrival: StreamArrival | None = None) -> None:
        self.is_last = arrival is None
        self._arrival = arrival

    def acknowledge(self) -> None:
        """Say that it need not be delivered again."""
        if self._arrival is not None:
            self._arrival.acknowledge()


class StreamConsumer(Generic[T]):
    """Receives the objects of a stream as proxies, which fetch them when they are first used.

    What frees the objects that were sent to be freed (`evict`):

    - on brokers that deliver at most once, the first use of the proxy;
    - on brokers that deliver at least once, acknowledging the item. If the consumer is closed or
      killed before, the item is delivered again. A proxy that was sent elsewhere frees its object
      when it is used there.

    It may be used by many threads and asyncio tasks; each event goes to one of them. By default an
    item is acknowledged when the next one is asked for: by the same thread; in asyncio, by the same
    `async for`, or the next `anext(consumer)` of whatever task. So let every task that works on items
    have an `async for` of its own. Where items are asked for in one thread of a pool and worked on in
    another, or `anext` is called before the items before are dealt with, use `acknowledge="manual"`.

    Whoever asks for an item gets the errors of its filter, and of reading it. An item whose data are
    damaged (`CorruptObjectError`, or metadata that are a `SerializationError`) is acknowledged then; any
    other, such as one of a class that is missing here, comes again, on brokers that deliver at least
    once, when `redeliver_after` is over or the consumer was closed.

    Args:
        subscriber: Of a broker of `proxystore_rs.stream.brokers`, or one of your own.
        filter_: Drops the events for whose metadata it returns true; their objects are freed unread.
        acknowledge: `"next"` acknowledges an item when the thread, or the asynchronous iterator, that
            got it asks for the next; `"manual"` leaves it to `StreamItem.acknowledge`.
        ends: How many ends of topics end an iteration: one for each topic and each producer of it.
            They are counted by the consumer, whichever iterator meets them.
        timeout: How many seconds to wait for an event at most; None for as long as it takes.

    Raises:
        TypeError: The subscriber is none.
        ValueError: An argument has a value it cannot have.
    """

    def __init__(
        self,
        subscriber: Subscriber,
        *,
        filter_: Filter | None = None,
        acknowledge: Literal["next", "manual"] = "next",
        ends: int = 1,
        timeout: float | None = None,
    ) -> None:
        if acknowledge not in ("next", "manual"):
            raise ValueError(f"acknowledge must be 'next' or 'manual', not {acknowledge!r}")
        if ends < 1:
            raise ValueError(f"ends must be 1 at least, not {ends}")
        self.subscriber = subscriber
        self._inbox = StreamInbox(subscriber_of_messages(subscriber))
        self._filter: Filter = NullFilter() if filter_ is None else filter_
        self._manual = acknowledge == "manual"
        self._ends = ends
        self._seen = 0  # ends since the last end of an iteration, whichever iterator met them
        if timeout is None and isinstance(subscriber, BrokerSubscriber):
            timeout = getattr(subscriber, "_timeout", None)  # of RedisQueueSubscriber
        self._timeout = timeout
        self._lock = threading.Lock()
        self._handed = Handed()
        self._asynchronous = _AsyncIterator(self)  # of `anext(consumer)`
        self._threads = Threads()
        self._returned: deque[StreamItem[T] | End] = deque()
        self._stores: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ProxyOr[T]:
        return self._next_of_iteration().value

    def __aiter__(self) -> AsyncIterator[ProxyOr[T]]:
        return _AsyncIterator(self)

    async def __anext__(self) -> ProxyOr[T]:
        return await self._asynchronous.__anext__()

    def close(self, *, stores: bool = False, subscriber: bool = True) -> None:
        """Close the subscriber; what was not acknowledged is delivered again, if at all.

        Waiting in other threads ends with an error.

        Args:
            stores: Close the stores that objects came from, too.
            subscriber: Close the subscriber.
        """
        if subscriber:
            if not self._inbox.delivers_again:
                for step in self._returned:
                    with suppress(Exception):  # of the channel: its object may stay
                        step.acknowledge()
            self._returned.clear()
            self._inbox.close()
        self._threads.end()
        if stores:
            for name in self._stores:
                store = get_store(name)
                if store is not None:
                    store.close()

    def next(self) -> ProxyOr[T]:
        """Return the proxy of the next object, or the object itself on topics without a store.

        Raises:
            StopIteration: A producer closed its topic; others may go on.
            ChannelTimeoutError: None came in time.
        """
        return self.next_item().value

    def next_with_metadata(self) -> tuple[dict[str, Any], ProxyOr[T]]:
        """As `next`, with what the producer says of the object."""
        item = self.next_item()
        return item.metadata, item.value

    def next_object(self) -> T:
        """Return the next object itself, which is freed if it was sent to be.

        Raises:
            StopIteration: A producer closed its topic; others may go on.
            ValueError: The object is gone.
        """
        return self.next_object_with_metadata()[1]

    def next_object_with_metadata(self) -> tuple[dict[str, Any], T]:
        """As `next_object`, with what the producer says of the object."""
        item = self.next_item()
        return item.metadata, _object_of(item)

    def next_item(self, timeout: float | None = None) -> StreamItem[T]:
        """Return the next item.

        Args:
            timeout: How many seconds to wait for it, else those of the consumer.

        Raises:
            StopIteration: A producer closed its topic; others may go on.
            ChannelTimeoutError: None came in time.
        """
        step = self._step(timeout)
        if isinstance(step, End):
            raise StopIteration
        return step

    def iter_items(self) -> Generator[StreamItem[T], None, None]:
        """Return an iterator over the items until the end."""
        while True:
            try:
                item = self._next_of_iteration()
            except StopIteration:
                return
            yield item

    def iter_with_metadata(self) -> Generator[tuple[dict[str, Any], ProxyOr[T]], None, None]:
        """Return an iterator over what is said of each object, and its proxy."""
        for item in self.iter_items():
            yield item.metadata, item.value

    def iter_objects(self) -> Generator[T, None, None]:
        """Return an iterator over the objects themselves.

        Raises:
            ValueError: An object is gone.
        """
        for item in self.iter_items():
            yield _object_of(item)

    def iter_objects_with_metadata(self) -> Generator[tuple[dict[str, Any], T], None, None]:
        """Return an iterator over what is said of each object, and the object itself."""
        for item in self.iter_items():
            yield item.metadata, _object_of(item)

    def metrics(self) -> dict[str, float]:
        """Return what was counted so far, by name: events received, repeated, filtered, and so on."""
        return self._inbox.metrics()

    def metrics_text(self, name: str) -> str:
        """Return the counters in the text format of Prometheus, for the stream of a name."""
        return self._inbox.metrics_text(name)

    def _next_of_iteration(self) -> StreamItem[T]:
        while isinstance(step := self._step(), End):
            if self._is_last(step):
                raise StopIteration
        return step

    def _is_last(self, end: End) -> bool:
        """Count an end, and return whether it is that of the iteration; then counting starts over."""
        with self._lock:
            self._seen += 1
            if not end.is_last and self._seen < self._ends:
                return False
            self._seen = 0
            return True

    def _uncount(self, end: End) -> None:
        """Wait again for the end of the iteration, of which `_is_last` said that it was this."""
        with self._lock:
            self._seen = 0 if end.is_last else self._ends - 1

    def _step(self, timeout: float | None = None) -> StreamItem[T] | End:
        """Return what comes next, and acknowledge what this thread got before."""
        timeout = self._timeout if timeout is None else timeout
        before = self._handed.take()
        step = self._receive([] if before is None else [before], timeout)
        if step is None:
            raise _late()
        if isinstance(step, StreamItem) and not self._manual:
            self._handed.put(step)
        return step

    def _keep(self, work: Future[StreamItem[T] | End | None]) -> None:
        """Keep for whoever asks next what a thread received."""
        if work.exception() is None and (step := work.result()) is not None:
            self._returned.append(step)

    def _receive(
        self, before: Iterable[StreamArrival], timeout: float | None, is_slice: bool = False
    ) -> StreamItem[T] | End | None:
        for arrival in before:
            arrival.acknowledge()
        step = self._take(timeout, is_slice)
        if isinstance(step, End):
            step.acknowledge()
        return step

    def _take(self, timeout: float | None, is_slice: bool = False) -> StreamItem[T] | End | None:
        """Return what comes next, which the caller acknowledges; with `is_slice`, None after a while."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return self._returned.popleft()
            except IndexError:
                pass
            left = None if until is None else max(until - time.monotonic(), 0)
            try:
                arrival = self._inbox.next(left, _SLICE)
            except StopIteration:
                return End()  # says the subscriber
            if arrival is None:
                if is_slice or (left is not None and left <= _SLICE):
                    return None
                continue
            if arrival.is_end:
                return End(arrival)
            # What was damaged would fail as often as it comes; a class that is missing may be elsewhere.
            try:
                metadata = arrival.metadata()
            except SerializationError:
                arrival.acknowledge()
                raise
            if self._filter(metadata):
                self._inbox.pass_over(arrival)
                continue
            try:
                item: StreamItem[T] = StreamItem(arrival, metadata)
            except CorruptObjectError:
                arrival.acknowledge()
                raise
            if arrival.store_name is not None:
                self._stores.add(arrival.store_name)
            return item


class _AsyncIterator(Generic[T]):
    """Asks for the items of a consumer, for whatever tasks.

    Not each task by itself: `wait_for` and `gather` make one for each item.
    """

    def __init__(self, consumer: StreamConsumer[T]) -> None:
        self._consumer = consumer
        self._handed: list[StreamArrival] = []  # and not acknowledged yet

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ProxyOr[T]:
        while isinstance(step := await self._step(), End):
            if self._consumer._is_last(step):
                raise StopAsyncIteration
        if not self._consumer._manual:
            self._handed.append(step._arrival)
        return step.value

    async def _step(self) -> StreamItem[T] | End:
        consumer = self._consumer
        before, self._handed = self._handed, []
        until = None if consumer._timeout is None else time.monotonic() + consumer._timeout
        while True:
            left = None if until is None else max(until - time.monotonic(), 0)
            work = consumer._threads.submit(consumer._receive, before, left, is_slice=True)
            try:
                step = await asyncio.wrap_future(work)
            except (asyncio.CancelledError, GeneratorExit):
                if work.cancel():  # before it began
                    self._handed += before
                else:  # the thread itself sees to it: the loop may end before
                    work.add_done_callback(consumer._keep)
                raise
            before = []
            if step is not None:
                return step
            if until is not None and time.monotonic() >= until:
                raise _late()


def _late() -> ChannelTimeoutError:
    return ChannelTimeoutError(
        "failed to receive an event: none came in time; see whether the producers run, or wait longer"
    )


def _object_of(item: StreamItem[T]) -> T:
    try:
        return item._object()
    except ProxyResolveMissingKeyError as error:
        raise ValueError(
            f"the store returned None for an object of the topic {item.topic!r}: it was freed or "
            "evicted before. Send it with evict=False if several consumers use it, or name them to "
            "the producer (consumers=...)"
        ) from error
