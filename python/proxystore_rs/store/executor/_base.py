"""The executor that passes arguments and results by proxy."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor
from typing import Any, TypeVar

from proxystore_rs.store.base import Store
from proxystore_rs.store.executor._carrier import (
    Carrier,
    is_proxy,
    receive,
    receive_chunk,
    replace_items,
)
from proxystore_rs.store.executor._future import Call, Ledger, StoreFuture
from proxystore_rs.store.executor._rules import ProxyNever, ProxySize
from proxystore_rs.store.executor._task import Task, may_be_proxied, run_chunk, run_task
from proxystore_rs.store.utils import get_key

__all__ = ["StoreExecutor"]

T = TypeVar("T")

# Keyword arguments that Parsl reads itself, and that are not the function's alone.
_PARSL_OPTIONS = frozenset(
    ("inputs", "outputs", "stdout", "stderr", "walltime", "parsl_resource_specification")
)


class StoreExecutor(Executor):
    """Wraps an executor, or a look-alike such as a Dask client: large objects travel by proxy.

    Functions need not know: they are called with proxies, which behave like the objects. Arguments
    that the executor stored are evicted when the task is over; what a function returns of them is
    returned by value. Proxies among the arguments are passed on and stay whose they are.

    Args:
        executor: Runs the tasks: a pool of `concurrent.futures`, a Dask `Client`, a
            `ParslPoolExecutor`, a `RayExecutor`, or anything with a `submit` that returns futures
            with `add_done_callback`.
        store: Keeps the objects. Its channel must reach the workers.
        should_proxy: Says which arguments and results go through the store; `ProxyNever()` when
            `None`. `ProxySize()` suits most programs. It must be picklable.
        ownership: Results are an `OwnedProxy`, which evicts its object when it dies, and results
            that nobody receives are evicted; otherwise they are a `Proxy`, and freeing them is up
            to the caller.
        close_store: Close the store on `shutdown`.
        nested: Look for objects to proxy within lists, tuples, sets and dictionaries among the
            arguments too, instead of asking the rule about these themselves.
        inline_below: Objects of fewer bytes, by `estimate_size`, are passed as they are, whatever
            the rule says: a channel costs more than it saves for less than some kilobytes. By
            default the rule is asked about all.
    """

    def __init__(
        self,
        executor: Any,
        store: Store[Any],
        should_proxy: Callable[[Any], bool] | None = None,
        *,
        ownership: bool = True,
        close_store: bool = True,
        nested: bool = False,
        inline_below: int = 0,
    ) -> None:
        self.executor = executor
        self.store = store
        self.should_proxy = ProxyNever() if should_proxy is None else should_proxy
        self.ownership = ownership
        self.close_store = close_store
        self.nested = nested
        self.inline_below = inline_below
        self._rule = self.should_proxy
        if inline_below > 0:
            self._rule = ProxySize(inline_below) & self.should_proxy
        self._ledger = Ledger(store)
        self._closed = False
        self._can_reserve = hasattr(store.connector, "new_key")
        engine = _engine(executor)
        self._dask = engine == "distributed"
        self._resolves_futures = engine in ("distributed", "parsl", "ray")
        self._options: frozenset[str] = frozenset()
        if self._dask:
            self._options = _keywords(executor.submit)
        elif engine == "parsl":
            self._options = _PARSL_OPTIONS

    def __repr__(self) -> str:
        return (
            f"StoreExecutor({self.executor!r}, {self.store!r}, should_proxy={self.should_proxy!r}, "
            f"ownership={self.ownership}, close_store={self.close_store}, nested={self.nested}, "
            f"inline_below={self.inline_below})"
        )

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call the function in a worker and return a future of its result.

        The future is a `concurrent.futures.Future`, or a `distributed.Future` from a Dask client. A
        future of this executor among the arguments is a dependency with Dask, Parsl and Ray.

        Raises:
            RuntimeError: After `shutdown`.
        """
        call = self._begin()
        try:
            packed = self._pack_all(call, args)
            options, named = self._split(call, kwargs)
            task = self._task(function, call)
            return self._send(call, function, receive, run_task, task, *packed, **named, **options)
        except BaseException:
            call.finish(failed=True)
            raise

    def map(  # type: ignore[override]  # its keyword arguments are the engine's
        self,
        function: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Call the function with the items of the iterables, and return the results in order.

        Args:
            function: What to call.
            iterables: Its arguments. They are submitted at once, and end with the shortest.
            timeout: Seconds until a result that is not there raises a `TimeoutError`.
            chunksize: How many calls a task makes. One that fails takes its task's others along.
            kwargs: For every call, as in `submit`.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be 1 or more")
        end = None if timeout is None else time.monotonic() + timeout
        items = zip(*iterables, strict=False)
        if chunksize == 1:
            return _results([self.submit(function, *item, **kwargs) for item in items], end)
        chunks = iter(lambda: list(itertools.islice(items, chunksize)), [])
        futures = [self._submit_chunk(function, chunk, kwargs) for chunk in chunks]
        return itertools.chain.from_iterable(_results(futures, end))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut down the executor, or close it if that is all it can, and close the store.

        Args:
            wait: Return when all tasks are over. Otherwise the store closes after the last one;
                an executor that can only be closed cancels what is not over.
            cancel_futures: Cancel tasks that have not begun.
        """
        self._closed = True
        if isinstance(self.executor, Executor):
            self.executor.shutdown(wait=wait, cancel_futures=cancel_futures)
        else:
            self._close_executor(wait, cancel_futures)
        if wait:
            self._ledger.wait()
        self._ledger.at_end(self._end)

    def _close_executor(self, wait: bool, cancel_futures: bool) -> None:
        close = getattr(self.executor, "close", None)
        if cancel_futures or not wait:
            for call in self._ledger.pending():
                if (cancel := call.cancel) is not None:
                    cancel()
        if wait:
            self._ledger.wait()
        if callable(close):
            close()
        else:
            warnings.warn(
                f"Cannot shutdown {type(self.executor).__name__}: it has neither the base class "
                "concurrent.futures.Executor nor a method close().",
                RuntimeWarning,
                stacklevel=4,
            )

    def _end(self) -> None:
        self._ledger.sweep()
        if self.close_store:
            self.store.close()

    def _begin(self) -> Call:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return Call(self._ledger)

    def _submit_chunk(
        self,
        function: Callable[..., Any],
        chunk: list[tuple[Any, ...]],
        kwargs: dict[str, Any],
    ) -> Any:
        call = self._begin()
        try:
            options, named = self._split(call, kwargs)
            calls = [
                (self._task(function, call), self._pack_all(call, args), named) for args in chunk
            ]
            return self._send(call, function, receive_chunk, run_chunk, calls, **options)
        except BaseException:
            call.finish(failed=True)
            raise

    def _send(
        self,
        call: Call,
        function: Callable[..., Any],
        receive: Callable[[Any], Any],
        run: Callable[..., Any],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Submit and wrap the future; `function` is what the user submitted."""
        if not self._dask:
            return StoreFuture(self.executor.submit(run, *args, **kwargs), call, receive)
        from proxystore_rs.store.executor._dask import DaskFuture, key_for

        if "key" not in kwargs and not kwargs.get("pure"):
            kwargs["key"] = key_for(function)
        return DaskFuture(self.executor.submit(run, *args, **kwargs), call, receive)

    def _task(self, function: Callable[..., Any], call: Call) -> Task:
        """Return the task, whose result has its key already where the channel allows."""
        place: Any = None
        if self._can_reserve and not isinstance(self.should_proxy, ProxyNever):
            try:
                key = self.store._new_key()
            except NotImplementedError:
                self._can_reserve = False
            else:
                call.results.append(key)
                place = self.store.proxy_from_key(key)
        if place is None:
            place = self.store.config()
        deep = self.nested or self._resolves_futures
        return Task(function, self._rule, place, self.store, self.ownership, deep)

    def _split(self, call: Call, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the engine's options, and the function's arguments as they travel."""
        if not kwargs:
            return {}, {}
        options = {name: value for name, value in kwargs.items() if name in self._options}
        named = {name: self._pack(call, v) for name, v in kwargs.items() if name not in options}
        return options, named

    def _pack_all(self, call: Call, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple([self._pack(call, item) for item in args])

    def _pack(self, call: Call, argument: Any) -> Any:
        """Return what travels for an argument."""
        if self.nested:
            return replace_items(argument, lambda item: self._pack_one(call, item))
        if self._resolves_futures:
            packed = replace_items(argument, lambda item: self._pack_reference(call, item))
            if packed is not argument:  # it holds what the engine must see
                return packed
        return self._pack_one(call, argument)

    def _pack_one(self, call: Call, item: Any) -> Any:
        packed = self._pack_reference(call, item)
        if packed is not item or not may_be_proxied(item) or not self._rule(item):
            return packed
        known = call.carriers.get(id(item))  # an object that is given twice is stored once
        if known is None:
            proxy: Any = self.store.proxy(item)
            if not proxy.__proxy_factory__._is_inline:
                call.inputs.append(get_key(proxy))
            known = call.carriers[id(item)] = Carrier(proxy, stored=True)
        return known

    def _pack_reference(self, call: Call, item: Any) -> Any:
        """Return a carrier for a proxy, what the engine knows for a future; else the item."""
        if is_proxy(item):
            return Carrier(item)
        if self._resolves_futures and hasattr(type(item), "_engine_future"):
            call.holds.append(item)
            return item._engine_future()
        return item


def _engine(executor: Any) -> str:
    """Return the package of the executor's engine, if it is one that needs to be known."""
    for kind in type(executor).__mro__:
        if kind.__module__ == "proxystore_rs.store.executor.ray":
            return "ray"
        root = kind.__module__.partition(".")[0]
        if root in ("distributed", "parsl"):
            return root
    return ""


def _keywords(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names that a function takes as keywords only: options of the engine."""
    import inspect

    parameters = inspect.signature(function).parameters.values()
    return frozenset(one.name for one in parameters if one.kind is one.KEYWORD_ONLY)


def _results(futures: list[Any], end: float | None) -> Generator[Any, None, None]:
    """Yield the results in order; cancel what is left when the caller stops."""
    futures.reverse()
    try:
        while futures:
            # Forgetting a future before its result is used lets the result be freed by its user.
            if end is None:
                yield futures.pop().result()
            else:
                yield futures.pop().result(end - time.monotonic())
    finally:
        for future in futures:
            future.cancel()
