"""Streams over queues of the standard library: between threads, or between processes.

>>> import queue
>>> frames = queue.Queue()
>>> QueuePublisher({'frames': frames}).send_message('frames', b'hello')
>>> QueueSubscriber(frames).next_message()
b'hello'
"""

from __future__ import annotations

import multiprocessing.queues
import queue
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self, TypeAlias

__all__ = ["QueuePublisher", "QueueSubscriber"]

if TYPE_CHECKING:
    _Queue: TypeAlias = multiprocessing.queues.Queue[bytes] | queue.Queue[bytes]


class QueuePublisher:
    """Publishes to queues.

    Args:
        queues: The queue of each topic.
        block: Wait for room in a queue that is full; otherwise `queue.Full` is raised.
        timeout: How many seconds to wait at most.
    """

    def __init__(
        self,
        queues: Mapping[str, _Queue],
        *,
        block: bool = True,
        timeout: float | None = None,
    ) -> None:
        self._queues = dict(queues)
        self._block = block
        self._timeout = timeout

    def close(self) -> None:
        """Close the queues that can be closed: those between processes."""
        for one in self._queues.values():
            if isinstance(one, multiprocessing.queues.Queue):
                one.close()

    def send_message(self, topic: str, message: bytes) -> None:
        """Put a message into the queue of a topic.

        Raises:
            ValueError: The topic has no queue.
        """
        if topic not in self._queues:
            raise ValueError(
                f"the topic {topic!r} has no queue; there are {', '.join(sorted(self._queues))}"
            )
        self._queues[topic].put(message, block=self._block, timeout=self._timeout)


class QueueSubscriber:
    """Receives from a queue, until that is closed.

    Args:
        queue: The queue.
        block: Wait for a message; otherwise `queue.Empty` is raised where there is none.
        timeout: How many seconds to wait at most.
    """

    def __init__(
        self,
        queue: _Queue,
        *,
        block: bool = True,
        timeout: float | None = None,
    ) -> None:
        self._queue = queue
        self._block = block
        self._seconds = timeout
        self._until: float | None = None
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        return self.next_message()

    def close(self) -> None:
        """Close the queue, if it can be closed: one between processes."""
        self._closed = True
        if isinstance(self._queue, multiprocessing.queues.Queue):
            self._queue.close()

    def next_message(self) -> bytes:
        """Return the next message.

        Raises:
            StopIteration: The queue is closed.
            queue.Empty: None came in time.
        """
        return self._get(self._block, self._seconds)

    def next_message_within(self, seconds: float) -> bytes | None:
        """Return the next message, or None if none came in so many seconds."""
        if not self._block or self._closed:
            return self.next_message()
        now = time.monotonic()
        if self._seconds is not None and self._until is None:
            self._until = now + self._seconds
        left = seconds if self._until is None else min(seconds, self._until - now)
        try:
            message = self._get(True, max(left, 0))
        except queue.Empty:
            if self._until is not None and time.monotonic() >= self._until:
                self._until = None
                raise
            return None
        self._until = None
        return message

    def _get(self, block: bool, timeout: float | None) -> bytes:
        if self._closed:
            raise StopIteration
        try:
            return self._queue.get(block=block, timeout=timeout)
        except (ValueError, OSError):  # closed, now or while it waited
            raise StopIteration from None
