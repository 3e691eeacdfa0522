"""Filters: which objects are dropped, by what their producer says of them.

Any function from metadata to bool is one; true is for objects that are dropped.

>>> too_dark = lambda metadata: metadata['brightness'] < 10
>>> too_dark({'brightness': 3})
True
"""

from __future__ import annotations

import random
from typing import Any

__all__ = ["NullFilter", "SamplingFilter"]


class NullFilter:
    """Drops nothing.

    >>> NullFilter()({})
    False
    """

    def __call__(self, metadata: dict[str, Any]) -> bool:
        """Return that the object is kept."""
        return False


class SamplingFilter:
    """Drops objects at random.

    Args:
        p: The probability that an object is dropped, from 0 to 1.

    Raises:
        ValueError: It is no probability.

    >>> SamplingFilter(1.0)({})
    True
    """

    def __init__(self, p: float) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p is a probability, from 0 to 1, not {p!r}")
        self._p = p

    def __call__(self, metadata: dict[str, Any]) -> bool:
        """Return whether the object is dropped."""
        return random.random() < self._p
