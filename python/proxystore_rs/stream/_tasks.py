"""Tasks of the items of a stream, for whatever executor runs them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from proxystore_rs.exceptions import ProxyStoreFactoryError
from proxystore_rs.store.executor._base import StoreExecutor, _engine
from proxystore_rs.store.executor._carrier import Carrier, is_proxy, receive
from proxystore_rs.store.executor._rules import ProxyNever
from proxystore_rs.store.executor._task import Task, run_task
from proxystore_rs.store.utils import resolve_async

if TYPE_CHECKING:
    from proxystore_rs.stream._item import StreamItem

__all__ = ["Prefetching", "Sender", "cancel"]


class Prefetching:
    """A function whose object is on its way while the function starts."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, item: Any, *others: Any) -> Any:
        if is_proxy(item):
            with contextlib.suppress(ProxyStoreFactoryError):  # a proxy that is nobody's of a store
                resolve_async(item)
        return self.function(item, *others)


class Sender:
    """Submits tasks to an executor: references go there in carriers, as those of `StoreExecutor`.

    What a carrier holds counts as stored for the task, so that a worker keeps nothing of it, and a
    function that returns its argument returns the value.
    """

    def __init__(
        self, executor: Any, function: Callable[..., Any], prefetch: bool, metadata: bool
    ) -> None:
        self.executor, self.function, self.metadata = executor, function, metadata
        call = Prefetching(function) if prefetch else function
        self._first: tuple[Any, ...] = (call,)
        if not isinstance(executor, StoreExecutor):
            self._first = run_task, Task(call, ProxyNever(), None, None, False, False)
        self._is_dask = _engine(executor) == "distributed"
        pool = executor.executor if isinstance(executor, StoreExecutor) else executor
        # Dask forgets results, and Ray kills; of others it is not known.
        self._spares_running = isinstance(pool, ThreadPoolExecutor | ProcessPoolExecutor)

    def __repr__(self) -> str:
        return f"{self.executor!r}, {self.function!r}"

    def send(self, item: StreamItem[Any]) -> Any:
        """Submit the task of an item, and return its future."""
        lent = item.lend()
        if is_proxy(lent):
            lent = Carrier(lent, stored=True)
        arguments = (*self._first, lent, *((item.metadata,) if self.metadata else ()))
        if not self._is_dask:
            return self.executor.submit(*arguments)
        from proxystore_rs.store.executor._dask import key_for

        return self.executor.submit(*arguments, key=key_for(self.function))

    def call_back(self, futures: Iterable[Any]) -> None:
        """Cancel the tasks that wait, where that spares what runs and the results there are."""
        if self._spares_running:
            cancel(futures)

    @staticmethod
    def receive(future: Any) -> Any:
        """Return the result of a task that did not fail."""
        return receive(future.result())


def cancel(futures: Iterable[Any]) -> None:
    """Cancel tasks whose results nobody wants, as far as their engine can."""
    for future in futures:
        with contextlib.suppress(
            Exception
        ):  # it is not there yet, cannot be cancelled, or is closed
            future.cancel()
