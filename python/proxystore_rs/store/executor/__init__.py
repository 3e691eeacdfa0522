"""An executor that passes arguments and results by proxy.

>>> from concurrent.futures import ThreadPoolExecutor
>>> from proxystore_rs.store import open_store
>>> from proxystore_rs.store.executor import ProxySize, StoreExecutor
>>> store = open_store('memory://tasks')
>>> with StoreExecutor(ThreadPoolExecutor(), store, ProxySize(1000), ownership=False) as pool:
...     future = pool.submit(sorted, range(10_000, 0, -1))
...     type(future.result()).__name__, future.result()[:3]
('Proxy', [1, 2, 3])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxystore_rs._lazy import lazy

if TYPE_CHECKING:
    from proxystore_rs.store.executor._base import StoreExecutor
    from proxystore_rs.store.executor._rules import (
        ProxyAlways,
        ProxyNever,
        ProxyRule,
        ProxySize,
        ProxyType,
        estimate_size,
    )

__all__ = [
    "ProxyAlways",
    "ProxyNever",
    "ProxyRule",
    "ProxySize",
    "ProxyType",
    "StoreExecutor",
    "estimate_size",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "ProxyAlways": "_rules",
        "ProxyNever": "_rules",
        "ProxyRule": "_rules",
        "ProxySize": "_rules",
        "ProxyType": "_rules",
        "StoreExecutor": "_base",
        "estimate_size": "_rules",
    },
)
