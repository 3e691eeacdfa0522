"""Helpers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxystore_rs._lazy import lazy

if TYPE_CHECKING:
    from proxystore_rs.utils.data import bytes_to_readable, chunk_bytes, readable_to_bytes
    from proxystore_rs.utils.environment import home_dir, hostname
    from proxystore_rs.utils.imports import get_object_path, import_from_path

__all__ = [
    "bytes_to_readable",
    "chunk_bytes",
    "get_object_path",
    "home_dir",
    "hostname",
    "import_from_path",
    "readable_to_bytes",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "bytes_to_readable": "data",
        "chunk_bytes": "data",
        "get_object_path": "imports",
        "home_dir": "environment",
        "hostname": "environment",
        "import_from_path": "imports",
        "readable_to_bytes": "data",
    },
)
