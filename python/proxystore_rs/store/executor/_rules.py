"""Rules that say which arguments and results of tasks travel by proxy.

A rule is any callable that takes an object and returns whether to proxy it. Those of this module
combine by `|` and `&`.

    >>> rule = ProxySize(1_000_000) | ProxyType(dict)
    >>> rule(bytes(2_000_000)), rule({}), rule([1, 2])
    (True, True, False)
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

__all__ = [
    "ProxyAlways",
    "ProxyNever",
    "ProxyRule",
    "ProxySize",
    "ProxyType",
    "estimate_size",
]


class ProxyRule:
    """Base of the rules, which makes them combine."""

    def __call__(self, item: Any) -> bool:
        """Return whether to proxy the object."""
        raise NotImplementedError(f"{type(self).__qualname__} does not define __call__()")

    def __or__(self, other: Callable[[Any], bool]) -> ProxyRule:
        return _Combined(any, self, other)

    def __and__(self, other: Callable[[Any], bool]) -> ProxyRule:
        return _Combined(all, self, other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ProxyAlways(ProxyRule):
    """Proxy everything that can be proxied."""

    def __call__(self, item: Any) -> bool:
        return True


class ProxyNever(ProxyRule):
    """Proxy nothing."""

    def __call__(self, item: Any) -> bool:
        return False


class ProxyType(ProxyRule):
    """Proxy instances of these types."""

    def __init__(self, *types: type) -> None:
        self.types = types

    def __call__(self, item: Any) -> bool:
        return isinstance(item, self.types)

    def __repr__(self) -> str:
        return f"ProxyType({', '.join(kind.__qualname__ for kind in self.types)})"


class ProxySize(ProxyRule):
    """Proxy objects of at least this many bytes, by the estimate of `estimate_size`.

    The default is where proxies begin to pay on one host; engines that send objects through a
    scheduler or a service gain from less.
    """

    def __init__(self, min_bytes: int = 100_000) -> None:
        self.min_bytes = min_bytes

    def __call__(self, item: Any) -> bool:
        return estimate_size(item) >= self.min_bytes

    def __repr__(self) -> str:
        return f"ProxySize({self.min_bytes})"


class _Combined(ProxyRule):
    """Any or all of some rules."""

    def __init__(self, how: Callable[..., bool], *rules: Callable[[Any], bool]) -> None:
        self.how, self.rules = how, rules

    def __call__(self, item: Any) -> bool:
        return self.how(rule(item) for rule in self.rules)

    def __repr__(self) -> str:
        return f"({(' | ' if self.how is any else ' & ').join(map(repr, self.rules))})"


_CONTAINERS = (list, tuple, set, frozenset, dict)
_SAMPLE = 64
_DEPTH = 4


def estimate_size(item: Any) -> int:
    """Estimate how many bytes an object takes, without serializing it.

    Buffers, arrays and tables say it themselves. Containers and plain objects are the sum of what
    they hold, to a depth of four; of a long container some items stand for all.

    >>> estimate_size(bytes(10_000)), estimate_size([bytes(10_000)] * 1000) // 10_000
    (10000, 1000)
    """
    return _estimate(item, _DEPTH)


def _estimate(item: Any, depth: int) -> int:
    kind = type(item)
    if issubclass(kind, (bytes, bytearray, str)):
        return len(item)
    if issubclass(kind, _CONTAINERS):
        return sys.getsizeof(item) if depth == 0 else _of_container(item, depth - 1)
    for ask in (_nbytes, _pandas, _polars):
        size = ask(item)
        if size is not None:
            return size
    attributes = getattr(item, "__dict__", None)
    own = sys.getsizeof(item, 0)
    if depth == 0 or type(attributes) is not dict:
        return own
    return own + _of_container(attributes, depth - 1)


def _of_container(items: Any, depth: int) -> int:
    values = items.values() if isinstance(items, dict) else items
    count = len(items)
    # Evenly spaced, so that a container which begins with small items is not mistaken.
    some = list(itertools.islice(values, 0, None, max(1, count // _SAMPLE)))
    total = sum(_estimate(item, depth) for item in some)
    return total * count // len(some) if some else 0


def _nbytes(item: Any) -> int | None:
    size: Any = getattr(item, "nbytes", None)
    return int(size) if hasattr(type(size), "__index__") else None


def _pandas(item: Any) -> int | None:
    usage: Any = getattr(item, "memory_usage", None)
    if not callable(usage) or type(item).__module__.partition(".")[0] != "pandas":
        return None
    used = usage()
    return int(used if isinstance(used, int) else used.sum())


def _polars(item: Any) -> int | None:
    size: Any = getattr(item, "estimated_size", None)
    if not callable(size) or type(item).__module__.partition(".")[0] != "polars":
        return None
    return int(size())
