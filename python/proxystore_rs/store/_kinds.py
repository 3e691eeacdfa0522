"""Connector classes by name."""

from __future__ import annotations

import functools
from typing import Any

from proxystore_rs import trust
from proxystore_rs.exceptions import StoreConfigError
from proxystore_rs.utils.imports import import_from_path

_PACKAGE = "proxystore_rs.connectors."

SHORT_NAMES = {
    "endpoint": f"{_PACKAGE}endpoint.EndpointConnector",
    "file": f"{_PACKAGE}file.FileConnector",
    "globus": f"{_PACKAGE}globus.GlobusConnector",
    "local": f"{_PACKAGE}local.LocalConnector",
    "memory": f"{_PACKAGE}memory.MemoryConnector",
    "multi": f"{_PACKAGE}multi.MultiConnector",
    "redis": f"{_PACKAGE}redis.RedisConnector",
    "sharedmemory": f"{_PACKAGE}shm.SharedMemoryConnector",
    "shm": f"{_PACKAGE}shm.SharedMemoryConnector",
}
"""Paths by the short name, in small letters, that a configuration may use."""

NATIVE_SCHEMES = {
    "memory": f"{_PACKAGE}memory.MemoryConnector",
    "file": f"{_PACKAGE}file.FileConnector",
    "shm": f"{_PACKAGE}shm.SharedMemoryConnector",
    "multi": f"{_PACKAGE}multi.MultiConnector",
    "redis": f"{_PACKAGE}redis.RedisConnector",
    "rediss": f"{_PACKAGE}redis.RedisConnector",
    "redis+unix": f"{_PACKAGE}redis.RedisConnector",
    "redis+cluster": f"{_PACKAGE}redis.RedisConnector",
    "rediss+cluster": f"{_PACKAGE}redis.RedisConnector",
    "endpoint": f"{_PACKAGE}endpoint.EndpointConnector",
}
"""Paths of the native connectors by the scheme of their URLs."""

_METHODS = (
    *("close", "config", "from_config", "evict", "exists"),
    *("get", "get_batch", "put", "put_batch"),
)


def connector_type(kind: str) -> type[Any]:
    """Return the connector class of this path or short name."""
    name = kind.lower().replace("_", "").replace("-", "").removesuffix("connector")
    path = SHORT_NAMES.get(name, kind)
    if "." not in path:
        raise StoreConfigError(
            f'Unknown connector type "{kind}". Give the path of the class ("package.module.Class") '
            f"or one of {', '.join(SHORT_NAMES)}."
        )
    try:
        found = _import(path)
    except ImportError as error:
        if not _is_about(error, path):
            raise  # The module is there, and something that it needs is not.
        raise StoreConfigError(
            f'Unknown connector type "{kind}": {error}. Check the spelling, and that the package '
            "is installed here."
        ) from error
    missing = [name for name in _METHODS if not hasattr(found, name)]
    if not isinstance(found, type) or missing:
        raise StoreConfigError(
            f'"{kind}" is not a connector class'
            + (f": it has no {', '.join(missing)}." if missing else ".")
        )
    return found


def native_path(scheme: str) -> str:
    """Return the path of the native connector for URLs of this scheme."""
    path = NATIVE_SCHEMES.get(scheme)
    if path is None:
        raise StoreConfigError(
            f"a channel of kind {scheme!r} is unknown here; known are {', '.join(NATIVE_SCHEMES)} "
            "and connectors written in Python"
        )
    return path


@functools.cache
def key_type(scheme: str) -> Any:
    """Return the class of the keys of a native connector; called by the native code."""
    return _import(native_path(scheme))._key_type


def _import(path: str) -> Any:
    if path in trust._registered:
        return trust._registered[path]
    try:
        return import_from_path(path)
    except ImportError as error:
        # Configuration files that were written for the first implementation.
        if error.name == "proxystore" and path.startswith("proxystore.connectors."):
            return import_from_path(_PACKAGE + path.removeprefix("proxystore.connectors."))
        raise


def _is_about(error: ImportError, path: str) -> bool:
    name = error.name or path
    path = path.removeprefix("proxystore.connectors.")
    return path == name or path.startswith(f"{name}.") or name.startswith(_PACKAGE)
