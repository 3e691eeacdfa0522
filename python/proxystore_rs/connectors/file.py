"""Objects as files in a directory."""

from __future__ import annotations

import os
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from proxystore_rs._core import NativeConnector


class FileKey(NamedTuple):
    """Key of an object in a file."""

    filename: str
    generation: int = 0
    size: int = 0


class FileConnector(NativeConnector):
    """Keeps each object in a file of a directory that all processes reach.

    Args:
        store_dir: the directory, created if need be; made absolute at once.
        clear: `close` removes the objects, and the directory if nothing else is in it.
        buffering: accepted for compatibility; objects are written in one piece.

    >>> import tempfile
    >>> connector = FileConnector(tempfile.mkdtemp())
    >>> key = connector.put(b'hello')
    >>> bytes(connector.get(key))
    b'hello'
    >>> connector.close()
    """

    _key_type = FileKey
    _scheme = "file"

    def __init__(self, store_dir: str, *, clear: bool = True, buffering: int = -1) -> None:
        self.store_dir = _absolute(store_dir)
        self.clear = clear
        self.buffering = buffering
        url, options = self._to_url({"store_dir": self.store_dir, "clear": clear})
        self._open(url, options)

    def __repr__(self) -> str:
        return f"FileConnector(store_dir={self.store_dir!r}, clear={self.clear})"

    def close(self, clear: bool | None = None) -> None:
        """Release the connector; remove its objects if `clear`, by default the instance's own."""
        self._close(self.clear if clear is None else clear)

    def config(self) -> dict[str, Any]:
        """Return the arguments of an equal connector."""
        return {"store_dir": self.store_dir, "clear": self.clear, "buffering": self.buffering}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FileConnector:
        """Open a connector from `config()`."""
        return cls(**config)

    @classmethod
    def _to_url(cls, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        path = quote(os.fsencode(_absolute(options["store_dir"])))
        return f"file://{path}", {"clear": bool(options.get("clear", True))}

    @classmethod
    def _from_url(cls, url: str, options: dict[str, Any]) -> dict[str, Any]:
        path = os.fsdecode(unquote_to_bytes(url.removeprefix("file://")))
        return {"store_dir": path, "clear": options.get("clear", False)}


def _absolute(path: str) -> str:
    path = os.path.abspath(path)
    # Two leading slashes survive that, and mean the same as one.
    return path[1:] if path.startswith("//") else path
