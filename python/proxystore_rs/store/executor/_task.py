"""What runs in the worker: the task with its proxies unpacked, its result packed."""

from __future__ import annotations

import functools
import pickle
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import NoneType
from typing import Any

from proxystore_rs._core import _settle
from proxystore_rs.proxy import Proxy, _portable, extract, get_factory
from proxystore_rs.store.config import StoreConfig
from proxystore_rs.store.executor._carrier import (
    Carrier,
    Result,
    dumps,
    is_proxy,
    loads,
    replace_items,
)
from proxystore_rs.store.executor._rules import estimate_size
from proxystore_rs.store.registry import get_or_create_store

__all__ = ["Task", "may_be_proxied", "run_chunk", "run_task"]

_ENGINES = ("dask", "distributed", "parsl", "ray")


def may_be_proxied(item: Any) -> bool:
    """Return whether an object can be replaced by a proxy.

    `None` and truth values cannot, and the futures and references of an engine must not.
    """
    kind: Any = type(item)
    return _instances_may_be_proxied(kind)


@functools.lru_cache
def _instances_may_be_proxied(kind: type) -> bool:
    if issubclass(kind, (NoneType, bool, Proxy, Carrier, Future)):
        return False
    return all(base.__module__.partition(".")[0] not in _ENGINES for base in kind.__mro__)


class Task:
    """A function, and what becomes of its result.

    Args:
        function: What to call.
        rule: Says whether to proxy the result.
        place: A proxy of the result to come, or its bytes, if its key was made in advance; else how
            to open the store; nothing for a rule that never says to proxy it.
        store: The store, for tasks that run in the process that made them.
        owned: Whether the receiver of the result owns it.
        deep: Whether containers among the arguments may hold carriers.
    """

    __slots__ = ("deep", "function", "owned", "place", "rule", "store")

    def __init__(
        self,
        function: Callable[..., Any],
        rule: Callable[[Any], bool],
        place: Proxy[Any] | bytes | StoreConfig | None,
        store: Any,
        owned: bool,
        deep: bool,
    ) -> None:
        self.function, self.rule, self.place = function, rule, place
        self.store, self.owned, self.deep = store, owned, deep

    def __reduce__(self) -> Any:
        return Task, (self.function, self.rule, self._place_data(), None, self.owned, self.deep)

    def __dask_tokenize__(self) -> Any:
        # Two calls are two tasks, with a result each, as they are for any executor.
        place = self._place_data()
        return "Task", place if isinstance(place, bytes) else id(self)

    def _place_data(self) -> bytes | StoreConfig | None:
        return dumps(self.place) if is_proxy(self.place) else self.place

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function with proxies for carriers, and return its result or a carrier."""
        opened: dict[Carrier, Any] = {}

        def unpack(item: Any) -> Any:
            if not issubclass(type(item), Carrier):
                return item
            if item not in opened:
                opened[item] = item.open()
            return opened[item]

        def unpack_all(item: Any) -> Any:
            return replace_items(item, unpack) if self.deep else unpack(item)

        args = tuple(unpack_all(item) for item in args)
        kwargs = {name: unpack_all(item) for name, item in kwargs.items()}
        values = {id(proxy): proxy for carrier, proxy in opened.items() if carrier.lends_value}
        try:
            result = self.function(*args, **kwargs)
        except Exception as error:
            if self.store is None and (portable := _portable_error(error)) is not error:
                raise portable.with_traceback(error.__traceback__) from None
            raise
        finally:
            if self.store is None:
                _forget(values.values())
        if values:
            # The function was given values, and may have changed them: so it returns values, and
            # not references to what is evicted as soon as it is done.
            result = replace_items(
                result, lambda item: extract(item) if id(item) in values else item
            )
        if is_proxy(result):
            return _pass_on(result)
        if may_be_proxied(result) and self.rule(result):
            return self._put(result)
        return result

    def _put(self, result: Any) -> Result:
        populate = None if self.store is not None else False
        place: Any = self.place
        if issubclass(type(place), StoreConfig):
            store = self.store or get_or_create_store(place)
            return Result(store.proxy(result, populate_target=populate), self.owned)
        factory: Any = get_factory(place if is_proxy(place) else loads(place))
        store = self.store or factory.get_store()
        if store._inline_bytes and estimate_size(result) < store._inline_bytes:
            return Result(store.proxy(result, populate_target=populate), self.owned)
        _settle(store, factory, result, None)
        proxy = Proxy(factory)
        proxy.__proxy_default_class__ = type(result)
        if self.store is not None and store._populate_target:
            proxy.__proxy_wrapped__ = result
        return Result(proxy, self.owned)


def run_task(task: Task, /, *args: Any, **kwargs: Any) -> Any:
    """Run a task; the function that engines are given."""
    return task.run(args, kwargs)


def run_chunk(calls: list[tuple[Task, tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
    """Run some tasks one after the other."""
    return [task.run(args, kwargs) for task, args, kwargs in calls]


def _forget(inputs: Iterable[Any]) -> None:
    """Drop the inputs from the cache of this worker: nobody will ask for them again."""
    for proxy in inputs:
        factory: Any = get_factory(proxy)
        store = factory._open_store
        if store is not None and not factory._is_inline:
            store._cache_evict(factory.key)


def _pass_on(proxy: Any) -> Result:
    """Return the carrier of a proxy that the function itself returned."""
    references: Any = sys.modules.get("proxystore_rs.store.ref")
    if references is None or not issubclass(type(proxy), references.OwnedProxy):
        return Result(proxy, False)
    # Pickling an owner gives it away, so that this process does not evict the object. What travels
    # is a plain reference, since some engines copy what they carry, and the receiver owns it.
    factory = get_factory(proxy)
    pickle.dumps(proxy)
    return Result(Proxy(factory), True)


def _portable_error(error: Exception) -> BaseException:
    """Return the error, or one that says the same if it would break the pool on arrival."""
    cloudpickle: Any = sys.modules.get("cloudpickle")
    try:
        data = pickle.dumps(error)
    except Exception:
        if cloudpickle is None:
            return _portable(error) or error
        data = b""
    try:
        pickle.loads(data or cloudpickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__module__}.{type(error).__qualname__}: {error}")
    return error
