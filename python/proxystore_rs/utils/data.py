"""Sizes for people, and pieces of bytes."""

from __future__ import annotations

import re
from collections.abc import Generator

__all__ = ["bytes_to_readable", "chunk_bytes", "readable_to_bytes"]

_DECIMAL = ("B", "KB", "MB", "GB", "TB")
_UNITS = {unit.lower(): 1000**power for power, unit in enumerate(_DECIMAL)} | {
    unit.lower(): 1024**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), 1)
}


def chunk_bytes(data: bytes, chunk_size: int) -> Generator[bytes, None, None]:
    """Yield the data in pieces of at most `chunk_size` bytes.

    >>> list(chunk_bytes(b'abcde', 2))
    [b'ab', b'cd', b'e']

    Raises:
        ValueError: When `chunk_size` is not positive.
    """
    if chunk_size <= 0:
        raise ValueError(f"chunk_size must be positive, not {chunk_size}")
    for start in range(0, len(data), chunk_size):
        yield data[start : start + chunk_size]


def bytes_to_readable(size: int, precision: int = 3) -> str:
    """Return a size in decimal units, with at most `precision` digits after the point.

    >>> bytes_to_readable(1001)
    '1.001 KB'
    >>> bytes_to_readable(123456, precision=0)
    '123 KB'

    Raises:
        ValueError: When `size` is negative.
    """
    if size < 0:
        raise ValueError(f"Size ({size}) cannot be negative.")
    power = next((p for p in range(len(_DECIMAL) - 1) if size < 1000 ** (p + 1)), 4)
    value = str(round(size / 1000**power, precision))
    if "." in value:
        value = value.rstrip("0").rstrip(".")
    return f"{value} {_DECIMAL[power]}"


def readable_to_bytes(size: str) -> int:
    """Return the number of bytes that a size says; parts of a byte are cut off.

    Units are B, KB to TB (powers of 1000) and KiB to TiB (powers of 1024), in any case; without
    one, bytes.

    >>> readable_to_bytes('1.2 KB'), readable_to_bytes('1KiB'), readable_to_bytes('5')
    (1200, 1024, 5)

    Raises:
        ValueError: When the text is not a number and a unit, or the unit is unknown.
    """
    import decimal  # Costs more to import than the rest of this module.

    parts = [part for part in re.split(r"([a-zA-Z]+)\s*$", size.strip()) if part.strip()]
    number, unit = parts[0] if parts else "", parts[1] if len(parts) > 1 else "B"
    try:
        value = decimal.Decimal(number.strip())
        if not value.is_finite():
            raise decimal.InvalidOperation
    except decimal.InvalidOperation:
        raise ValueError(
            f'Input string "{size}" must contain only a value and a unit, such as "1.5 MB".'
        ) from None
    if unit.lower() not in _UNITS:
        raise ValueError(f"Unknown unit type {unit}. Use B, KB, MB, GB, TB, KiB, MiB, GiB or TiB.")
    return int(value * _UNITS[unit.lower()])
