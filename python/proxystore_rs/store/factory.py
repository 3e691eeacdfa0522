"""Factories that fetch their target from a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from proxystore_rs._core import StoreFactory, _factory
from proxystore_rs.factory import Factory

if TYPE_CHECKING:
    from proxystore_rs.store.config import StoreConfig
    from proxystore_rs.store.types import DeserializerT

__all__ = ["PollingStoreFactory", "StoreFactory"]

ConnectorT = TypeVar("ConnectorT")
T = TypeVar("T")

Factory.register(StoreFactory)


class PollingStoreFactory(StoreFactory[ConnectorT, T]):
    """Fetches an object that may not exist yet: waits for it.

    Where the channel tells of new objects (memory, shared memory, local files, Redis), waiting ends
    within a millisecond or so; elsewhere the channel is asked at intervals of 1 to 100 ms. So the
    arguments about polling are accepted and not needed.

    Args:
        key: Key of the object.
        store_config: From which the store can be opened.
        deserializer: Turns the bytes into the object, instead of the store's own.
        evict: Evict the object when it is resolved.
        polling_interval: Has no effect.
        polling_backoff_factor: Has no effect.
        polling_interval_limit: Has no effect.
        polling_timeout: Seconds to wait at most; as long as it takes when `None`.
        lease: Seconds after which the producer counts as gone, when it does not renew.
    """

    def __init__(
        self,
        key: Any,
        store_config: StoreConfig,
        *,
        deserializer: DeserializerT | None = None,
        evict: bool = False,
        polling_interval: float = 1,
        polling_backoff_factor: float = 1,
        polling_interval_limit: float | None = None,
        polling_timeout: float | None = None,
        lease: float | None = None,
    ) -> None:
        del polling_interval, polling_backoff_factor, polling_interval_limit
        super().__init__(
            key,
            store_config,
            evict=evict,
            deserializer=deserializer,
            wait=(polling_timeout, lease),
        )

    @property
    def polling_timeout(self) -> float | None:
        """Seconds to wait at most."""
        return self._wait[0] if self._wait else None

    @property
    def lease(self) -> float | None:
        """Seconds after which the producer counts as gone, when it does not renew."""
        return self._wait[1] if self._wait else None


class UnreadableReference(Factory[Any]):
    """Factory of a proxy whose reference cannot be read here; says why when it is called.

    It travels with its bytes, so that a process that can read them resolves the proxy.
    """

    def __init__(self, reference: bytes) -> None:
        self.reference = reference

    def resolve(self) -> Any:
        """Try again to read the reference, and resolve it."""
        return _factory(self.reference, StoreFactory)()

    def __repr__(self) -> str:
        return f"UnreadableReference({len(self.reference)} bytes)"
