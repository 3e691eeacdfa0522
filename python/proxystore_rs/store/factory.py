"""Factories that fetch their target from a store."""

from __future__ import annotations

from proxystore_rs._core import StoreFactory

__all__ = ["StoreFactory"]
