"""The transparent proxy.

A [`Proxy`][proxystore_rs.proxy.Proxy] stands for an object, its target, which a factory produces
when the proxy is first used. From then on every operation is forwarded to the target.

    >>> from proxystore_rs.proxy import Proxy, is_resolved, resolve
    >>> p = Proxy(lambda: {'a': 1})
    >>> is_resolved(p)
    False
    >>> p['a'], is_resolved(p)
    (1, True)

What looks at a proxy without using it does not resolve it: `repr`, `pickle`, `copy`,
`isinstance(p, Proxy)`, the functions of this module, and the probes of debuggers and schedulers
(`__dask_*`, `_repr_*_`, `_ipython_*`). Nor do questions that the `facts` in the reference of a
store's proxy answer: `len(p)`, and the `shape` and `dtype` of an array. To find out what does resolve it, see `no_resolve`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import sys
import traceback
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, NamedTuple, Self, TypeAlias, TypeVar

from proxystore_rs._core import Proxy, StoreFactory, _count_guards, _facts
from proxystore_rs.exceptions import ProxyStoreError

__all__ = [
    "DefaultClassType",
    "DefaultHashType",
    "FactoryType",
    "Facts",
    "Proxy",
    "ProxyLocker",
    "ProxyOr",
    "ProxyResolveError",
    "UnwantedResolveError",
    "extract",
    "facts",
    "get_factory",
    "is_resolved",
    "no_resolve",
    "resolve",
]

T = TypeVar("T")

DefaultClassType: TypeAlias = type | None
"""What `__proxy_default_class__` is: the class an unresolved proxy shows, if it knows one."""

DefaultHashType: TypeAlias = Exception | int | None
"""What `__proxy_default_hash__` is: the hash of an unresolved proxy, or what hashing raises."""

FactoryType: TypeAlias = Callable[[], T]
"""A factory: any callable without arguments that returns the target."""

ProxyOr: TypeAlias = Proxy[T] | T
"""Either a proxy of a `T` or a `T`."""


class ProxyResolveError(ProxyStoreError):
    """The factory of a proxy failed.

    It derives from none of the exceptions that `hasattr`, loops and fallbacks swallow, and it
    survives a trip through `pickle`, whatever its cause is.

    >>> p = Proxy(lambda: 1 / 0)
    >>> try:
    ...     p + 1
    ... except ProxyResolveError as error:
    ...     print(repr(error.cause))
    ZeroDivisionError('division by zero')
    """

    cause: BaseException | None
    """The exception that the factory raised; also the `__cause__`."""

    def __init__(self, message: str, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        if cause is not None:
            self.__cause__ = cause

    def __str__(self) -> str:
        # Process pools and schedulers often show the text alone.
        text = super().__str__()
        if self.cause is None or isinstance(self.cause, ProxyResolveError):
            return text
        return f"{text} Cause: {type(self.cause).__name__}: {self.cause}"

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: value for name, value in self.__dict__.items() if name != "cause"}
        return _rebuild_error, (type(self), self.args, _portable(self.cause), state)


def _rebuild_error(
    cls: type[ProxyResolveError],
    args: tuple[Any, ...],
    cause: BaseException | None,
    state: dict[str, Any],
) -> ProxyResolveError:
    # Without __init__, whose arguments are a subclass's own affair.
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    error.cause = cause
    if cause is not None:
        error.__cause__ = cause
    return error


def _portable(cause: BaseException | None) -> BaseException | None:
    """Return the exception, or one that says the same if it would not survive pickling."""
    try:
        pickle.loads(pickle.dumps(cause))
    except Exception:
        return RuntimeError(f"{type(cause).__module__}.{type(cause).__qualname__}: {cause}")
    return cause


class UnwantedResolveError(ProxyResolveError):
    """A proxy was about to resolve where that is not wanted, see `no_resolve`."""

    stack: str
    """The Python stack that led to the resolve, innermost call last."""

    def __init__(self, message: str, stack: str = "") -> None:
        super().__init__(message)
        self.stack = stack


class _Guard:
    __slots__ = ("active",)

    def __init__(self) -> None:
        self.active = True


_guards: ContextVar[tuple[_Guard, ...]] = ContextVar("proxystore_guards", default=())
_whole_process = os.environ.get("PROXYSTORE_NO_RESOLVE", "").strip().lower() not in (
    "",
    "0",
    "false",
    "no",
    "off",
)
if _whole_process:
    _count_guards(1)


class no_resolve(contextlib.ContextDecorator):
    """Refuse to resolve any proxy within a block, or a decorated function.

    The guard covers the thread (or asynchronous task) that entered it, may be nested, and refuses
    *every* resolve, `resolve` and `extract` too. Proxies that are resolved already keep working.
    The environment variable `PROXYSTORE_NO_RESOLVE=1` does the same for a whole process. The error
    shows which proxy it was and where it was used.

    >>> p = Proxy(lambda: [1, 2])
    >>> with no_resolve():
    ...     name = repr(p)  # fine: only looks
    ...     try:
    ...         len(p)
    ...     except UnwantedResolveError:
    ...         print('refused')
    refused
    >>> len(p)
    2
    """

    def __init__(self) -> None:
        self._entered: list[_Guard] = []

    def __enter__(self) -> Self:
        guard = _Guard()
        self._entered.append(guard)
        _guards.set((*_guards.get(), guard))
        _count_guards(1)
        return self

    def __exit__(self, *exc_info: object) -> None:
        guard = self._entered.pop()
        # A task that copied the context meanwhile still has the guard, but no longer an active one.
        guard.active = False
        _count_guards(-1)
        _guards.set(tuple(other for other in _guards.get() if other is not guard))

    def _recreate_cm(self) -> no_resolve:
        return type(self)()


def _check_guard(proxy: Proxy[Any]) -> None:
    """Raise if a guard covers the caller. Called natively, when there is any guard at all."""
    if not _whole_process and not any(guard.active for guard in _guards.get()):
        return
    stack = "".join(traceback.format_stack(sys._getframe(1)))
    where = "PROXYSTORE_NO_RESOLVE is set" if _whole_process else "this code runs in no_resolve()"
    raise UnwantedResolveError(
        f"{proxy!r} was about to resolve, but {where}. If the resolve is wanted, do it before with "
        "proxystore_rs.proxy.resolve(p); if not, pass the proxy on without using it. "
        f"It was used here (most recent call last):\n{stack}",
        stack,
    )


def is_resolved(proxy: Proxy[T]) -> bool:
    """Return whether the proxy has its target, without resolving it.

    >>> p = Proxy(lambda: 'x')
    >>> is_resolved(p)
    False
    """
    return proxy.__proxy_resolved__


def resolve(proxy: Proxy[T]) -> None:
    """Resolve the proxy now, unless it is resolved already.

    >>> p = Proxy(lambda: 'x')
    >>> resolve(p)
    >>> is_resolved(p)
    True
    """
    proxy.__proxy_wrapped__  # noqa: B018


def extract(proxy: Proxy[T]) -> T:
    """Return the target itself, resolving the proxy if need be.

    The remedy wherever code insists on the real type.

    >>> import json
    >>> json.dumps(extract(Proxy(lambda: {'a': 1})))
    '{"a": 1}'
    """
    return proxy.__proxy_wrapped__


def get_factory(proxy: Proxy[T]) -> FactoryType[T]:
    """Return the factory of the proxy, without resolving it.

    >>> get_factory(Proxy(dict))
    <class 'dict'>
    """
    return proxy.__proxy_factory__


class Facts(NamedTuple):
    """What is known of the target of a proxy without fetching it; `None` is what is not known.

    Facts describe the object as it was stored.
    """

    type: str | None = None
    """Its class, such as `numpy.ndarray`; builtin ones without module."""
    len: int | None = None
    """What `len` says of it."""
    shape: tuple[int, ...] | None = None
    """Lengths of the dimensions of an array; rows and columns of a table."""
    dtype: str | None = None
    """NumPy's type string of the elements of an array, such as `<f8`."""
    nbytes: int | None = None
    """Bytes of the elements of an array, or of the columns of a table."""
    created: datetime | None = None
    """When it was stored, in UTC, by the clock of the host that stored it."""
    origin: str | None = None
    """The name of that host."""


