"""The stores of this process, by name."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from proxystore_rs._core import stores as _stores
from proxystore_rs.proxy import Proxy, get_factory
from proxystore_rs.store.base import Store
from proxystore_rs.store.config import StoreConfig
from proxystore_rs.store.exceptions import ProxyStoreFactoryError, StoreExistsError
from proxystore_rs.store.factory import StoreFactory

T = TypeVar("T")

# Guards read-then-write on the dicts, and is never held while a store is opened, which may take
# long; reads alone need no lock. A forked child gets new ones, since the inherited may be held by
# a thread that does not exist there.
_lock = threading.RLock()


class _Turn:
    """Whose turn it is to open the store of a name."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users = 0


_turns: dict[str, _Turn] = {}


def _after_fork() -> None:
    global _lock, _turns
    _lock = threading.RLock()
    _turns = {}


@contextmanager
def _turn_to_open(name: str) -> Generator[None, None, None]:
    """Let one thread at a time open the store of a name; other names do not wait."""
    with _lock:
        turn = _turns.setdefault(name, _Turn())
        turn.users += 1
    try:
        with turn.lock:
            yield
    finally:
        with _lock:
            turn.users -= 1
            if turn.users == 0:
                _turns.pop(name, None)


os.register_at_fork(after_in_child=_after_fork)


def register_store(store: Store[Any], exist_ok: bool = False) -> None:
    """Make a store known to the proxies that name it.

    Raises:
        StoreExistsError: the name is taken and not `exist_ok`, which replaces the other store.
    """
    with _lock:
        known = _stores.get(store.name)
        if known is not None and known is not store and not exist_ok:
            raise StoreExistsError(
                f"A store named {store.name!r} is registered already. Choose another name, close "
                "the other store, or pass exist_ok=True to replace it.",
            )
        _stores[store.name] = store


def unregister_store(name_or_store: str | Store[Any]) -> None:
    """Forget a store, which stays usable; an unknown one is fine."""
    with _lock:
        if isinstance(name_or_store, str):
            _stores.pop(name_or_store, None)
        elif _stores.get(name_or_store.name) is name_or_store:
            del _stores[name_or_store.name]


@contextmanager
def store_registration(
    *stores: Store[Any],
    exist_ok: bool = False,
) -> Generator[None, None, None]:
    """Register stores for the length of a with-block, also one that raises."""
    registered = []
    try:
        for store in stores:
            register_store(store, exist_ok=exist_ok)
            registered.append(store)
        yield
    finally:
        for store in registered:
            unregister_store(store)


def get_store(val: str | Proxy[T]) -> Store[Any] | None:
    """Return the store of a name, or `None`; of a proxy, opening it if need be.

    Raises:
        ProxyStoreFactoryError: the proxy was not made by a store.
    """
    if type(val) is str:
        return _stores.get(val)
    if issubclass(type(val), Proxy):
        factory = get_factory(val)  # type: ignore[arg-type]
        if isinstance(factory, StoreFactory):
            store: Store[Any] = factory.get_store()
            return store
        raise ProxyStoreFactoryError(
            f"The proxy was made by {type(factory).__name__}, not by a store: there is no store "
            "to get.",
        )
    return _stores.get(str(val))


def get_or_create_store(store_config: StoreConfig, *, register: bool = True) -> Store[Any]:
    """Return the registered store of a configuration, or create it.

    Raises:
        StoreConfigError: the name is taken by a store on another channel.
    """
    store: Store[Any] | None = _stores.get(store_config.name)
    if store is None:
        if not register:
            return Store.from_config(store_config)
        with _turn_to_open(store_config.name):
            store = _stores.get(store_config.name)
            if store is None:
                store = Store.from_config(store_config)
                register_store(store)
                return store
    store._check_same(store_config)
    return store


def open_store(url: str, *, name: str | None = None, **settings: Any) -> Store[Any]:
    """Return the registered store of a channel, opening it if need be.

    Args:
        url: `memory://NAME`, `file:///DIR`, `shm://NAME` or `redis://HOST:PORT/DATABASE` (see
            `RedisConnector.from_url`).
        name: the store's name, else the URL without user and password.
        settings: keyword arguments of `Store`.

    >>> store = open_store('memory://example')
    >>> open_store('memory://example') is store
    True
    >>> store.close()
    """
    settings.setdefault("register", True)
    config = StoreConfig._from_native(name or _without_credentials(url), url, {}, {}, None)
    known: Store[Any] | None = _stores.get(config.name)
    if known is None:
        with _turn_to_open(config.name):
            known = _stores.get(config.name)
            if known is None:
                return Store(config.name, config.connector.get_connector(), **settings)
    known._check_same(config)
    return known


def _without_credentials(url: str) -> str:
    """Return the URL without users and passwords, which are no part of a store's name."""
    if "://" not in url and "@" in url:  # misspelt; the name is part of the error that comes
        return f"{url.partition(':')[0]}:{url.rpartition('@')[2]}"
    import re

    end = "/;" if url.startswith("multi:") else "/"
    return re.sub(f"://[^{end}]*@", "://", url)


def _open(
    name: str,
    url: str,
    options: dict[str, Any],
    settings: dict[str, Any],
    extension: bytes | None,
) -> Store[Any]:
    """Open the store of a reference; called when a proxy's store is not registered here."""
    return get_or_create_store(StoreConfig._from_native(name, url, options, settings, extension))
