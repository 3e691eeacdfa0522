"""Hands the items of a stream to an executor, a task each; their objects do not come by here.

>>> from concurrent.futures import ThreadPoolExecutor
>>> from proxystore_rs.store import open_store
>>> from proxystore_rs.stream import StreamConsumer, StreamProducer
>>> from proxystore_rs.stream.brokers import open_broker
>>> broker, store = open_broker('memory://dispatch'), open_store('memory://dispatch')
>>> with StreamProducer(broker.publisher(), default_store=store) as producer:
...     for size in (10_000, 20_000, 30_000):
...         producer.send('frames', bytes(size))
...     producer.close_topics('frames')
>>> consumer = StreamConsumer(broker.subscriber('frames'), acknowledge='manual')
>>> with ThreadPoolExecutor() as pool, consumer:
...     sorted(Dispatcher(consumer, pool, len, max_in_flight=16))
[10000, 20000, 30000]
>>> store.close()

What passes through the dispatching process is a reference per item, and what the function returns.
Workers fetch the objects from the store, each while its function starts.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from proxystore_rs.exceptions import ChannelError
from proxystore_rs.stream._consumer import End
from proxystore_rs.stream._item import StreamItem
from proxystore_rs.stream._progress import Line
from proxystore_rs.stream._tasks import Sender, cancel

if TYPE_CHECKING:
    from proxystore_rs.stream import StreamConsumer, StreamProducer

__all__ = ["Counts", "DeadLetters", "Dispatcher"]

R = TypeVar("R")

logger = logging.getLogger(__name__)

_LOOK = 0.1  # seconds between looks at whether to stop, while no item comes
_PATIENCE = 60.0  # seconds until a broker that cannot be reached is given up


@dataclass
class Counts:
    """What became of the items of a stream."""

    items: int = 0
    """Taken from the stream."""
    done: int = 0
    """Whose function returned."""
    skipped: int = 0
    """Whose function failed, and that were acknowledged all the same; so are those whose objects are
    gone since another consumer was done with them."""
    given_up: int = 0
    """Not acknowledged: they come again."""
    retries: int = 0
    """Tasks that were sent again because they failed."""

    @property
    def in_flight(self) -> int:
        """Items whose tasks are not over."""
        return self.items - self.done - self.skipped - self.given_up


@dataclass(eq=False, slots=True)
class _Flight:
    """An item whose task is not over."""

    item: StreamItem[Any]
    tries: int = 0
    future: Any = None
    due: float = math.inf
    repeats: list[StreamItem[Any]] = field(default_factory=list)
    """The item again, where its broker was tired of waiting."""


class Dispatcher(Generic[R]):
    """Sends a task per item of a stream, and receives their results as they come.

    An item is acknowledged when its result was received and dealt with, and its object is freed
    then. Where the broker delivers at least once, nothing is lost if a worker or the dispatcher
    dies: its items are delivered again, to this or another dispatcher of the group, once the
    consumer is closed or `redeliver_after` is over. That should be longer than a task takes with
    its waiting: what comes again here while its task lasts is known by its object in the store, and
    is no other task; elsewhere, and with objects inside events or sent with `evict=False`, it is done
    twice. Where the broker delivers at most once, items that are given up go back to the consumer:
    another dispatcher on it takes them first, and closing it frees their objects.

    Args:
        consumer: Where items come from; made with `acknowledge="manual"`. A subscriber of your own
            should have `next_message_within(seconds)`: without, stopping, errors, and the end of the
            program wait for its next message.
        executor: Runs the tasks: a pool of `concurrent.futures`, a `StoreExecutor`, a Dask
            `Client`, a `ParslPoolExecutor`, a `RayExecutor`, or anything with a `submit` that
            returns futures with `add_done_callback`. It stays open.
        function: Called in a worker with the proxy of an item's object, or with the object where
            the topic has no store. What it returns of its argument is returned by value.
        max_in_flight: How many items may be under way, which bounds what the store has to keep for
            them; about twice the number of workers keeps all busy. By default it is twice the
            number of this machine's cores.
        prefetch: Begin to fetch the object when the task begins, and not when it is first used.
        metadata: Call the function with the item's metadata as its second argument.
        on_result: Called here with the item and the result, before the item is acknowledged.
        on_error: What becomes of an item whose function fails. `"raise"` lets the other tasks that
            run end, and raises the error; tasks that wait are cancelled in a pool of
            `concurrent.futures`, and end too elsewhere. `"skip"` logs it; a function is called with
            the item and the error, see `DeadLetters`. The last two acknowledge the item.
        retries: How often a task that fails is sent again before `on_error`.
        timeout: Seconds without an item after which a `TimeoutError` is raised; by default those of
            the consumer.
        task_timeout: Seconds after which a task counts as failed, its waiting included. It cannot
            be interrupted, and occupies its worker while it lasts.
        progress: Show a line with counts and rates on a terminal.

    Of several ends of topics, the last one is acknowledged when all is done, and the others when they
    come: another dispatcher that goes on after a failure needs those that are left.

    A dispatcher runs once, by `run` or as an iterator. A pool that breaks because a worker was
    killed, and a task that somebody else cancelled, are always raised: the item is not to blame.

    Raises:
        ValueError: For a consumer that acknowledges by itself, or a bound below 1.
    """

    def __init__(
        self,
        consumer: StreamConsumer[Any],
        executor: Any,
        function: Callable[..., R],
        *,
        max_in_flight: int | None = None,
        prefetch: bool = True,
        metadata: bool = False,
        on_result: Callable[[StreamItem[Any], R], object] | None = None,
        on_error: Literal["raise", "skip"]
        | Callable[[StreamItem[Any], Exception], object] = "raise",
        retries: int = 0,
        timeout: float | None = None,
        task_timeout: float | None = None,
        progress: bool = False,
    ) -> None:
        if max_in_flight is None:
            max_in_flight = 2 * (os.cpu_count() or 1)
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be 1 or more, and is {max_in_flight}")
        if not consumer._manual:
            raise ValueError(
                "the consumer acknowledges an item when the next one is taken, which is before its "
                'task is done; make it by StreamConsumer(subscriber, acknowledge="manual")'
            )
        self.consumer = consumer
        self.max_in_flight = max_in_flight
        self.on_result, self.on_error = on_result, on_error
        self.retries, self.task_timeout = retries, task_timeout
        self.timeout = consumer._timeout if timeout is None else timeout
        self._sender = Sender(executor, function, prefetch, metadata)
        self._line = Line() if progress else None
        self._counts = Counts()
        # Of both threads: the one that takes items, and that of the caller, which receives.
        self._changed = threading.Condition()
        self._flights: dict[_Flight, None] = {}  # those that are due first come first
        self._is_feeding = True
        self._is_stopping = False
        self._error: BaseException | None = None
        # Of a flight, its number of tries, and the future; nothing when there will be no more items.
        self._arrived: SimpleQueue[tuple[_Flight, int, Any] | None] = SimpleQueue()
        self._feeder: threading.Thread | None = None
        self._has_begun = False
        self._end: End | None = None  # the last one
        self._given_up: list[StreamItem[Any]] = []  # what no broker delivers again

    def __repr__(self) -> str:
        return f"Dispatcher({self.consumer!r}, {self._sender!r}, {self.counts})"

    @property
    def counts(self) -> Counts:
        """What became of the items so far; any thread may ask."""
        with self._changed:
            return replace(self._counts)

    def stop(self) -> None:
        """Take no more items. The tasks in flight are finished, then `run` returns.

        Any thread may call it, and signal handlers.
        """
        self._is_stopping = True
        self._arrived.put(None)

    def run(self) -> Counts:
        """Dispatch until the end of the stream, and return what became of the items.

        Raises:
            Exception: What a function failed with, if `on_error` says so; what the consumer, the
                executor, or a callback fails with.
            TimeoutError: When no item comes in time.
        """
        for _ in self:
            pass
        return self.counts

    def __iter__(self) -> Iterator[R]:
        """Dispatch, and yield results as they come, in whatever order tasks are done.

        An item is acknowledged when the next result is asked for. Errors are those of `run`.
        """
        with self._changed:
            if self._has_begun:
                raise RuntimeError("a dispatcher runs once; make another one")
            self._has_begun = True
        return self._results()

    def _results(self) -> Generator[R, None, None]:
        atexit.register(self._leave)
        try:
            # The first item is sent before there is a second thread: pools fork at their first task.
            if self._feed_one():
                self._feeder = threading.Thread(target=self._feed, name="dispatcher", daemon=True)
                self._feeder.start()
            while (arrival := self._next_arrival()) is not None:
                flight, future = arrival
                error, result = _outcome(future)
                if error is not None:
                    self._failed(flight, error)
                    continue
                if self.on_result is not None:
                    self.on_result(flight.item, result)
                yield result
                self._over(flight, "done")
                del arrival, flight, future, result  # not kept while the next one takes its time
            # Not before, and not after an error: whoever does the other items needs an end.
            if self._error is None and self._end is not None:
                self._end.acknowledge()
                self.consumer._is_last(self._end)
                self._end = None
        finally:
            self._leave()
        if self._error is not None:
            raise self._error

    # The thread that takes items.

    def _feed(self) -> None:
        while self._feed_one():
            pass

    def _feed_one(self) -> bool:
        """Send a task for the next item; return whether there may be more."""
        try:
            with self._changed:
                self._changed.wait_for(self._may_go_on)
            item = self._next_item()
            if item is not None:
                if not self._joins(item):
                    with self._changed:
                        self._counts.items += 1
                    self._send(_Flight(item))
                return True
        except Exception as error:
            self._give_up(error)
        self._is_feeding = False
        self._arrived.put(None)
        return False

    def _may_go_on(self) -> bool:
        return self._is_stopping or len(self._flights) < self.max_in_flight

    def _next_item(self) -> StreamItem[Any] | None:
        """Return the next item; nothing at the end of the stream, or if it is time to stop."""
        end = math.inf if self.timeout is None else time.monotonic() + self.timeout
        lost = math.inf  # since when the broker cannot be reached
        while not self._is_stopping:
            left = end - time.monotonic()
            try:
                step = self.consumer._take(max(0, min(_LOOK, left)))
            except ChannelError:  # it may come back
                lost = min(lost, time.monotonic())
                if time.monotonic() >= min(end, lost + _PATIENCE):
                    raise
                time.sleep(_LOOK)
                continue
            lost = math.inf
            if isinstance(step, StreamItem):
                step._hold()
                return step
            if step is not None:
                if self.consumer._is_last(step):
                    self.consumer._uncount(step)  # until all is done
                    self._end = step
                    return None
                step.acknowledge()  # else it comes again, and counts twice
            elif left <= _LOOK:
                raise TimeoutError(
                    f"no item came within {self.timeout} s; see whether the producers run, or wait "
                    "longer"
                )
        return None

    def _joins(self, item: StreamItem[Any]) -> bool:
        """Leave an item that was delivered again to the task of it that is under way."""
        if item.attempts > 1:
            with self._changed:
                for flight in self._flights:
                    if item._arrival.repeats(flight.item._arrival):
                        flight.repeats.append(item)
                        return True
        return False

    # Both threads.

    def _send(self, flight: _Flight) -> None:
        """Send the task of an item, which is in flight from then on."""
        flight.tries += 1
        flight.item.tries = flight.tries
        if self.task_timeout is not None:
            flight.due = time.monotonic() + self.task_timeout
        with self._changed:
            self._flights.pop(flight, None)
            self._flights[flight] = None
        number = flight.tries
        try:
            flight.future = self._sender.send(flight.item)
        except Exception:
            if flight in self._flights:  # it may be overdue by now
                self._over(flight, "given_up")
            raise
        flight.future.add_done_callback(lambda done: self._arrived.put((flight, number, done)))

    def _over(self, flight: _Flight, count: str) -> None:
        """Forget a flight, and acknowledge its item unless it was given up."""
        flight.future = None
        if count != "given_up":
            flight.item.acknowledge()
        elif not self.consumer._inbox.delivers_again:
            self._given_up.append(flight.item)
        with self._changed:
            del self._flights[flight]
            setattr(self._counts, count, getattr(self._counts, count) + 1)
            self._changed.notify_all()
        if count != "given_up":
            for item in flight.repeats:
                item.acknowledge()
        del flight.item, flight.repeats  # engines keep what their futures call, and so the flight

    def _give_up(self, error: BaseException) -> None:
        """Stop because of an error, which is raised when what runs is over."""
        with self._changed:
            if self._error is not None:
                return
            self._error = error
            self._is_stopping = True
            self._changed.notify_all()
            flights = list(self._flights)
        self._sender.call_back(flight.future for flight in flights)

    # The caller's thread.

    def _next_arrival(self) -> tuple[_Flight, Any] | None:
        """Wait for any task, and return it; nothing when all are over and no more will come."""
        while True:
            if self._line is not None:
                self._line.show(self.counts)
            with self._changed:
                self._changed.notify_all()  # `stop` does not: it may be called by a signal handler
                if not self._is_feeding and not self._flights:
                    return None
                oldest = next(iter(self._flights), None)
            due = math.inf if oldest is None else oldest.due
            wait = min(due - time.monotonic(), math.inf if self._line is None else self._line.every)
            try:
                arrival = self._arrived.get(timeout=None if wait == math.inf else max(0, wait))
            except Empty:
                if oldest is not None and time.monotonic() >= due:
                    self._overdue(oldest)
                continue
            if arrival is not None:
                flight, number, future = arrival
                # It may be late, and counted as failed meanwhile.
                if flight in self._flights and number == flight.tries:
                    return flight, future

    def _overdue(self, flight: _Flight) -> None:
        cancel([flight.future])
        self._failed(
            flight,
            TimeoutError(
                f"the task took longer than {self.task_timeout} s, its waiting included; allow for "
                "more by task_timeout, or let less wait by max_in_flight"
            ),
        )

    def _failed(self, flight: _Flight, error: BaseException) -> None:
        """Try the task of an item again, or do what is to be done of one that fails."""
        is_nobodys = isinstance(error, (BrokenExecutor, CancelledError))
        if self._error is not None or is_nobodys or not isinstance(error, Exception):
            self._over(flight, "given_up")
            self._give_up(error)
        elif flight.item._arrival.is_done():
            self._over(flight, "skipped")
        elif flight.tries <= self.retries:
            with self._changed:
                self._counts.retries += 1
            try:
                self._send(flight)
            except Exception as failure:
                self._give_up(failure)
        elif self.on_error == "raise":
            self._over(flight, "given_up")
            self._give_up(error)
        else:
            if callable(self.on_error):
                self.on_error(flight.item, error)
            else:
                logger.warning(
                    "the task of an item of %r failed", flight.item.topic, exc_info=error
                )
            self._over(flight, "skipped")

    def _leave(self) -> None:
        """Let no thread and no waiting task stay behind, and nothing be lost."""
        atexit.unregister(self._leave)
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._feeder not in (None, threading.current_thread()):
            self._feeder.join()
        with self._changed:
            flights = list(self._flights)
        cancel(flight.future for flight in flights)
        for flight in flights:
            self._over(flight, "given_up")
        if not self.consumer._inbox.delivers_again:
            self.consumer._returned.extend(self._given_up)
            self._given_up.clear()
            if self._end is not None:
                self.consumer._returned.append(self._end)
                self._end = None
        if self._line is not None:
            self._line.end(self.counts)


def _outcome(future: Any) -> tuple[BaseException | None, Any]:
    """Return what a task failed with, or its result."""
    if future.cancelled():
        return CancelledError("the task of an item was cancelled"), None
    try:
        error = future.exception()
        return error, None if error is not None else Sender.receive(future)
    except Exception as failure:  # the result is there and cannot be read
        return failure, None


class DeadLetters:
    """An `on_error` that sends the items whose functions fail to another topic.

    The object stays where it is: what is sent is its proxy, whose user frees it. The metadata are
    the item's, with `topic`, `error`, `attempts` (how often the item was delivered) and `tries` (how
    many tasks were made of it this time) added.

    Args:
        producer: Sends to the topic. It stays open.
        topic: Where to.
    """

    def __init__(self, producer: StreamProducer[Any], topic: str) -> None:
        self.producer, self.topic = producer, topic

    def __call__(self, item: StreamItem[Any], error: BaseException) -> None:
        """Send the item; it is with the broker when this returns."""
        about = {"topic": item.topic, "error": repr(error)}
        counts = {"attempts": item.attempts, "tries": item.tries}
        self.producer.send(self.topic, item.value, metadata={**item.metadata, **about, **counts})
        self.producer.flush()
