"""Threads that wait for the tasks of asyncio."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

from proxystore_rs.utils._fork import start_over_after_fork

__all__ = ["Threads"]

P = ParamSpec("P")
T = TypeVar("T")

_MOST = 32
"""Tasks that wait at a time; others take turns with them."""


class Threads:
    """The threads of one consumer, as many as it needs.

    Not those of the event loop: they are few, and wait for everybody's names and files too.
    """

    def __init__(self) -> None:
        self._after_fork()
        start_over_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in a thread, in the context of the caller."""
        context = copy_context()
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_MOST, thread_name_prefix="proxystore-stream")
            return self._pool.submit(lambda: context.run(function, *args, **kwargs))

    def end(self) -> None:
        """End the threads, each when its call has returned; the next call would start others."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)
