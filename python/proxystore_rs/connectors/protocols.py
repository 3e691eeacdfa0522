"""What a store asks of a connector.

A connector moves bytes to and from one kind of channel. It knows keys and bytes, never the objects
of the user. Any class with these methods is a connector; it need not derive from anything here.

    >>> from proxystore_rs.connectors.local import LocalConnector
    >>> isinstance(LocalConnector(), DeferrableConnector)
    True
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from proxystore_rs.serialize import BytesLike

__all__ = ["Connector", "DeferrableConnector", "KeyT"]

KeyT = TypeVar("KeyT", bound=tuple[Any, ...])
"""A connector's keys: a named tuple, hashable and picklable."""


@runtime_checkable
class Connector(Protocol[KeyT]):
    """Moves bytes to and from a channel."""

    def close(self) -> None:
        """Release what the connector holds."""
        ...

    def config(self) -> dict[str, Any]:
        """Return what `from_config` needs to build an equal connector elsewhere."""
        ...

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Connector[Any]:
        """Return a connector on the channel that `config` describes."""
        ...

    def evict(self, key: KeyT) -> None:
        """Remove the bytes of a key; nothing happens when there are none."""
        ...

    def exists(self, key: KeyT) -> bool:
        """Return whether there are bytes under the key."""
        ...

    def get(self, key: KeyT) -> BytesLike | None:
        """Return the bytes under the key, or None."""
        ...

    def get_batch(self, keys: Sequence[KeyT]) -> list[BytesLike | None]:
        """Return the bytes under each key, in this order."""
        ...

    def put(self, obj: BytesLike) -> KeyT:
        """Store bytes, and return the new key they are under."""
        ...

    def put_batch(self, objs: Sequence[BytesLike]) -> list[KeyT]:
        """Store many, and return their keys in this order."""
        ...


@runtime_checkable
class DeferrableConnector(Connector[KeyT], Protocol[KeyT]):
    """A connector that can hand out a key before there is anything under it.

    Futures and updates in place need one.
    """

    def new_key(self, obj: BytesLike | None = None) -> KeyT:
        """Return a key that `set` fills later."""
        ...

    def set(self, key: KeyT, obj: BytesLike) -> None:
        """Store bytes under a key made by `new_key`, in place of any that are there."""
        ...
