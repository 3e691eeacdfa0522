"""Futures of a Dask client, whose results are proxies."""

from __future__ import annotations

import threading
import uuid
import weakref
from collections.abc import Callable
from typing import Any

from distributed import Future  # this module is imported when there is a client

from proxystore_rs.store.executor._future import Call

__all__ = ["DaskFuture", "key_for"]


def key_for(function: Any) -> str:
    """Return a key of its own for a task, which shows the function's name on the dashboard."""
    name = getattr(function, "__name__", type(function).__name__)
    return f"{name}-{uuid.uuid4().hex}"


class DaskFuture(Future):  # type: ignore[misc]
    """A future of Dask with `result()` as a proxy.

    `wait`, `as_completed`, and passing it to another task work as with any future of Dask.
    `client.gather` returns proxies that do not own their objects: those live as long as the future.
    """

    def __init__(self, inner: Any, call: Call, receive: Callable[[Any], Any]) -> None:
        super().__init__(inner.key, inner.client)
        self._receive = receive
        self._received: list[Any] = []
        self._receiving = threading.Lock()
        self._unclaimed = weakref.finalize(self, call.abandon)
        self._unclaimed.atexit = False
        call.cancel = inner.cancel
        # The callback keeps the inner future, and so the task, though this future be dropped.
        inner.add_done_callback(lambda done: call.finish(failed=done.status != "finished"))

    def _engine_future(self) -> Any:
        return Future(self.key, self.client)

    async def _result(self, raiseit: bool = True) -> Any:
        value = await super()._result(raiseit)
        with self._receiving:
            if self.status != "finished":
                return value
            if not self._received:
                self._received.append(self._receive(value))
                self._unclaimed.detach()
            return self._received[0]
