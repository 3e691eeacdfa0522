"""Limits of endpoints."""

from __future__ import annotations

__all__ = ["MAX_CHUNK_LENGTH", "MAX_OBJECT_SIZE_DEFAULT"]

MAX_CHUNK_LENGTH = 1_000_000
"""Bytes in which `proxystore` sends bodies. Nothing here is sent in pieces of this length."""

MAX_OBJECT_SIZE_DEFAULT = 0
"""The longest object an endpoint takes unless its configuration says otherwise; 0 for any that fits."""