def facts(proxy: object) -> Facts:
    """Return what the reference of a store's proxy says of its target, without resolving it.

    Nothing is known of proxies of other factories, nor of objects that may change: those of
    futures, owners and borrows.

    >>> from proxystore_rs.store import open_store
    >>> with open_store('memory://facts') as store:
    ...     known = facts(store.proxy([1, 2, 3]))
    >>> known.type, known.len, known.shape
    ('list', 3, None)
    """
    told = _facts(proxy)
    if told is None:
        return Facts()
    kind, length, shape, dtype, nbytes, milliseconds, origin = told
    created = None
    if milliseconds is not None:
        with contextlib.suppress(OverflowError):  # the clock of that host was out of its mind
            created = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=milliseconds)
    return Facts(kind, length, shape, dtype, nbytes, created, origin)


class ProxyLocker(Generic[T]):
    """Holds a proxy so that it is not resolved by accident.

    >>> locker = ProxyLocker(Proxy(lambda: 1))
    >>> locker._proxy
    Traceback (most recent call last):
    ...
    AttributeError: the proxy is locked: use unlock()
    >>> locker.unlock() + 1
    2
    """

    _proxy: Proxy[T]

    def __init__(self, proxy: Proxy[T]) -> None:
        self._proxy = proxy

    def __getattribute__(self, name: str) -> Any:
        if name == "_proxy":
            raise AttributeError("the proxy is locked: use unlock()")
        return super().__getattribute__(name)

    def __repr__(self) -> str:
        return f"ProxyLocker({self.unlock()!r})"

    def unlock(self) -> Proxy[T]:
        """Return the proxy."""
        proxy: Proxy[T] = super().__getattribute__("_proxy")
        return proxy


# What the native type needs Python for.


def _await_generator(target: Any) -> Generator[Any, Any, Any]:
    """Return the iterator that awaits a generator made by `types.coroutine`."""

    async def wait(target: Awaitable[Any]) -> Any:
        return await target

    return wait(target).__await__()


def _as_array(target: Any, dtype: Any = None, copy: bool | None = None) -> Any:
    """Be the `__array__` of a proxy of something that has none."""
    import numpy

    return numpy.asarray(target, dtype)


def _dask_token(proxy: Proxy[Any]) -> Any:
    """Be the `__dask_tokenize__` of a proxy: one token per factory, resolved or not."""
    factory = get_factory(proxy)
    if isinstance(factory, StoreFactory):
        return "proxystore_rs.proxy.Proxy", factory.store_config.name, str(factory.key)
    normalize: Any = importlib.import_module("dask.tokenize").normalize_token
    return "proxystore_rs.proxy.Proxy", normalize(factory)
