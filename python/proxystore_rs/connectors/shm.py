"""Objects in shared memory of this host."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from proxystore_rs._core import NativeConnector, sweep_shared_memory


class SharedMemoryKey(NamedTuple):
    """Key of an object in shared memory."""

    id: str
    generation: int = 0
    size: int = 0


class SharedMemoryConnector(NativeConnector):
    """Keeps objects in a session in shared memory: readers map them and copy nothing.

    All processes of this user on this host that open the session reach its objects. They belong
    to the session: a worker may end, and its results live on. What a session leaves when its last
    process ends, or is killed, is removed when the next connector opens, or by `sweep`.

    Args:
        name: the session.
        root: directory of the user's sessions; by default in `/dev/shm`.
        pool_bytes: how much memory of evicted objects is kept to be used again.
        persist: the session is never swept; remove it with `close(clear=True)`.
        clear: `close` removes the objects, unless it is told otherwise.

    >>> connector = SharedMemoryConnector('docs')
    >>> key = connector.put(b'hello')
    >>> bytes(connector.get(key))
    b'hello'
    >>> connector.close(clear=True)
    """

    _key_type = SharedMemoryKey
    _scheme = "shm"

    def __init__(
        self,
        name: str,
        *,
        root: str | None = None,
        pool_bytes: int | None = None,
        persist: bool = False,
        clear: bool = False,
    ) -> None:
        self.name = name
        self.root = None if root is None else os.path.abspath(root)
        self.pool_bytes = pool_bytes
        self.persist = persist
        self.clear = clear
        url, options = self._to_url(self.config())
        self._open(url, options)

    def __repr__(self) -> str:
        return f"SharedMemoryConnector(name={self.name!r})"

    def close(self, clear: bool | None = None) -> None:
        """Release the connector; with `clear`, remove the session's objects."""
        self._close(self.clear if clear is None else clear)

    def config(self) -> dict[str, Any]:
        """Return the arguments of an equal connector."""
        return {
            "name": self.name,
            "root": self.root,
            "pool_bytes": self.pool_bytes,
            "persist": self.persist,
            "clear": self.clear,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SharedMemoryConnector:
        """Open a connector from `config()`."""
        return cls(**config)

    @classmethod
    def _to_url(cls, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        root = options.get("root")
        url = f"shm://{options['name']}" + (f"?root={root}" if root else "")
        native: dict[str, Any] = {}
        if options.get("pool_bytes") is not None:
            native["pool_bytes"] = options["pool_bytes"]
        if options.get("persist"):
            native["persist"] = True
        return url, native

    @classmethod
    def _from_url(cls, url: str, options: dict[str, Any]) -> dict[str, Any]:
        name, _, root = url.removeprefix("shm://").partition("?root=")
        return {"name": name, "root": root or None, **options}


class SweepReport(NamedTuple):
    """What a sweep found and did."""

    removed: list[str]
    """Sessions that no process held, now removed."""
    held: list[str]
    """Sessions left alone because a process holds them."""
    persistent: list[str]
    """Sessions left alone because they were opened with `persist`."""
    objects: int
    """Objects removed with their sessions."""
    bytes: int
    """Memory given back."""


def sweep(root: str | None = None) -> SweepReport:
    """Remove the sessions of this user that no process holds any more.

    Every connector does this when it opens; call it to free memory at once, for instance after
    processes were killed.

    >>> sweep().bytes >= 0
    True
    """
    return SweepReport(*sweep_shared_memory(root))
