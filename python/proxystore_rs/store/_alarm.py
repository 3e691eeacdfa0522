"""Functions that are called at given times, on one daemon thread of the process.

The thread ends when there is nothing left to wait for. It keeps no interpreter alive, and none ends
while it is inside native code: at exit it is told to stop, and is waited for.
"""

from __future__ import annotations

import atexit
import heapq
import logging
import threading
import time
from collections.abc import Callable

from proxystore_rs.utils._fork import start_over_after_fork

logger = logging.getLogger(__name__)

_PATIENCE = 10.0
"""How many seconds a call may still take at exit."""


class Alarm:
    """A call that will be made.

    Args:
        when: When to call, by `time.monotonic`.
        function: What to call. Its exceptions are logged.
    """

    __slots__ = ("function", "when")

    def __init__(self, when: float, function: Callable[[], object]) -> None:
        self.when = when
        self.function: Callable[[], object] | None = function

    def __lt__(self, other: Alarm) -> bool:
        return self.when < other.when


class _Clock:
    def __init__(self) -> None:
        self._after_fork()
        start_over_after_fork(self)
        atexit.register(self._stop)

    def _after_fork(self) -> None:
        # The thread, and what it has to do, stay with the parent.
        self._changed = threading.Condition(threading.Lock())
        self._alarms: list[Alarm] = []
        self._cancelled = 0
        self._thread: threading.Thread | None = None
        self._stopped = False

    def set(self, when: float, function: Callable[[], object]) -> Alarm:
        alarm = Alarm(when, function)
        with self._changed:
            if self._stopped:
                return alarm  # the process ends sooner than any lease
            heapq.heappush(self._alarms, alarm)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="proxystore-alarms", daemon=True)
                thread.start()
                self._thread = thread
            elif self._alarms[0] is alarm:
                self._changed.notify()
        return alarm

    def cancel(self, alarm: Alarm) -> None:
        with self._changed:
            if alarm.function is None:
                return
            alarm.function = None
            self._cancelled += 1
            if self._cancelled > len(self._alarms) // 2:
                self._alarms = [alarm for alarm in self._alarms if alarm.function is not None]
                heapq.heapify(self._alarms)
                self._cancelled = 0
                self._changed.notify()

    def _run(self) -> None:
        while (function := self._next()) is not None:
            try:
                function()
            except Exception:
                logger.debug("a lifetime could not be ended in time", exc_info=True)
            del function  # and with it what it holds

    def _next(self) -> Callable[[], object] | None:
        # Waits for the next call to make; None when there is none.
        with self._changed:
            while self._alarms:
                left = self._alarms[0].when - time.monotonic()
                if left > 0:
                    self._changed.wait(min(left, threading.TIMEOUT_MAX))
                    continue
                alarm = heapq.heappop(self._alarms)
                function, alarm.function = alarm.function, None
                if function is not None:
                    return function
                self._cancelled -= 1
            self._thread = None
            return None

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._alarms.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE)


_clock = _Clock()


def call_at(when: float, function: Callable[[], object]) -> Alarm:
    """Call a function, without arguments, at this time of `time.monotonic` or soon after."""
    return _clock.set(when, function)


def cancel(alarm: Alarm) -> None:
    """Let a call not be made, unless it has begun; cancelling again is fine."""
    _clock.cancel(alarm)
