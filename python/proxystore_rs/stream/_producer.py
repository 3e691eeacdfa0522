"""The end of a stream that sends objects."""

from __future__ import annotations

import atexit
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar

from proxystore_rs._core import StreamOutbox, _stored_size
from proxystore_rs.exceptions import ChannelError, ChannelTimeoutError, StoreClosedError, StoreError
from proxystore_rs.store._alarm import Alarm, call_at, cancel
from proxystore_rs.store.base import Store
from proxystore_rs.stream._ends import publisher_of_messages, publishes_events
from proxystore_rs.stream.exceptions import TopicClosedError
from proxystore_rs.stream.filters import NullFilter
from proxystore_rs.stream.protocols import Filter, Publisher
from proxystore_rs.utils._fork import start_over_after_fork

__all__ = ["StreamProducer"]

T = TypeVar("T")


_PATIENCE = 10.0
"""How many seconds a thread that flushes may still take at exit."""

_FAREWELL = 60.0
"""How many seconds closing waits for each topic, without a timeout."""

_flushing: dict[threading.Thread, StreamOutbox] = {}
"""Threads that flush: no interpreter may end while they are inside native code."""


@atexit.register
def _stop_flushing() -> None:
    for thread, outbox in list(_flushing.items()):
        outbox.stop_waiting()
        thread.join(_PATIENCE)


class _Sent(NamedTuple):
    obj: Any
    evict: bool
    metadata: dict[str, Any] | None


_NUDGE = 0.02
"""How often, in seconds, a producer that closes ends the waits of those who still send."""


