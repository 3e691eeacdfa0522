"""Keys of sealed stores."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["SealedKey"]


class SealedKey(NamedTuple):
    """Key of a sealed object: the connector's key, and what opens the object.

    Whoever has it can read the object, and nobody else can, so treat it like the object itself:
    pickling it carries the secret, showing it does not.

    >>> SealedKey(('abc',), b'secret')
    SealedKey(key=('abc',), secret=***)
    """

    key: Any
    """The connector's key."""
    secret: bytes
    """Opens the object."""
    digest: bytes | None = None
    """Pins the contents, if the store signs."""

    def __repr__(self) -> str:
        return f"SealedKey(key={self.key!r}, secret=***)"
