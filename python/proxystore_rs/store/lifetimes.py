"""Lifetimes: scopes that free their objects when they end.

>>> from proxystore_rs.store import open_store
>>> store = open_store('memory://docs-lifetimes')
>>> with ContextLifetime(store) as lifetime:
...     proxy = store.proxy([1, 2, 3], lifetime=lifetime)
...     key = store.put('more', lifetime=lifetime)
...     store.exists(key)
True
>>> store.exists(key), lifetime.done()
(False, True)
>>> store.close()
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

from proxystore_rs.exceptions import LifetimeEndedError, UnsupportedOperationError
from proxystore_rs.proxy import Proxy
from proxystore_rs.store import _alarm
from proxystore_rs.store.types import ConnectorKeyT
from proxystore_rs.store.utils import get_key
from proxystore_rs.utils._fork import start_over_after_fork

if TYPE_CHECKING:
    from proxystore_rs.store.base import Store

__all__ = [
    "ContextLifetime",
    "LeaseLifetime",
    "Lifetime",
    "StaticLifetime",
    "register_lifetime_atexit",
]

logger = logging.getLogger(__name__)

_FOREVER = 100 * 365 * 86400.0
"""Seconds after which an end is none."""


@runtime_checkable
class Lifetime(Protocol):
    """What a store asks of a lifetime; any class with these methods is one."""

    def add_key(self, *keys: ConnectorKeyT, store: Store[Any] | None = None) -> None:
        """Add the objects of keys."""

    def add_proxy(self, *proxies: Proxy[Any]) -> None:
        """Add the objects of proxies."""

    def close(self, *, close_stores: bool = False) -> None:
        """End the lifetime: evict its objects."""

    def done(self) -> bool:
        """Return whether it has ended."""


class _Objects:
    # The keys of a lifetime by store, until it ends. A forked child starts without any: they are
    # the parent's to evict.

    def __init__(self) -> None:
        self.ended = False
        self._after_fork()
        start_over_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        # Held while objects are evicted: whoever ends it a second time finds them gone.
        self._ending = threading.RLock()
        self._keys: dict[Store[Any], list[ConnectorKeyT]] = {}

    def add(self, store: Store[Any], keys: Iterable[ConnectorKeyT]) -> None:
        with self._lock:
            if self.ended:
                raise _ended()
            self._keys.setdefault(store, []).extend(keys)

    def all(self) -> list[tuple[Store[Any], list[ConnectorKeyT]]]:
        with self._lock:
            return [(store, list(keys)) for store, keys in self._keys.items()]

    def end(self, stores: Iterable[Store[Any]], close_stores: bool) -> None:
        with self._ending:
            self._end(stores, close_stores)

    def _end(self, stores: Iterable[Store[Any]], close_stores: bool) -> None:
        with self._lock:
            self.ended = True
            taken, self._keys = self._keys, {}
        steps: list[Callable[[], object]] = []
        for store, keys in taken.items():
            steps.extend(partial(store.evict, key) for key in keys)
        if close_stores:
            steps.extend(store.close for store in dict.fromkeys((*stores, *taken)))
        first: Exception | None = None
        for step in steps:
            try:
                step()
            except Exception as error:  # the others are still to be tried
                first = first or error
        if first is not None:
            raise first


def _ended() -> LifetimeEndedError:
    return LifetimeEndedError(
        "The lifetime has ended and takes no more objects. Add them while it lasts, or make "
        "another lifetime."
    )


class _Base:
    # What all lifetimes have in common.

    def __init__(self) -> None:
        self._objects = _Objects()

    def _store_of(self, store: Store[Any] | None) -> Store[Any]:
        raise NotImplementedError

    def add_key(self, *keys: ConnectorKeyT, store: Store[Any] | None = None) -> None:
        """Add the objects of keys, which are evicted when the lifetime ends.

        Args:
            keys: Keys of stored objects.
            store: The store they are in.

        Raises:
            LifetimeEndedError: When it has ended, which is a `RuntimeError`.
        """
        self._objects.add(self._store_of(store), keys)

    def add_proxy(self, *proxies: Proxy[Any]) -> None:
        """Add the objects of proxies; nothing is resolved.

        Raises:
            LifetimeEndedError: When it has ended, which is a `RuntimeError`.
            ProxyStoreFactoryError: When a proxy does not come from a store; none is added then.
        """
        from proxystore_rs.store.registry import get_store

        keys = [get_key(proxy) for proxy in proxies]
        for proxy, key in zip(proxies, keys, strict=True):
            self.add_key(key, store=get_store(proxy))

    def close(self, *, close_stores: bool = False) -> None:
        """End the lifetime: evict its objects. Closing again is fine.

        Args:
            close_stores: Close the stores of the objects too.

        Raises:
            Exception: The first that evicting or closing raised, after all was tried.
        """
        self._objects.end((), close_stores)

    def done(self) -> bool:
        """Return whether it has ended."""
        return self._objects.ended

    def _seconds_left(self) -> float | None:
        # Asked before an object is put for this lifetime; None when the end is not known.
        if self.done():
            raise _ended()
        return None


class ContextLifetime(_Base):
    """A lifetime that ends with its with-block, or when it is closed.

    Args:
        store: The store of keys that are added without one. Objects of other stores may be in the
            lifetime too.
        name: A name for people.
    """

    def __init__(self, store: Store[Any], *, name: str | None = None) -> None:
        super().__init__()
        self.store = store
        self.name = f"lifetime-{uuid.uuid4()}" if name is None else name

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, store={self.store.name!r}, done={self.done()})"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _store_of(self, store: Store[Any] | None) -> Store[Any]:
        return self.store if store is None else store

    def close(self, *, close_stores: bool = False) -> None:
        """End the lifetime: evict its objects. Closing again is fine.

        Args:
            close_stores: Close the stores of the objects, and its own, too.

        Raises:
            Exception: The first that evicting or closing raised, after all was tried.
        """
        self._objects.end((self.store,), close_stores)


class LeaseLifetime(ContextLifetime):
    """A lifetime that ends at a time, unless it is extended, closed, or its with-block ends.

    Channels that have times to live keep the end themselves, so that the objects vanish in time even
    if this process is killed. In other channels this process evicts them, if it still runs then: a
    lease does not keep the interpreter from ending.

    >>> from proxystore_rs.store import open_store
    >>> store = open_store('memory://docs-lease')
    >>> lease = LeaseLifetime(store, expiry=60)
    >>> key = store.put('for a minute', lifetime=lease)
    >>> lease.extend(60)  # for two
    >>> lease.close()
    >>> store.exists(key)
    False
    >>> store.close()

    Args:
        store: The store of keys that are added without one.
        expiry: When it ends: a time (without a time zone, it is local time), or so long from now, in
            seconds or as a `timedelta`. One in the past ends it at once.
        name: A name for people.
    """

    def __init__(
        self,
        store: Store[Any],
        expiry: datetime | timedelta | float,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(store, name=name)
        self._end = _end_of(expiry, time.monotonic())
        self._after_fork()
        start_over_after_fork(self)
        if self._left() <= 0:
            self.close()

    def _after_fork(self) -> None:
        # Held by all that change the end or add objects, so that every object has the same end.
        self._changing = threading.RLock()
        self._alarm: _alarm.Alarm | None = None

    def _left(self) -> float:
        return self._end - time.monotonic()

    def _seconds_left(self) -> float | None:
        super()._seconds_left()
        return _ttl(max(self._left(), 0))

    def done(self) -> bool:
        """Return whether it was closed, or its time has passed."""
        return super().done() or self._left() <= 0

    def add_key(self, *keys: ConnectorKeyT, store: Store[Any] | None = None) -> None:
        """Add the objects of keys, which are evicted when the lifetime ends.

        Args:
            keys: Keys of stored objects.
            store: The store they are in; by default that of the lifetime.

        Raises:
            LifetimeEndedError: When it has ended, which is a `RuntimeError`.
        """
        with self._changing:
            if self.done():
                raise _ended()
            store = self._store_of(store)
            self._objects.add(store, keys)
            if self._alarm is None:
                self._set_alarm()
            _expire(store, keys, self._left())

    def extend(self, expiry: datetime | timedelta | float) -> None:
        """Let it end later by so much, or at a time, which may also be sooner.

        Args:
            expiry: How much longer, in seconds or as a `timedelta`, or when it ends from now on. One
                in the past ends it at once.

        Raises:
            LifetimeEndedError: When it has ended already, which is a `RuntimeError`.
        """
        with self._changing:
            if self.done():
                raise _ended()
            end = _end_of(expiry, self._end)
            left = end - time.monotonic()
            if left > 0:
                for store, keys in self._objects.all():
                    _expire(store, keys, left)
            self._end = end
            if left <= 0:
                self.close()
            elif self._alarm is not None:
                _alarm.cancel(self._alarm)
                self._set_alarm()

    def close(self, *, close_stores: bool = False) -> None:
        """End the lifetime: evict its objects. Closing again is fine.

        Args:
            close_stores: Close the stores of the objects, and its own, too.

        Raises:
            Exception: The first that evicting or closing raised, after all was tried.
        """
        with self._changing:
            if self._alarm is not None:
                _alarm.cancel(self._alarm)
        super().close(close_stores=close_stores)

    def _set_alarm(self) -> None:
        if self._left() < _FOREVER:
            self._alarm = _alarm.call_at(self._end, self._on_time)

    def _on_time(self) -> None:
        with self._changing:
            if self._left() > 0:  # extended just now
                self._set_alarm()
                return
        self.close()


def _end_of(expiry: datetime | timedelta | float, since: float) -> float:
    """Return when that is by `time.monotonic`; a length counts from `since`."""
    if isinstance(expiry, datetime):
        return time.monotonic() + (expiry.timestamp() - time.time())
    seconds = expiry.total_seconds() if isinstance(expiry, timedelta) else float(expiry)
    if math.isnan(seconds):
        raise ValueError("the end of a lease is not a number; give seconds")
    return since + seconds


def _ttl(left: float) -> float | None:
    return left if left < _FOREVER else None


def _expire(store: Store[Any], keys: Iterable[ConnectorKeyT], left: float) -> None:
    with contextlib.suppress(UnsupportedOperationError):  # then the alarm here is all there is
        store.expire(keys, _ttl(max(left, 0)))


class StaticLifetime(_Base):
    """The lifetime that ends with the interpreter, and closes the stores of its objects then.

    There is one of it. When a process is killed nothing runs; use a `LeaseLifetime` against that.

    >>> StaticLifetime() is StaticLifetime()
    True
    """

    _instance: ClassVar[StaticLifetime | None] = None

    def __new__(cls) -> StaticLifetime:
        if StaticLifetime._instance is None:
            StaticLifetime._instance = instance = super().__new__(cls)
            _Base.__init__(instance)
            register_lifetime_atexit(instance)
        return StaticLifetime._instance

    def __init__(self) -> None:
        pass  # made by __new__, once

    def __repr__(self) -> str:
        return f"{type(self).__name__}(done={self.done()})"

    def _store_of(self, store: Store[Any] | None) -> Store[Any]:
        if store is None:
            raise ValueError("The static lifetime has no store of its own: pass store=.")
        return store


def register_lifetime_atexit(lifetime: Lifetime, close_stores: bool = True) -> Callable[[], None]:
    """Close a lifetime when the interpreter ends.

    What goes wrong then is logged, and the interpreter ends as it would have.

    Args:
        lifetime: The lifetime.
        close_stores: Close the stores of its objects too.

    Returns:
        What was registered, for `atexit.unregister`.
    """

    def close() -> None:
        try:
            lifetime.close(close_stores=close_stores)
        except Exception:
            logger.debug("%r could not be ended at exit", lifetime, exc_info=True)

    atexit.register(close)
    return close


# Here, so that no two threads make it.
StaticLifetime()
