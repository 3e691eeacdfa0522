"""What the submitting side keeps of a task: its future, and what to free when it is over."""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["Call", "Ledger", "StoreFuture"]

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Ledger:
    """The calls of an executor that are not over, and the store whose objects they use."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self._lock = threading.RLock()  # used as it is where nobody is told: that is quicker
        self._ended = threading.Condition(self._lock)
        self._pending: set[Call] = set()
        self._at_end: Callable[[], None] | None = None
        # A worker may fill the key of a task that was given up, after it was evicted.
        self._doubtful: collections.deque[Any] = collections.deque(maxlen=100_000)

    def add(self, call: Call) -> None:
        """Note that a call has begun."""
        with self._lock:
            self._pending.add(call)

    def remove(self, call: Call) -> None:
        """Note that a call is over."""
        end = None
        with self._lock:
            self._pending.discard(call)
            if not self._pending:
                end, self._at_end = self._at_end, None
                self._ended.notify_all()
        if end is not None:
            end()

    def pending(self) -> list[Call]:
        """Return the calls that are not over."""
        with self._lock:
            return list(self._pending)

    def wait(self) -> None:
        """Wait until all calls are over."""
        with self._lock:
            self._ended.wait_for(lambda: not self._pending)

    def at_end(self, end: Callable[[], None]) -> None:
        """Call a function once all calls are over."""
        with self._lock:
            if self._pending:
                self._at_end = end
                return
        end()

    def evict(self, key: Any, *, doubtful: bool = False) -> None:
        """Evict an object; a failure to do so must not hide the result of a task."""
        if doubtful:
            self._doubtful.append(key)
        try:
            self.store.evict(key)
        except Exception:
            logger.warning("could not evict %s of store %r", key, self.store.name, exc_info=True)

    def sweep(self) -> None:
        """Evict again what workers may have put meanwhile."""
        while self._doubtful:
            self.evict(self._doubtful.popleft())


class Call:
    """A call: keys of its inputs and its results, carriers of its inputs, futures it needs."""

    def __init__(self, ledger: Ledger) -> None:
        self.inputs: list[Any] = []
        self.results: list[Any] = []
        self.carriers: dict[int, Any] = {}
        self.holds: list[Any] = []
        self.cancel: Callable[[], Any] | None = None
        self._ledger = ledger
        self._lock = threading.Lock()
        self._over = self._unwanted = False
        ledger.add(self)

    def finish(self, failed: bool) -> None:
        """Free the inputs, and the result of a call that failed or that nobody waits for."""
        with self._lock:
            if self._over:
                return
            self._over = True
            unwanted = self._unwanted or failed
        for key in self.inputs:
            self._ledger.evict(key)
        if unwanted:
            self._evict_results(doubtful=failed)
        self.carriers.clear()
        self.holds.clear()
        self.cancel = None
        self._ledger.remove(self)

    def abandon(self) -> None:
        """Evict the result, now or when it comes: its future was dropped."""
        with self._lock:
            self._unwanted = True
            over = self._over
        if over:
            self._evict_results(doubtful=False)

    def _evict_results(self, doubtful: bool) -> None:
        for key in self.results:
            self._ledger.evict(key, doubtful=doubtful)


class StoreFuture(Future[T]):
    """The future of a task, chained to that of the engine."""

    def __init__(self, inner: Any, call: Call, receive: Callable[[Any], T]) -> None:
        super().__init__()
        self._inner = inner
        call.cancel = self.cancel
        inner.add_done_callback(_Arrival(self, call, receive))

    def _engine_future(self) -> Any:
        return self._inner

    def cancel(self) -> bool:
        """Cancel the task unless it runs already; engines that cannot cancel say no."""
        try:
            return bool(self._inner.cancel())
        except NotImplementedError:
            return False

    def running(self) -> bool:
        """Return whether the task runs now."""
        return not self.done() and bool(self._inner.running())


class _Arrival:
    """Passes the end of the inner future on, and forgets the outer one, which owns the result."""

    __slots__ = ("call", "outer", "receive")

    def __init__(self, outer: StoreFuture[Any], call: Call, receive: Callable[[Any], Any]) -> None:
        self.outer: StoreFuture[Any] | None = outer
        self.call, self.receive = call, receive

    def __call__(self, inner: Any) -> None:
        outer, self.outer = self.outer, None
        if outer is None:
            return
        cancelled = inner.cancelled()
        error = None if cancelled else inner.exception()
        self.call.finish(failed=cancelled or error is not None)
        if cancelled:
            Future.cancel(outer)
            outer.set_running_or_notify_cancel()
        elif error is not None:
            outer.set_exception(error)
        else:
            try:
                outer.set_result(self.receive(inner.result()))
            except BaseException as failure:
                outer.set_exception(failure)
