"""What one can ask of a proxy that comes from a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from proxystore_rs.exceptions import ProxyStoreFactoryError
from proxystore_rs.proxy import Proxy, get_factory, is_resolved
from proxystore_rs.store.types import ConnectorKeyT

if TYPE_CHECKING:
    from proxystore_rs.store.factory import StoreFactory

__all__ = ["get_key", "resolve_async"]

T = TypeVar("T")


def _store_factory(proxy: Proxy[T]) -> StoreFactory[Any, T]:
    from proxystore_rs.store.factory import StoreFactory

    factory = get_factory(proxy)
    if isinstance(factory, StoreFactory):
        return factory
    raise ProxyStoreFactoryError(
        "The proxy must contain a factory with type StoreFactory. "
        f"{type(factory).__name__} is not supported. Make the proxy by store.proxy(obj)."
    )


def get_key(proxy: Proxy[T]) -> ConnectorKeyT:
    """Return the key of the object that a proxy stands for, without resolving the proxy.

    Raises:
        ProxyStoreFactoryError: When the proxy does not come from a store.
    """
    key: ConnectorKeyT = _store_factory(proxy).key
    return key


def resolve_async(proxy: Proxy[T]) -> None:
    """Begin to fetch the object in the background; the first use of the proxy waits for the rest.

    Nothing happens when the proxy is resolved already.

        resolve_async(p)
        prepare()     # while the object is on its way
        compute(p)

    Raises:
        ProxyStoreFactoryError: When the proxy does not come from a store.
    """
    factory = _store_factory(proxy)
    if not is_resolved(proxy):
        factory.resolve_async()
