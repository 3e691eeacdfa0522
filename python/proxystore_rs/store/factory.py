"""Factories that fetch their target from a store."""

from __future__ import annotations

from typing import Any

from proxystore_rs._core import StoreFactory, _factory

__all__ = ["StoreFactory"]


class UnreadableReference:
    """Factory of a proxy whose reference cannot be read here; says why when it is called.

    It travels with its bytes, so that a process that can read them resolves the proxy.
    """

    def __init__(self, reference: bytes) -> None:
        self.reference = reference

    def __call__(self) -> Any:
        """Try again to read the reference, and resolve it."""
        return _factory(self.reference, StoreFactory)()

    def __repr__(self) -> str:
        return f"UnreadableReference({len(self.reference)} bytes)"
