"""A cache that keeps what was used last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["KeyT", "LRUCache", "ValueT"]

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
