"""Warning categories of this package."""

from __future__ import annotations

__all__ = ["ExperimentalWarning", "UntrustedImportWarning"]


class ExperimentalWarning(Warning):
    """A feature may still change, or be removed, without a deprecation first.

    >>> import warnings
    >>> warnings.simplefilter("ignore", ExperimentalWarning)
    """


class UntrustedImportWarning(Warning):
    """A reference names a class that this process does not know, and that is imported and used.

    Remedy: the text says how to register it, or how to allow all classes. To import none, see
    `proxystore_rs.trust.imports`.
    """
