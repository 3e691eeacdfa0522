"""Borrows in tasks: they end when the task does.

>>> from concurrent.futures import ThreadPoolExecutor
>>> from proxystore_rs.store import open_store
>>> from proxystore_rs.store.ref import borrow, mut_borrow
>>> store = open_store('memory://scopes')
>>> owner = store.owned_proxy([1, 2, 3])
>>> with ThreadPoolExecutor() as pool:
...     submit(pool.submit, args=(sum, borrow(owner))).result()
6
>>> len(mut_borrow(owner))  # the shared borrow has ended
3
>>> del owner
>>> store.close()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from proxystore_rs.store.ref import RefMutProxy, RefProxy, _give_back, _invalidate

__all__ = ["FutureWithCallback", "mark_refs_out_of_scope", "submit"]


@runtime_checkable
class FutureWithCallback(Protocol):
    """A future that tells when it is done, as those of most executors do."""

    def add_done_callback(self, callback: Callable[[Any], Any]) -> Any:
        """Call `callback` with the future when it is done."""
        ...


FutureT = TypeVar("FutureT", bound=FutureWithCallback)


def mark_refs_out_of_scope(*refs: RefProxy[Any] | RefMutProxy[Any]) -> None:
    """End borrows: give them back to their owner, and refuse their further use.

    Ending a borrow twice is fine.

    Raises:
        RuntimeError: The borrow has no owner here: it came from another process, or was made by
            hand. None of the borrows has ended then.
    """
    for ref in refs:
        if ref._ref.owner is None and ref._ref.valid:
            raise RuntimeError(
                f"a {type(ref).__name__} without an owner in this process cannot be given back; "
                "end it where the owner is",
            )
    for ref in refs:
        if ref._ref.valid:
            _invalidate(ref)
        _give_back(type(ref), ref._ref)


def submit(
    submit_func: Callable[..., FutureT],
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    register_custom_refs: Iterable[Any] = (),
) -> FutureT:
    """Call `submit_func(*args, **kwargs)`; the borrows among the arguments end when its future is done.

    Args:
        submit_func: Such as `executor.submit`; returns a future.
        args: Its arguments. Borrows are found at this level, not inside containers.
        kwargs: Its keyword arguments, likewise.
        register_custom_refs: More borrows that end with the task, such as those in containers.

    Raises:
        RuntimeError: One of the borrows has no owner in this process; nothing is submitted then.
    """
    kwargs = {} if kwargs is None else kwargs
    kinds = (RefProxy, RefMutProxy)
    refs = [ref for ref in (*args, *kwargs.values()) if type(ref) in kinds]
    refs.extend(register_custom_refs)
    for ref in refs:
        if ref._ref.owner is None:
            raise RuntimeError(
                f"a {type(ref).__name__} without an owner in this process cannot be lent to a task",
            )
    future = submit_func(*args, **kwargs)
    if refs:
        future.add_done_callback(lambda _: mark_refs_out_of_scope(*refs))
    return future
