"""TOML text of plain dictionaries; Python itself can only read it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(data: Mapping[str, Any]) -> str:
    """Return the TOML document of a dictionary.

    >>> print(to_toml({'name': 'a', 'options': {'port': 1, 'hosts': ['x', 'y']}}), end='')
    name = "a"
    <BLANKLINE>
    [options]
    port = 1
    hosts = ["x", "y"]

    Raises:
        TypeError: When a value has no TOML form; the text says where it is.
    """
    return "\n".join(_table(data, ())).lstrip("\n") + "\n" if data else ""


def without_none(value: Any) -> Any:
    """Return the value without the entries of dictionaries, however deep, that are None."""
    if isinstance(value, Mapping):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_none(item) for item in value]
    return value


def _table(data: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = []
    tables = []
    for key, value in data.items():
        if not isinstance(key, str):
            raise TypeError(f"{_where(path)}: TOML keys are strings, not {key!r}")
        if isinstance(value, Mapping):
            tables.append((key, value))
        else:
            lines.append(f"{_key(key)} = {_value(value, (*path, key))}")
    for key, value in tables:
        inner = (*path, key)
        lines += ["", f"[{'.'.join(map(_key, inner))}]", *_table(value, inner)]
    return lines


def _where(path: tuple[str, ...]) -> str:
    return ".".join(path) or "document"


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    import json

    # What JSON escapes is a part of what TOML allows, but for DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any, path: tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else str(float(value))
    if isinstance(value, str):
        return _string(str.__str__(value))
    import datetime

    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        items = (_value(item, (*path, str(index))) for index, item in enumerate(value))
        return f"[{', '.join(items)}]"
    if isinstance(value, Mapping):
        pairs = (f"{_key(key)} = {_value(item, (*path, key))}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    raise TypeError(
        f"{_where(path)} cannot be written to TOML: Object of type {type(value).__name__!r} "
        "is not TOML serializable"
    )
