"""Warning categories of this package."""

from __future__ import annotations

__all__ = ["ExperimentalWarning"]


class ExperimentalWarning(Warning):
    """A feature may still change, or be removed, without a deprecation first.

    >>> import warnings
    >>> warnings.simplefilter("ignore", ExperimentalWarning)
    """
