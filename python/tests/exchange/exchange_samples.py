"""The objects. `crates/proxystore/examples/exchange/samples.rs` has the same under the same names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow as pa


@dataclass
class Site:
    """Part of a measurement."""

    name: str
    altitude: float


@dataclass
class Measurement:
    """What is a struct in Rust."""

    name: str
    counts: list[int]
    position: tuple[float, float]
    note: str | None
    origin: Site


# Types that both languages store alike whatever the codec of the store.
NEUTRAL: dict[str, Any] = {
    "bytes": bytes(range(256)),
    "bytes-empty": b"",
    "bytes-large": b"\x07" * 3_000_000,
    "text": "Grüße, 世界 🦀\0\r\n",
    "text-empty": "",
    "text-large": "ä" * 1_000_000,
}

# What is MessagePack: Python writes it with `codec="msgpack"`, and pickles it otherwise.
PACKED: dict[str, Any] = {
    "bool": True,
    "int": -5,
    "int-smallest": -(2**63),
    "int-largest": 2**64 - 1,
    "float": 0.1,
    "float-infinite": float("-inf"),
    "nothing": None,
    "list": ["a", "ß", ""],
    "list-empty": [],
    "list-of-int": [1, -2, 2**40],
    "tuple": ["energy", 1.5],
    "unit-variant": "Dark",
    "struct-variant": {"Light": {"seconds": 30.0}},
    "bytes-in-struct": {"name": "raw", "content": b"\x00\xff"},
    "map": {"a": 1, "ä": -1},
    "map-of-int": {-1: "a", 300: "b"},
    "nested": {"deep": [{"x": [[None, 0.5, None], []]}]},
    "struct": {
        "name": "M 31",
        "counts": [0, 1, 2**64 - 1],
        "position": [10.68, 41.27],
        "note": None,
        "origin": {"name": "Calar Alto", "altitude": 2168.0},
    },
}

# Tables of Arrow, in the classes of pyarrow.
_TYPES = {"name": pa.string(), "count": pa.uint16(), "flux": pa.float64(), "seen": pa.bool_()}
_COLUMNS = [
    pa.array(values, kind)
    for kind, values in zip(
        _TYPES.values(),
        (["M 31", None, "ß"], [0, 1, 65535], [1.5, None, -0.5], [True, False, None]),
        strict=True,
    )
]
_NUMBERS = {"y": np.arange(1000), "x": np.arange(1000) / 8}

TABLES: dict[str, Any] = {
    "table": pa.table(_COLUMNS, names=list(_TYPES)),
    "table-of-numbers": pa.table(_NUMBERS),
    "record-batch": pa.table(_COLUMNS[:2], names=list(_TYPES)[:2]),
}

# Data frames of other libraries, which are the table of numbers in Rust.
FRAMES: dict[str, Any] = {
    "polars": polars.DataFrame(_NUMBERS),
    "pandas": pandas.DataFrame(_NUMBERS),
}

# What Python stores in place of these, and Rust reads as the same.
ORIGINALS: dict[str, Any] = {
    "record-batch": pa.record_batch(_COLUMNS[:2], names=list(_TYPES)[:2]),
    "tuple": ("energy", 1.5),
    "struct": Measurement(
        name="M 31",
        counts=[0, 1, 2**64 - 1],
        position=(10.68, 41.27),
        note=None,
        origin=Site(name="Calar Alto", altitude=2168.0),
    ),
}

DTYPES = ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16")
SHAPES = ("", "0", "0x3", "5")

ARRAYS = [
    *(f"array:{dtype}:{order}:2x3x4" for dtype in DTYPES for order in "CF"),
    *(f"array:f8:C:{shape}" for shape in SHAPES),
    *("array:u2:C:100x200x50", "array:f4:F:100x200x50"),
]


def array(name: str) -> Any:
    """The array of a type such as `array:f8:F:2x3`."""
    _, dtype, order, sides = name.split(":")
    shape = [int(side) for side in sides.split("x") if side]
    # Element number n, counted with the last index fastest, is made of 7 n - 50.
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape) * 7 - 50
    match np.dtype(dtype).kind:
        case "b":
            elements = numbers % 2 != 0
        case "f":
            elements = numbers / 2
        case "c":
            elements = numbers / 2 - numbers * 1j
        case _:
            elements = numbers
    return np.asarray(elements.astype(dtype), order=order)


def sample(name: str) -> Any:
    """The object of a name."""
    if name.startswith("array:"):
        return array(name)
    return (NEUTRAL | PACKED | TABLES)[name]


def check(found: Any, name: str) -> None:
    """Fail unless `found`, which may be a proxy, is the object of that name, of the same type."""
    expected = sample(name)
    assert isinstance(found, type(expected))
    if isinstance(expected, np.ndarray):
        assert found.dtype.str == expected.dtype.str
        assert found.shape == expected.shape
        if expected.size:  # the strides of nothing mean nothing
            assert found.strides == expected.strides
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected
