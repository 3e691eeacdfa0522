"""A stopwatch."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

__all__ = ["Timer"]


class Timer:
    """Measures the time between `start` and `stop`, or the time of a `with` block.

    >>> with Timer() as timer:
    ...     total = sum(range(1000))
    >>> timer.elapsed_ms > 0
    True
    """

    def __init__(self) -> None:
        self._start = 0
        self._end = 0
        self._running = False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def elapsed_ns(self) -> int:
        """Time in nanoseconds; RuntimeError while the timer runs."""
        if self._running:
            raise RuntimeError("Timer is still running! Call stop() first.")
        return self._end - self._start

    @property
    def elapsed_ms(self) -> float:
        """Time in milliseconds; RuntimeError while the timer runs."""
        return self.elapsed_ns / 1e6

    @property
    def elapsed_s(self) -> float:
        """Time in seconds; RuntimeError while the timer runs."""
        return self.elapsed_ns / 1e9

    def start(self) -> Self:
        """Start, anew if it was started before."""
        self._running = True
        self._start = time.perf_counter_ns()
        return self

    def stop(self) -> Self:
        """Stop; nothing happens when the timer does not run."""
        if self._running:
            self._end = time.perf_counter_ns()
            self._running = False
        return self
