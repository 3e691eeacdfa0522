"""Transparent object proxies that act as wide-area references, resolved just in time."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