class _Topic:
    """What is gathered for the next batch; its lock is held while that is sent, for the order."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.gathered: list[_Sent] = []
        self.bytes = 0
        self.alarm: Alarm | None = None
        self.closed = False
        self.ends = 0  # that were sent
        self.failure: Exception | None = None

    @contextmanager
    def held(
        self, timeout: float | None, end_waiting: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Hold the lock; with `end_waiting`, who holds it now is not to wait for anything."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while not self.lock.acquire(
            timeout=min(
                max(end - time.monotonic(), 0),
                threading.TIMEOUT_MAX if end_waiting is None else _NUDGE,
            )
        ):
            if time.monotonic() < end:
                if end_waiting is not None:
                    end_waiting()
                continue
            raise ChannelTimeoutError(
                "failed to send an object: another thread waits to send to the same topic; see "
                "whether its consumers run, or allow for more by timeout"
            )
        try:
            yield
        finally:
            self.lock.release()

    def clear(self) -> None:
        self.gathered.clear()
        self.bytes = 0
        if self.alarm is not None:
            cancel(self.alarm)
            self.alarm = None


class StreamProducer(Generic[T]):
    """Sends objects to topics: the objects through a store, and events of them through a broker.

    It may be used by many threads; the objects that one of them sends to a topic arrive in that
    order. What is gathered for a batch is sent when the producer is closed.

    Args:
        publisher: Of a broker of `proxystore_rs.stream.brokers`, or one of your own.
        aggregator: Makes one object of those of a batch; their metadata are merged. When it fails, it
            is called for each object alone, to find those to leave out.
        batch_size: How many objects are gathered before they are stored and published together.
        default_store: The store of the topics that are not among `stores`; without one, their
            objects travel inside their events.
        filter_: Drops the objects for whose metadata it returns true.
        stores: The stores of some topics; None for objects that travel inside their events.
        batch_bytes: Sends a batch as soon as its objects have so many bytes together.
        batch_age: Sends a batch so many seconds after its first object.
        inline_bytes: Objects of at most so many bytes travel inside their events; of a batch, those
            of 512 KiB together.
        consumers: The groups of subscribers that objects are kept for: the last one to be done with
            an object frees it. None for whoever is the first.
        ttl: How many seconds objects stay at most, on channels with a time to live.
        max_bytes: How many bytes of objects may wait for their consumers.
        when_full: What becomes of an object that does not fit: it waits for room, drops the oldest
            ones, or sending it raises.
        timeout: How many seconds sending may wait for room and for the broker; None for ever.

    Raises:
        TypeError: The publisher is none.
        ValueError: An argument has a value it cannot have.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        aggregator: Callable[[list[T]], T] | None = None,
        batch_size: int = 1,
        default_store: Store[Any] | None = None,
        filter_: Filter | None = None,
        stores: Mapping[str, Store[Any] | None] | None = None,
        batch_bytes: int | None = None,
        batch_age: float | None = None,
        inline_bytes: int = 16384,
        consumers: Iterable[str] = (),
        ttl: float | None = None,
        max_bytes: int | None = None,
        when_full: Literal["wait", "drop_oldest", "raise"] = "wait",
        timeout: float | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 at least, not {batch_size}")
        consumers = [consumers] if isinstance(consumers, str) else list(consumers)
        if publishes_events(publisher):
            if consumers or (max_bytes is not None and when_full == "drop_oldest"):
                raise ValueError(
                    "event classes say neither for which consumers objects are kept nor that they "
                    "may be dropped: use a publisher of messages with consumers or drop_oldest"
                )
            inline_bytes = 0  # its events are to have keys
        self.publisher = publisher
        self._outbox = StreamOutbox(
            publisher_of_messages(publisher),
            inline_bytes=inline_bytes,
            consumers=consumers,
            ttl=ttl,
            max_bytes=max_bytes,
            when_full=when_full,
            timeout=timeout,
        )
        self._timeout = timeout
        self._farewell = _FAREWELL if timeout is None else timeout
        self._aggregator = aggregator
        self._batch_size = batch_size
        self._batch_bytes = batch_bytes
        self._batch_age = batch_age
        self._default_store = default_store
        self._filter: Filter = NullFilter() if filter_ is None else filter_
        self._stores = dict(stores or {})
        self._topics: dict[str, _Topic] = {}
        self._closed = False  # set before what is gathered is sent for the last time
        start_over_after_fork(self)

    def _after_fork(self) -> None:
        # What was gathered is the parent's to send.
        closed = [name for name, topic in self._topics.items() if topic.closed]
        self._topics = {name: _Topic() for name in closed}
        for topic in self._topics.values():
            topic.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def send(
        self,
        topic: str,
        obj: T,
        *,
        evict: bool = True,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Send an object to a topic.

        Args:
            topic: The topic.
            obj: The object.
            evict: Consumers free it when they are done with it. Without, it stays until somebody
                evicts it, or its time to live passes.
            metadata: What consumers learn of it before they fetch it.

        What raises is not sent, but where the objects gathered before are to blame: of a batch, those
        that cannot be sent are left out, such as those that cannot be pickled, and the others are sent.

        Raises:
            TopicClosedError: The topic was closed.
            StoreClosedError: The producer was closed.
            SerializationError: Some object of the batch cannot be encoded.
            ChannelFullError: There is no room, with `when_full="raise"`.
            ChannelTimeoutError: There was none in time.
        """
        metadata = {} if metadata is None else dict(metadata)
        found = self._topic(topic)
        with found.held(self._timeout):
            if found.closed:
                raise TopicClosedError(
                    f"failed to send an object: the topic {topic!r} was closed; send before "
                    "close_topics, or to another topic"
                )
            self._require_open()
            _raise_late(found)
            if self._filter(metadata):
                self._outbox.count_filtered()
                return
            size = 0
            if self._batch_bytes is not None:
                size = _stored_size(self._store(topic), obj, metadata)
            sent = _Sent(obj, evict, metadata)
            found.gathered.append(sent)
            found.bytes += size
            if len(found.gathered) >= self._batch_size or (
                self._batch_bytes is not None and found.bytes >= self._batch_bytes
            ):
                try:
                    self._flush(topic, found)
                except BaseException:
                    if found.gathered and found.gathered[-1] is sent:  # the others still wait
                        found.gathered.pop()
                        found.bytes -= size
                    raise
            elif self._batch_age is not None and found.alarm is None:
                when = time.monotonic() + self._batch_age
                found.alarm = call_at(when, lambda: self._start_flushing(topic, found))

    def flush_topic(self, topic: str) -> None:
        """Send what is gathered for a topic; what the broker or the store fails with is gathered still."""
        self._flush_topic(topic, self._timeout)

    def flush(self) -> None:
        """Send what is gathered for all topics, and wait until the broker has it."""
        for topic in list(self._topics):
            self.flush_topic(topic)
        self._outbox.flush()

    def close_topics(self, *topics: str, ends: int = 1) -> None:
        """Send what is gathered for topics, and their ends; nothing can be sent there any more.

        Args:
            topics: The topics.
            ends: How many ends to send, one for each consumer of those that share the events of a
                topic. Calling it again sends what is missing.

        Raises:
            StoreClosedError: The producer was closed before.
        """
        all_of_them = _All()
        for topic in topics:
            all_of_them.call(self._close_topic, topic, ends)
        if topics:
            all_of_them.call(self._outbox.flush)
        all_of_them.done()

    def close(
        self,
        *,
        topics: Iterable[str] = (),
        publisher: bool = True,
        stores: bool = False,
    ) -> None:
        """Send what is gathered, and close the publisher. Waiting for room in other threads ends.

        All is tried, and the first error raised at the end: what could not be sent then is lost. After
        the publisher was closed, only stores are.

        Args:
            topics: Topics to close before.
            publisher: Close the publisher.
            stores: Close the stores too.

        Raises:
            StoreClosedError: It was closed before, and not all of the topics.
        """
        was_open = not self._closed
        publisher = publisher and was_open
        if publisher:
            self._closed = True
            self._outbox.stop_waiting()
        all_of_them = _All()
        try:
            for topic in topics:
                all_of_them.call(self._close_topic, topic, is_final=publisher)
            if was_open:
                for topic in list(self._topics):
                    all_of_them.call(self._flush_topic, topic, self._farewell, is_final=publisher)
                all_of_them.call(self._outbox.flush, self._farewell)
        finally:
            if publisher:
                all_of_them.call(self._outbox.close)
            if stores:
                for store in {
                    id(s): s for s in (self._default_store, *self._stores.values())
                }.values():
                    if store is not None:
                        all_of_them.call(store.close)
        all_of_them.done()

    def metrics(self) -> dict[str, float]:
        """Return what was counted so far, by name: events sent, bytes stored, and so on."""
        return self._outbox.metrics()

    def metrics_text(self, name: str) -> str:
        """Return the counters in the text format of Prometheus, for the stream of a name."""
        return self._outbox.metrics_text(name)

    def _require_open(self) -> None:
        if self._closed:
            raise StoreClosedError(
                "failed to publish a message: the producer was closed; close it when nothing is sent "
                "any more"
            )

    def _topic(self, topic: str) -> _Topic:
        found = self._topics.get(topic)
        return found if found is not None else self._topics.setdefault(topic, _Topic())

    def _store(self, topic: str) -> Store[Any] | None:
        return self._stores.get(topic, self._default_store)

    def _flush(
        self, topic: str, found: _Topic, *, end: bool = False, timeout: float | None = None
    ) -> None:
        """Send what is gathered, and raise why some of it is left out; the caller holds the lock."""
        try:
            self._publish(topic, found, end, timeout)
        except (ChannelError, StoreError):  # no object's fault
            raise
        except Exception:
            number = len(found.gathered)
            failure = self._leave_out(topic, found)
            if failure is None:
                raise
            self._publish(topic, found, end, timeout)
            if number > 1:
                failure.add_note(
                    f"of the {number} objects gathered for the topic {topic!r} those are left out "
                    "that cannot be sent; the others were sent"
                )
            raise failure from failure.__cause__

    def _publish(self, topic: str, found: _Topic, end: bool, timeout: float | None) -> None:
        if found.gathered:
            batch = self._aggregated(found.gathered)
            self._outbox.send(topic, self._store(topic), batch, False, timeout)
            found.clear()
            found.failure = None  # what failed before was among it
        if end:  # by itself: with objects that come again, it would, and be counted again
            self._outbox.send(topic, None, [], True, timeout)
            found.closed = True
            found.ends += 1

    def _leave_out(self, topic: str, found: _Topic) -> Exception | None:
        """Drop what could not even be sent alone, and return the first reason."""
        good: list[_Sent] = []
        failure = None
        for one in found.gathered:
            try:
                for sent in self._aggregated([one]):
                    _stored_size(self._store(topic), sent.obj, sent.metadata)
                good.append(one)
            except Exception as error:
                failure = failure or error
        found.gathered = good
        return failure

    def _flush_topic(self, topic: str, timeout: float | None, *, is_final: bool = False) -> None:
        found = self._topic(topic)
        with found.held(timeout, self._outbox.stop_waiting if is_final else None):
            self._flush(topic, found, timeout=timeout)
            _raise_late(found)

    def _close_topic(self, topic: str, ends: int = 1, *, is_final: bool = False) -> None:
        """Send what is gathered and the ends; what cannot be sent is dropped if this `is_final`."""
        found = self._topic(topic)
        timeout = self._farewell if is_final else self._timeout
        with found.held(timeout, self._outbox.stop_waiting if is_final else None):
            try:
                if not found.closed:
                    if not is_final:
                        self._require_open()
                    self._flush(topic, found, end=True, timeout=timeout)
            except Exception:
                if is_final and found.gathered:  # consumers need not wait for ever
                    found.clear()
                    found.closed = True
                    with suppress(Exception):  # the first error is the one to report
                        self._flush(topic, found, end=True, timeout=timeout)
                raise
            finally:
                if found.closed:
                    while found.ends < ends:
                        self._outbox.send(topic, None, [], True)
                        found.ends += 1

    def _aggregated(self, batch: list[_Sent]) -> list[_Sent]:
        if self._aggregator is None:
            return batch
        metadata: dict[str, Any] = {}
        for one in batch:
            metadata |= one.metadata or {}
        obj = self._aggregator([one.obj for one in batch])
        return [_Sent(obj, any(one.evict for one in batch), metadata)]

    def _start_flushing(self, topic: str, found: _Topic) -> None:
        # It may wait for room, and other alarms of the process shall not wait with it.
        name = "proxystore-stream-flush"
        thread = threading.Thread(
            target=self._flush_aged, args=(topic, found), name=name, daemon=True
        )
        _flushing[thread] = self._outbox
        thread.start()

    def _flush_aged(self, topic: str, found: _Topic) -> None:
        with found.lock:
            found.alarm = None
            try:
                self._flush(topic, found)
            except Exception as error:  # for the next call of the user's
                found.failure = error
        _flushing.pop(threading.current_thread(), None)


class _All:
    """Calls of which each is made, whatever becomes of the others."""

    def __init__(self) -> None:
        self._error: Exception | None = None

    def call(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except Exception as error:
            self._error = self._error or error

    def done(self) -> None:
        """Raise the first error."""
        if self._error is not None:
            raise self._error


def _raise_late(topic: _Topic) -> None:
    failure, topic.failure = topic.failure, None
    if failure is not None:
        raise failure
