"""Factories that fetch their target from a store."""

from __future__ import annotations

from typing import Any

from proxystore_rs._core import StoreFactory, _factory
from proxystore_rs.factory import Factory

__all__ = ["StoreFactory"]

Factory.register(StoreFactory)


class UnreadableReference(Factory[Any]):
    """Factory of a proxy whose reference cannot be read here; says why when it is called.

    It travels with its bytes, so that a process that can read them resolves the proxy.
    """

    def __init__(self, reference: bytes) -> None:
        self.reference = reference

    def resolve(self) -> Any:
        """Try again to read the reference, and resolve it."""
        return _factory(self.reference, StoreFactory)()

    def __repr__(self) -> str:
        return f"UnreadableReference({len(self.reference)} bytes)"
