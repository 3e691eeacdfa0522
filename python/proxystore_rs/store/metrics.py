"""How long operations took, and how large objects were, by key.

>>> metrics = StoreMetrics()
>>> key = ('abc',)
>>> metrics.add_time('store.get', key, 2.0)
>>> metrics.add_time('store.get', key, 4.0)
>>> metrics.get_metrics(key).times['store.get'].avg_time_ms
3.0

Monitoring systems get totals, without keys: Prometheus by `to_prometheus`, OpenTelemetry and others by
`instruments` and `observations`.
"""

from __future__ import annotations

import copy
import math
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

from proxystore_rs import _core
from proxystore_rs.proxy import Proxy
from proxystore_rs.store.types import ConnectorKeyT
from proxystore_rs.utils._fork import start_over_after_fork

__all__ = [
    "InstrumentT",
    "KeyT",
    "Metrics",
    "ObservationT",
    "ProxyT",
    "StoreMetrics",
    "TimeStats",
    "instruments",
    "observations",
    "to_prometheus",
]

KeyT: TypeAlias = ConnectorKeyT | Sequence[ConnectorKeyT]
"""A key, or the keys of a batch."""

ProxyT: TypeAlias = Proxy[Any] | Sequence[Proxy[Any]]
"""A proxy, or the proxies of a batch."""

InstrumentT: TypeAlias = tuple[str, str, str]
"""Name, unit and description of something that is counted."""

ObservationT: TypeAlias = tuple[str, str, dict[str, str], float]
"""Name and unit of an instrument, attributes (`store`, `operation`), and the total so far."""


class _Record:
    # What a dataclass does, without the price of importing that module.

    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Record) or type(other) is not type(self):
            return NotImplemented
        return self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({fields})"


class TimeStats(_Record):
    """Times of one operation. They add up with `+`.

    >>> stats = TimeStats()
    >>> stats.add_time(1)
    >>> stats.add_time(3)
    >>> (stats.count, stats.avg_time_ms, stats.last_time_ms)
    (2, 2.0, 3)

    Args:
        count: How many times it took place.
        avg_time_ms: Average time.
        min_time_ms: Shortest time.
        max_time_ms: Longest time.
        last_time_ms: Time of the last.
        last_timestamp: When the last one ended, in seconds since the epoch.
    """

    __match_args__ = (
        *("count", "avg_time_ms", "min_time_ms"),
        *("max_time_ms", "last_time_ms", "last_timestamp"),
    )

    def __init__(
        self,
        count: int = 0,
        avg_time_ms: float = 0,
        min_time_ms: float = math.inf,
        max_time_ms: float = 0,
        last_time_ms: float = 0,
        last_timestamp: float = 0,
    ) -> None:
        self.count = count
        self.avg_time_ms = avg_time_ms
        self.min_time_ms = min_time_ms
        self.max_time_ms = max_time_ms
        self.last_time_ms = last_time_ms
        self.last_timestamp = last_timestamp

    def __add__(self, other: TimeStats) -> TimeStats:
        if not isinstance(other, TimeStats):
            return NotImplemented
        count = self.count + other.count
        total = self.avg_time_ms * self.count + other.avg_time_ms * other.count
        last = other if other.last_timestamp > self.last_timestamp else self
        return TimeStats(
            count=count,
            avg_time_ms=total / count if count else 0,
            min_time_ms=min(self.min_time_ms, other.min_time_ms),
            max_time_ms=max(self.max_time_ms, other.max_time_ms),
            last_time_ms=last.last_time_ms,
            last_timestamp=last.last_timestamp,
        )

    def add_time(self, time_ms: float) -> None:
        """Count one more, which took this long."""
        self.count += 1
        self.avg_time_ms += (time_ms - self.avg_time_ms) / self.count
        self.min_time_ms = min(self.min_time_ms, time_ms)
        self.max_time_ms = max(self.max_time_ms, time_ms)
        self.last_time_ms = time_ms
        self.last_timestamp = time.time()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary."""
        return dict(self.__dict__)


class Metrics(_Record):
    """What is known about the operations on one key, or on one batch of keys.

    Args:
        attributes: Facts by name, such as the size of the object.
        counters: Counts by name, such as cache hits.
        times: Times by name of the operation.
    """

    __match_args__ = ("attributes", "counters", "times")

    def __init__(
        self,
        attributes: dict[str, Any] | None = None,
        counters: dict[str, int] | None = None,
        times: dict[str, TimeStats] | None = None,
    ) -> None:
        self.attributes: dict[str, Any] = {} if attributes is None else attributes
        self.counters: dict[str, int] = {} if counters is None else counters
        self.times: dict[str, TimeStats] = {} if times is None else times

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain dictionaries."""
        return {
            "attributes": copy.deepcopy(self.attributes),
            "counters": dict(self.counters),
            "times": {name: stats.as_dict() for name, stats in self.times.items()},
        }


