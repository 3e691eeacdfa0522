"""A counter for threads."""

from __future__ import annotations

import threading

__all__ = ["AtomicCounter"]


class AtomicCounter:
    """Counts from 0, once for each call from whatever thread.

    >>> counter = AtomicCounter()
    >>> counter.increment(), counter.increment()
    (0, 1)

    Args:
        size: How many values there are; None for no end.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = size
        self._next = 0
        self._lock = threading.Lock()

    def increment(self) -> int:
        """Return the current value, and go to the next.

        Raises:
            ValueError: When all values were handed out.
        """
        with self._lock:
            value = self._next
            if self._size is not None and value >= self._size:
                raise ValueError(f"Max counter size exceeded ({self._size}).")
            self._next = value + 1
            return value
