"""Objects in a dictionary of this process.

For tests, and for programs on one process. The objects of a `LocalConnector` cannot be reached from
another process; see the memory and shared memory connectors for what can do more.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from proxystore_rs.serialize import BytesLike, is_bytes_like

__all__ = ["LocalConnector", "LocalKey"]


class LocalKey(NamedTuple):
    """Key of an object in a `LocalConnector`."""

    id: str
    """Unique id."""


class LocalConnector:
    """Keeps objects in a dictionary.

    >>> connector = LocalConnector()
    >>> key = connector.put(b'data')
    >>> connector.get(key)
    b'data'
    >>> connector.evict(key)
    >>> connector.exists(key)
    False

    Args:
        store_dict: The dictionary to use, itself and not a copy. A new one if None.
        include_data_in_config: Let `config` carry the dictionary along, so that a connector built
            from it (also in another process, as a copy) has the objects of this one.
    """

    def __init__(
        self,
        store_dict: dict[LocalKey, BytesLike] | None = None,
        *,
        include_data_in_config: bool = False,
    ) -> None:
        self._store = {} if store_dict is None else store_dict
        self._include_data_in_config = include_data_in_config

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def cross_process(self) -> bool:
        """Whether other processes reach the objects: only those that travel in `config`."""
        return self._include_data_in_config

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: the dictionary goes with its last user."""

    def config(self) -> dict[str, Any]:
        """Return the options of the constructor; the objects only when it was told so."""
        config: dict[str, Any] = {"include_data_in_config": self._include_data_in_config}
        if self._include_data_in_config:
            config["store_dict"] = self._store
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return a connector made with these options."""
        return cls(**config)

    def evict(self, key: LocalKey) -> None:
        """Remove an object; nothing happens when there is none."""
        self._store.pop(key, None)

    def exists(self, key: LocalKey) -> bool:
        """Return whether there is an object under the key."""
        return key in self._store

    def get(self, key: LocalKey) -> BytesLike | None:
        """Return the bytes under the key, or None."""
        return self._store.get(key)

    def get_batch(self, keys: Sequence[LocalKey]) -> list[BytesLike | None]:
        """Return the bytes under each key, in this order."""
        return [self.get(key) for key in keys]

    def new_key(self, obj: BytesLike | None = None) -> LocalKey:
        """Return a key that `set` fills later."""
        return LocalKey(str(uuid.uuid4()))

    def put(self, obj: BytesLike) -> LocalKey:
        """Store bytes, and return the new key they are under."""
        key = self.new_key(obj)
        self.set(key, obj)
        return key

    def put_batch(self, objs: Sequence[BytesLike]) -> list[LocalKey]:
        """Store many, and return their keys in this order."""
        return [self.put(obj) for obj in objs]

    def set(self, key: LocalKey, obj: BytesLike) -> None:
        """Store bytes under a key, in place of any that are there.

        Raises:
            TypeError: When `obj` does not hold bytes.
        """
        if not is_bytes_like(obj):
            raise TypeError(
                f"a connector stores bytes, not {type(obj).__name__}; put objects into a store"
            )
        # A copy, unless nobody can change it: what is stored never changes.
        self._store[key] = obj if type(obj) is bytes else bytes(obj)
