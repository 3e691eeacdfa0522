"""A cache that keeps what was used last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from proxystore_rs.utils._fork import start_over_after_fork

if TYPE_CHECKING:
    from proxystore_rs._core import StoreBase

__all__ = ["KeyT", "LRUCache", "StoreCache", "ValueT"]

KeyT = TypeVar("KeyT")
"""Type of the keys."""

ValueT = TypeVar("ValueT")
"""Type of the values."""


class LRUCache(Generic[KeyT, ValueT]):
    """Least recently used cache, for any number of threads.

    >>> cache = LRUCache(maxsize=2)
    >>> cache.set('a', 1)
    >>> cache.set('b', 2)
    >>> cache.get('a')
    1
    >>> cache.set('c', 3)
    >>> cache.exists('b'), cache.hits, cache.misses
    (False, 1, 0)

    Args:
        maxsize: Number of entries to keep; 0 keeps nothing.

    Raises:
        ValueError: When `maxsize` is negative.
    """

    maxsize: int
    """Number of entries to keep."""
    hits: int
    """How many times `get` found the key."""
    misses: int
    """How many times it did not."""

    def __init__(self, maxsize: int = 16) -> None:
        if maxsize < 0:
            raise ValueError(f"Cache size must be >= 0, not {maxsize}; 0 disables the cache")
        self.maxsize = maxsize
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[KeyT, ValueT] = OrderedDict()
        self._after_fork()
        start_over_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(maxsize={self.maxsize}, entries={len(self._entries)})"

    def evict(self, key: KeyT) -> None:
        """Drop an entry; nothing happens when there is none."""
        with self._lock:
            dropped = self._entries.pop(key, None)
        # Outside the lock, since the end of a value may run code that uses the cache.
        del dropped

    def exists(self, key: KeyT) -> bool:
        """Return whether there is an entry, without counting that as a use of it."""
        with self._lock:
            return key in self._entries

    def get(self, key: KeyT, default: ValueT | None = None) -> ValueT | None:
        """Return the value of the key, or `default`."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                self.hits += 1
                return self._entries[key]
            self.misses += 1
            return default

    def set(self, key: KeyT, value: ValueT) -> None:
        """Keep a value, in place of the key's last one or of the entry used least recently."""
        if self.maxsize == 0:
            return
        dropped: list[ValueT] = []
        with self._lock:
            if key in self._entries:
                dropped.append(self._entries[key])
            elif len(self._entries) >= self.maxsize:
                dropped.append(self._entries.popitem(last=False)[1])
            self._entries[key] = value
            self._entries.move_to_end(key)
        dropped.clear()


class StoreCache:
    """The cache of a store, with the methods of an `LRUCache`.

    It is bounded by the store's `cache_size` and `cache_bytes`.

    >>> from proxystore_rs.connectors.memory import MemoryConnector
    >>> from proxystore_rs.store import Store
    >>> with Store('docs-cache', MemoryConnector('docs-cache')) as store:
    ...     key = store.put([1, 2])
    ...     before = store.cache.exists(key)
    ...     obj = store.get(key)
    ...     before, store.cache.get(key) is obj
    (False, True)
    """

    def __init__(self, store: StoreBase, maxsize: int) -> None:
        self._store = store
        self.maxsize = maxsize

    def __repr__(self) -> str:
        return f"StoreCache(store={self._store.name!r}, maxsize={self.maxsize})"

    def evict(self, key: Any) -> None:
        """Drop an entry; nothing happens when there is none."""
        self._store._cache_evict(key)

    def exists(self, key: Any) -> bool:
        """Return whether there is an entry, without counting that as a use of it."""
        return self._store.is_cached(key)

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the object of the key, or `default`."""
        return self._store._cache_get(key, default)

    def set(self, key: Any, value: Any) -> None:
        """Keep an object; it counts as having no bytes."""
        self._store._cache_set(key, value, 0)