class StoreMetrics:
    """Collects the metrics of a store, from any number of threads.

    A batch is recorded under its keys together, and not under each of them.
    """

    def __init__(self) -> None:
        self._metrics: dict[ConnectorKeyT, Metrics] = {}
        self._store: weakref.ref[Any] | None = None
        self._after_fork()
        start_over_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(keys={len(self._metrics)})"

    def _of(self, key: KeyT) -> Metrics:
        # With the lock held.
        return self._metrics.setdefault(tuple(key), Metrics())

    def add_attribute(self, name: str, key: KeyT, value: Any) -> None:
        """Set a fact about a key."""
        with self._lock:
            self._of(key).attributes[name] = value

    def add_counter(self, name: str, key: KeyT, value: int) -> None:
        """Add to a count of a key."""
        with self._lock:
            counters = self._of(key).counters
            counters[name] = counters.get(name, 0) + value

    def add_time(self, name: str, key: KeyT, time_ms: float) -> None:
        """Count one more operation on a key, which took this long."""
        with self._lock:
            self._of(key).times.setdefault(name, TimeStats()).add_time(time_ms)

    def aggregate_times(self) -> dict[str, TimeStats]:
        """Return the times by name of the operation, over all keys."""
        totals: dict[str, TimeStats] = {}
        with self._lock:
            for metrics in self._metrics.values():
                for name, stats in metrics.times.items():
                    totals[name] = totals.get(name, TimeStats()) + stats
        return totals

    def get_metrics(self, key_or_proxy: KeyT | ProxyT) -> Metrics | None:
        """Return a copy of what is known, or None when nothing is.

        Args:
            key_or_proxy: A key or a proxy, or the keys or proxies of a batch. Proxies are not
                resolved.

        Raises:
            ProxyStoreFactoryError: When a proxy does not come from a store.
        """
        key = _key_of(key_or_proxy)
        with self._lock:
            metrics = self._metrics.get(key)
            return None if metrics is None else copy.deepcopy(metrics)

    def to_prometheus(self) -> str:
        """Return the totals of the store in the text format of Prometheus."""
        return _core._to_prometheus(self._stores())

    def observations(self) -> list[ObservationT]:
        """Return the totals of the store."""
        return _core._observations(self._stores())

    def _stores(self) -> list[Any]:
        store = self._store and self._store()
        return [] if store is None else [store]


def to_prometheus(*stores: Any) -> str:
    """Return the totals of stores in the text format of Prometheus, version 0.0.4.

    Neither keys nor credentials are among the labels. Times are in seconds.

    >>> from proxystore_rs.connectors.local import LocalConnector
    >>> from proxystore_rs.store import Store
    >>> store = Store('monitored', LocalConnector(), metrics=True)
    >>> key = store.put('x')
    >>> text = to_prometheus(store)
    >>> 'proxystore_store_operations_total{store="monitored",operation="put"} 1' in text
    True

    Args:
        stores: stores made with `metrics=True`, others are passed over; all registered ones if
            none are given.
    """
    return _core._to_prometheus(list(stores or _core.stores.values()))


def observations(*stores: Any) -> list[ObservationT]:
    """Return the totals of stores, as tuples of name, unit, attributes and value.

    All values are counters that only grow, what OpenTelemetry calls observable counters.

    Args:
        stores: as for `to_prometheus`.
    """
    return _core._observations(list(stores or _core.stores.values()))


def instruments() -> list[InstrumentT]:
    """Return name, unit and description of everything that `observations` has.

    >>> [unit for name, unit, _ in instruments() if name == 'proxystore.store.bytes']
    ['By']
    """
    return _core._instruments()


def _key_of(key_or_proxy: Any) -> ConnectorKeyT:
    # By type, since isinstance would resolve a proxy.
    if issubclass(type(key_or_proxy), Proxy):
        return _proxy_key(key_or_proxy)
    if isinstance(key_or_proxy, Sequence) and any(
        issubclass(type(item), Proxy) for item in key_or_proxy
    ):
        return tuple(_proxy_key(proxy) for proxy in key_or_proxy)
    return tuple(key_or_proxy)


def _proxy_key(proxy: Any) -> ConnectorKeyT:
    from proxystore_rs.store.utils import get_key

    return get_key(proxy)
