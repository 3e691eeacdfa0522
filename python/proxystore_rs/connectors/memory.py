"""Objects in this process's own memory."""

from __future__ import annotations

from typing import Any, NamedTuple

from proxystore_rs._core import NativeConnector


class MemoryKey(NamedTuple):
    """Key of an object in memory."""

    id: str
    generation: int = 0
    size: int = 0


class MemoryConnector(NativeConnector):
    """Keeps objects in this process, in a channel found by name.

    Other connectors of the same name in this process reach the same objects; other processes
    do not.

    >>> connector = MemoryConnector('docs')
    >>> key = connector.put(b'hello')
    >>> bytes(connector.get(key))
    b'hello'
    >>> connector.close(clear=True)
    """

    _key_type = MemoryKey
    _scheme = "memory"

    def __init__(self, name: str) -> None:
        self.name = name
        self._open(f"memory://{name}", {})

    def __repr__(self) -> str:
        return f"MemoryConnector(name={self.name!r})"

    def close(self, clear: bool = False) -> None:
        """Release the connector; with `clear`, drop all objects of the channel."""
        self._close(clear)

    def config(self) -> dict[str, Any]:
        """Return the arguments of an equal connector."""
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MemoryConnector:
        """Open a connector from `config()`."""
        return cls(**config)

    @classmethod
    def _to_url(cls, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return f"memory://{options['name']}", {}

    @classmethod
    def _from_url(cls, url: str, options: dict[str, Any]) -> dict[str, Any]:
        del options
        return {"name": url.removeprefix("memory://")}
