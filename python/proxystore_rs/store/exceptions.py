"""The exceptions of stores, see [`proxystore_rs.exceptions`][proxystore_rs.exceptions]."""

from __future__ import annotations

from proxystore_rs.exceptions import (
    LifetimeEndedError,
    NonProxiableTypeError,
    ProxyResolveMissingKeyError,
    ProxyStoreFactoryError,
    StoreClosedError,
    StoreConfigError,
    StoreError,
    StoreExistsError,
)

__all__ = [
    "LifetimeEndedError",
    "NonProxiableTypeError",
    "ProxyResolveMissingKeyError",
    "ProxyStoreFactoryError",
    "StoreClosedError",
    "StoreConfigError",
    "StoreError",
    "StoreExistsError",
]
