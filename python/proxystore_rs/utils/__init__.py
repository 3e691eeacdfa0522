"""Helpers."""

from __future__ import annotations

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
