"""Stores: objects go into a channel, proxies of them go anywhere.

>>> from proxystore_rs.store import open_store
>>> store = open_store('memory://docs')
>>> proxy = store.proxy([1, 2, 3])
>>> sum(proxy)
6
>>> store.close()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxystore_rs._lazy import lazy

if TYPE_CHECKING:
    from proxystore_rs.store.base import Store
    from proxystore_rs.store.config import StoreConfig
    from proxystore_rs.store.factory import StoreFactory
    from proxystore_rs.store.registry import (
        get_or_create_store,
        get_store,
        open_store,
        register_store,
        store_registration,
        unregister_store,
    )

__all__ = [
    "Store",
    "StoreConfig",
    "StoreFactory",
    "get_or_create_store",
    "get_store",
    "open_store",
    "register_store",
    "store_registration",
    "unregister_store",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Store": "base",
        "StoreConfig": "config",
        "StoreFactory": "factory",
        "get_or_create_store": "registry",
        "get_store": "registry",
        "open_store": "registry",
        "register_store": "registry",
        "store_registration": "registry",
        "unregister_store": "registry",
    },
)
