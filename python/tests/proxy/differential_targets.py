"""Targets of the differential test: an object of every kind that operations tell apart."""

from __future__ import annotations

import array
import asyncio
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import math
import pathlib
import re
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas")


class Color(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass(order=True)
class Point:
    x: int = 1
    y: float = 2.5

    def norm(self) -> float:
        return abs(complex(self.x, self.y))


Pair = collections.namedtuple("Pair", "left right")


class Everything:
    """Every operator, answering with its own name and operands."""

    value = 7

    def __init__(self) -> None:
        self.log: list[Any] = []

    def __repr__(self) -> str:
        return "Everything()"

    def __eq__(self, other: object) -> Any:
        return ("eq", type(other).__name__)

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int) and key > 2:
            raise IndexError(key)
        return ("getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.log.append(("set", key, value))

    def __delitem__(self, key: Any) -> None:
        self.log.append(("del", key))

    def __len__(self) -> int:
        return 3

    def __contains__(self, key: Any) -> bool:
        return key == 1

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return ("call", args, kwargs)

    def __round__(self, ndigits: Any = None) -> Any:
        return ("round", ndigits)

    def __index__(self) -> int:
        return 2

    def __fspath__(self) -> str:
        return "/tmp"

    def __length_hint__(self) -> int:
        return 5

    def __enter__(self) -> Any:
        return "entered"

    def __exit__(self, *args: object) -> bool:
        self.log.append(args[0])
        return True

    async def __aenter__(self) -> Any:
        return "entered"

    async def __aexit__(self, *args: object) -> bool:
        self.log.append(args[0])
        return True

    def __instancecheck__(self, instance: Any) -> bool:
        return bool(instance == 5)

    def __subclasscheck__(self, subclass: Any) -> bool:
        return bool(subclass is int)

    def __reversed__(self) -> Any:
        return iter("reversed")

    def __format__(self, spec: str) -> str:
        return f"formatted {spec}"

    def __bytes__(self) -> bytes:
        return b"bytes"


for _name in [
    "add",
    "sub",
    "mul",
    "matmul",
    "truediv",
    "floordiv",
    "mod",
    "divmod",
    "pow",
    "lshift",
    "rshift",
    "and",
    "xor",
    "or",
]:
    for _kind in ("", "r") if _name == "divmod" else ("", "r", "i"):

        def _method(self: Any, *others: Any, _label: str = _kind + _name) -> Any:
            return (_label, others)

        setattr(Everything, f"__{_kind}{_name}__", _method)


for _name in ["neg", "pos", "abs", "invert", "trunc", "floor", "ceil"]:
    setattr(Everything, f"__{_name}__", lambda self, _label=_name: (_label,))


class OnlyInt:
    def __int__(self) -> int:
        return 3


class AsyncItems:
    def __init__(self) -> None:
        self.count = 0

    def __aiter__(self) -> AsyncItems:
        return self

    async def __anext__(self) -> int:
        self.count += 1
        if self.count > 3:
            raise StopAsyncIteration
        return self.count


def generator() -> Any:
    received = yield 1
    yield received
    return "the value"


async def coroutine() -> int:
    await asyncio.sleep(0)
    return 42


def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


def a_file() -> Any:
    return io.StringIO("one\ntwo\n")


TARGETS: dict[str, Callable[[], Any]] = {
    "int": lambda: 5,
    "int zero": lambda: 0,
    "int negative": lambda: -3,
    "bool": lambda: True,
    "float": lambda: 2.75,
    "float nan": lambda: math.nan,
    "complex": lambda: 1 + 2j,
    "decimal": lambda: decimal.Decimal("1.50"),
    "fraction": lambda: fractions.Fraction(3, 4),
    "none": lambda: None,
    "ellipsis": lambda: ...,
    "not implemented": lambda: "NotImplemented",
    "str": lambda: "abc",
    "str number": lambda: "12",
    "str empty": lambda: "",
    "bytes": lambda: b"abc",
    "bytearray": lambda: bytearray(b"abc"),
    "memoryview": lambda: memoryview(b"abcd"),
    "array": lambda: array.array("d", [1.0, 2.0]),
    "list": lambda: [3, 1, 2],
    "list empty": list,
    "list of str": lambda: ["a", "b"],
    "tuple": lambda: (1, 2, 3),
    "namedtuple": lambda: Pair(1, "x"),
    "dict": lambda: {"a": 1, "b": 2},
    "dict of int": lambda: {0: "zero", 1: "one"},
    "ordered dict": lambda: collections.OrderedDict(b=1, a=2),
    "counter": lambda: collections.Counter("aab"),
    "deque": lambda: collections.deque([1, 2], maxlen=5),
    "set": lambda: {1, 2},
    "frozenset": lambda: frozenset({1, 2}),
    "range": lambda: range(5),
    "slice": lambda: slice(1, 2),
    "iterator": lambda: iter([1, 2]),
    "generator": generator,
    "coroutine function": lambda: coroutine,
    "async items": AsyncItems,
    "file": a_file,
    "function": lambda: add,
    "builtin": lambda: len,
    "partial": lambda: functools.partial(add, 2),
    "method": lambda: [1].count,
    "class": lambda: Point,
    "builtin class": lambda: int,
    "enum class": lambda: Color,
    "enum": lambda: Color.RED,
    "dataclass": Point,
    "module": lambda: math,
    "exception": lambda: ValueError("wrong"),
    "date": lambda: datetime.date(2024, 2, 29),
    "datetime": lambda: datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC),
    "timedelta": lambda: datetime.timedelta(days=1),
    "path": lambda: pathlib.PurePosixPath("/tmp/x"),
    "pattern": lambda: re.compile("a(b)"),
    "generic alias": lambda: list[int],
    "everything": Everything,
    "object": object,
    "only int": OnlyInt,
    "namespace": lambda: types.SimpleNamespace(x=1),
    "ndarray float": lambda: np.array([1.0, 2.0, 3.0]),
    "ndarray int": lambda: np.array([[1, 2], [3, 4]]),
    "ndarray bool": lambda: np.array([True, False, True]),
    "ndarray str": lambda: np.array(["a", "bc"]),
    "ndarray object": lambda: np.array([None, 1], dtype=object),
    "ndarray datetime64": lambda: np.array(["2020-01-01", "2021-01-01"], dtype="M8[D]"),
    "ndarray structured": lambda: np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "ndarray empty": lambda: np.zeros((0, 3)),
    "ndarray scalar": lambda: np.array(3.5),
    "numpy float": lambda: np.float32(1.5),
    "numpy int": lambda: np.int64(7),
    "numpy bool": lambda: np.True_,
    "numpy datetime64": lambda: np.datetime64("2020-01-01"),
    "numpy dtype": lambda: np.dtype("f8"),
    "series": lambda: pd.Series([1, 2, 3], index=["a", "b", "c"]),
    "data frame": lambda: pd.DataFrame({"a": [1, 2], "b": [3.0, 4.0]}),
    "index": lambda: pd.Index([1, 2, 3]),
    "timestamp": lambda: pd.Timestamp("2020-01-01"),
}
