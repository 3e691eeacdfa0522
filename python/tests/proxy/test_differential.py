"""Every operator, builtin and protocol, over a table of targets: op(proxy(x)) is what op(x) is."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import datetime
import inspect
import io
import itertools
import math
import operator
import os
import re
import struct
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from differential_targets import TARGETS, Everything, Point

from proxystore_rs.proxy import Proxy, is_resolved


def in_place(function: Callable[[Any, Any], Any], other: Any) -> Callable[[Any], Any]:
    def run(x: Any) -> Any:
        result = function(x, other)
        if type(x) is Proxy:
            assert result is x, "an in-place operation returns the proxy"
        return result, x if type(x) is Proxy else result

    return run


def arguments(*args: Any) -> Any:
    return args


def grown(container: Any, method: str, x: Any) -> Any:
    getattr(container, method)(x)
    return container


def hash_of(x: Any) -> Any:
    # Many hashes are made of addresses: that of a proxy is the one of its own target.
    return hash(x) == hash(x.__proxy_wrapped__ if type(x) is Proxy else x)


def with_block(x: Any) -> Any:
    with x as entered:
        raise KeyError("inside")
    return entered


def async_with(x: Any) -> Any:
    async def run() -> Any:
        async with x as entered:
            raise KeyError("inside")
        return entered

    return asyncio.run(run())


def async_for(x: Any) -> Any:
    async def run() -> Any:
        return [item async for item in x]

    return asyncio.run(run())


def async_next(x: Any) -> Any:
    async def run() -> Any:
        return await anext(aiter(x))

    return asyncio.run(run())


def awaited(x: Any) -> Any:
    async def run() -> Any:
        return await x

    return asyncio.run(run())


def run_all(x: Any) -> Any:
    """Drive an iterator to its end, with what it returns."""
    items = []
    while True:
        try:
            items.append(next(x))
        except StopIteration as stop:
            return items, stop.value


def class_pattern(x: Any) -> str:
    match x:
        case bool():
            return "bool"
        case int(n):
            return f"int {n}"
        case str(s):
            return f"str {s}"
        case Point(x=a, y=b):
            return f"point {a} {b}"
        case list():
            return "list"
        case dict():
            return "dict"
        case np.ndarray():
            return "array"
        case None:
            return "singleton none"
    return "other"


def set_item(key: Any, value: Any) -> Callable[[Any], Any]:
    def run(x: Any) -> Any:
        x[key] = value
        return x

    return run


def delete_item(key: Any) -> Callable[[Any], Any]:
    def run(x: Any) -> Any:
        del x[key]
        return x

    return run


def set_attribute(name: str) -> Callable[[Any], Any]:
    def run(x: Any) -> Any:
        setattr(x, name, 99)
        return getattr(x, name)

    return run


def delete_attribute(x: Any) -> Any:
    x.x = 1
    del x.x
    return hasattr(x, "x")


def call_keywords(x: Any) -> Any:
    return x(a=1, b=2)


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    # Truth, size, conversion.
    "bool": bool,
    "not": operator.not_,
    "len": len,
    "length_hint": operator.length_hint,
    "int": int,
    "float": float,
    "complex": complex,
    "index": operator.index,
    "str": str,
    "bytes": bytes,
    "ascii of str": lambda x: ascii(str(x)),
    "fspath": os.fspath,
    "format": format,
    "format spec": lambda x: format(x, ".3"),
    "format width": lambda x: f"{x:>8}",
    "format nested": lambda x: f"{x!s:>30}",
    "format percent": lambda x: "%s|%s" % (x, 1),  # noqa: UP031
    "format percent d": lambda x: "%d" % (x,),  # noqa: UP031
    "format percent f": lambda x: "%.1f" % (x,),  # noqa: UP031
    "hash": hash_of,
    "round": round,
    "round digits": lambda x: round(x, 1),
    "round none": lambda x: round(x, None),
    "trunc": math.trunc,
    "floor": math.floor,
    "ceil": math.ceil,
    "sqrt": math.sqrt,
    "chr": chr,
    "hex": hex,
    "bin": bin,
    "range": range,
    "divmod": lambda x: divmod(x, 2),
    "divmod reflected": lambda x: divmod(20, x),
    "pow": lambda x: pow(x, 2),
    "pow three": lambda x: pow(x, 2, 5),
    "pow three reflected": lambda x: pow(2, x, 5),
    "pow three last": lambda x: pow(7, 2, x),
    "abs": abs,
    "neg": operator.neg,
    "pos": operator.pos,
    "invert": operator.invert,
    # Iteration.
    "list": list,
    "tuple": tuple,
    "set": set,
    "sorted": sorted,
    "reversed": lambda x: list(reversed(x)),
    "enumerate": lambda x: list(enumerate(x)),
    "zip": lambda x: list(zip(x, "abc", strict=False)),
    "star": lambda x: [*x],
    "unpack": lambda x: arguments(*x),
    "double star": lambda x: dict(**x),
    "double star display": lambda x: {**x},
    "dict": dict,
    "sum": sum,
    "min": min,
    "max": max,
    "any": any,
    "all": all,
    "map": lambda x: list(map(str, x)),
    "chain": lambda x: list(itertools.chain(x, [1])),
    "join": lambda x: ",".join(x),
    "next": next,
    "next default": lambda x: next(x, "default"),
    "iter": lambda x: run_all(iter(x)),
    "drive": run_all,
    "send": lambda x: (next(x), x.send("sent"), run_all(x)),
    "throw": lambda x: x.throw(KeyError("thrown")),
    "close": lambda x: x.close(),
    "list extend": lambda x: grown([0], "extend", x),
    "dict update": lambda x: grown({}, "update", x),
    "set update": lambda x: {1}.union(x),
    # Items.
    "getitem 0": lambda x: x[0],
    "getitem -1": lambda x: x[-1],
    "getitem str": lambda x: x["a"],
    "getitem slice": lambda x: x[0:2],
    "getitem ellipsis": lambda x: x[...],
    "getitem none": lambda x: x[None],
    "getitem missing": lambda x: x["missing"],
    "setitem 0": set_item(0, 1),
    "setitem str": set_item("a", 1),
    "setitem slice": set_item(slice(0, 1), [9]),
    "delitem 0": delete_item(0),
    "delitem str": delete_item("a"),
    "contains 1": lambda x: 1 in x,
    "contains str": lambda x: "a" in x,
    "countOf": lambda x: operator.countOf(x, 1),
    "indexOf": lambda x: operator.indexOf(x, 1),
    "concat": lambda x: operator.concat(x, x),
    "as index": lambda x: [10, 20, 30, 40, 50, 60, 70, 80][x],
    "as slice": lambda x: [10, 20, 30][:x],
    "as key": lambda x: {5: "five", "abc": "letters", 2.75: "float"}[x],
    "as member": lambda x: x in [5, "abc", 2.75, None],
    "repeat": lambda x: [0] * x,
    "repeat reflected": lambda x: x * [0],
    # Calls and attributes.
    "call": lambda x: x(),
    "call one": lambda x: x(3),
    "call list": lambda x: x([1, 2]),
    "call keywords": call_keywords,
    "call star": lambda x: x(*[1], b=2),
    "dir": dir,
    "vars": vars,
    "class": lambda x: x.__class__,
    "doc": lambda x: x.__doc__,
    "module": lambda x: x.__module__,
    "name": lambda x: x.__name__,
    "qualname": lambda x: x.__qualname__,
    "annotations": lambda x: x.__annotations__,
    "slots": lambda x: x.__slots__,
    "attribute": lambda x: x.x,
    "attribute real": lambda x: x.real,
    "attribute shape": lambda x: x.shape,
    "attribute missing": lambda x: x.missing,
    "attribute private": lambda x: x._missing,
    "hasattr": lambda x: hasattr(x, "missing"),
    "getattr default": lambda x: getattr(x, "missing", 1),
    "setattr x": set_attribute("x"),
    "setattr new": set_attribute("brand_new"),
    "setattr doc": set_attribute("__doc__"),
    "delattr": delete_attribute,
    "method copy": lambda x: x.copy(),
    "method upper": lambda x: x.upper(),
    "method count": lambda x: x.count(1),
    "method keys": lambda x: list(x.keys()),
    "method tolist": lambda x: x.tolist(),
    "signature": lambda x: str(inspect.signature(x)),
    "fields": lambda x: [f.name for f in dataclasses.fields(x)],
    # Classes.
    **{
        f"isinstance {cls.__name__}": lambda x, cls=cls: isinstance(x, cls)
        for cls in (
            int,
            float,
            str,
            bytes,
            list,
            dict,
            tuple,
            set,
            type,
            BaseException,
            Point,
            np.ndarray,
            datetime.date,
            types.FunctionType,
            type(None),
            bool,
            complex,
        )
    },
    "isinstance union": lambda x: isinstance(x, int | str),
    "isinstance of it": lambda x: isinstance(5, x),
    "issubclass of it": lambda x: issubclass(int, x),
    "class pattern": class_pattern,
    # Contexts and asynchrony.
    "with": with_block,
    "async with": async_with,
    "async for": async_for,
    "anext": async_next,
    "await": awaited,
    "await call": lambda x: awaited(x()),
    "async run": lambda x: asyncio.run(x()),
    # Buffers.
    "memoryview": lambda x: bytes(memoryview(x)),
    "buffer join": lambda x: b"".join([x]),
    "buffer write": lambda x: io.BytesIO().write(x),
    "buffer struct": lambda x: struct.unpack("3s", x),
    "buffer from_bytes": lambda x: int.from_bytes(x, "big"),
    # NumPy.
    "np add": lambda x: np.add(x, 1),
    "np add reflected": lambda x: np.add(1, x),
    "np sum": np.sum,
    "np mean": np.mean,
    "np reduce": lambda x: np.add.reduce(x),
    "np concatenate": lambda x: np.concatenate([x, x]),
    "np where": lambda x: np.where(x, 1, 0),
    "np array plus": lambda x: np.ones(3) + x,
    "np array compare": lambda x: np.ones(3) == x,
    "np array index": lambda x: np.arange(10)[x],
    "np array in place": lambda x: operator.iadd(np.ones(3), x),
    "np shape": np.shape,
    "np ndim": np.ndim,
    "np asarray": np.asarray,
    "np array dtype": lambda x: np.array(x, dtype=float),
    "np isnan": np.isnan,
    "np out": lambda x: np.add(np.ones(3), 1, out=x),
    # Reading it twice changes nothing.
    "compare with itself": lambda x: x == x,
    "copy": lambda x: copy.copy(x),
    "deepcopy": lambda x: copy.deepcopy(x),
}


for _symbol in ("eq", "ne", "lt", "le", "gt", "ge"):
    _operator = getattr(operator, _symbol)
    for _label, _other in {"int": 3, "str": "abc", "list": [3, 1, 2], "none": None}.items():
        OPERATIONS[f"{_symbol} {_label}"] = lambda x, f=_operator, o=_other: f(x, o)
        OPERATIONS[f"{_symbol} {_label} reflected"] = lambda x, f=_operator, o=_other: f(o, x)


_BINARY = [
    "add",
    "sub",
    "mul",
    "matmul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "lshift",
    "rshift",
    "and_",
    "xor",
    "or_",
]


for _symbol in _BINARY:
    _operator = getattr(operator, _symbol)
    _in_place = getattr(operator, "i" + _symbol.rstrip("_"))
    for _label, _other in {"int": 2, "float": 1.5, "list": [1], "str": "x", "set": {1}}.items():
        OPERATIONS[f"{_symbol} {_label}"] = lambda x, f=_operator, o=_other: f(x, o)
        OPERATIONS[f"{_symbol} {_label} reflected"] = lambda x, f=_operator, o=_other: f(
            copy.copy(o), x
        )
        OPERATIONS[f"i{_symbol} {_label}"] = in_place(_in_place, _other)
    OPERATIONS[f"{_symbol} itself"] = lambda x, f=_operator: f(x, x)


class Difference:
    """A pair (target, operation) that may differ, and why. Either side may be any."""

    def __init__(self, reason: str, *operations: str, targets: str = ".*") -> None:
        self.reason = reason
        self.operations = re.compile("|".join(operations))
        self.targets = re.compile(targets)

    def covers(self, target: str, operation: str) -> bool:
        return bool(self.operations.fullmatch(operation) and self.targets.fullmatch(target))


DIFFERENCES = [
    Difference("callable() is true of every proxy, so inspect gets further", "signature"),
    Difference("the words name the type that C code met", "format percent [df]"),
    Difference("str % x takes anything with items for a mapping", "mod str reflected"),
    Difference("float(str) parses; C code asks any object for __float__ alike", "sqrt"),
    Difference("an array of an object that is no sequence holds the proxy", "np asarray"),
    Difference("numpy finds a buffer or a sequence first", "np (array|asarray).*"),
    Difference("bytes-likes are recognised by their buffer first", "buffer from_bytes"),
    Difference("numpy looks for exact tuples and for Ellipsis itself", "np out"),
    Difference("a slice object is recognised by its exact type", "as index", targets="slice"),
    Difference("None is recognised by identity", "as slice|class pattern", targets="none"),
    Difference("copying a proxy copies the reference", "copy|deepcopy"),
    Difference(
        "a target with __int__ only serves as an index",
        "index|chr|hex|bin|range|as .*",
        targets="only int",
    ),
]


# Python 3.13 crashes on pow(7, 2, Decimal("1.5")) without any proxy.
CRASHES = {("decimal", "pow three last")}


# Operations that are the target's own business to refuse, in its own words.
SAME_WORDS = re.compile(
    "(getitem|setitem|delitem|attribute|method|call|i?(add|sub|mul|truediv|mod) ).*"
    "|len|int|float|index|hash|next|iter|format.*|round.*|(neg|pos|abs|invert)|with"
)


def outcome(name: str, operation: Callable[[Any], Any], value: Any) -> Any:
    try:
        return "returned", normal(operation(value))
    except Exception as error:
        words = re.sub(r" at 0x[0-9a-f]+", "", str(error)) if SAME_WORDS.fullmatch(name) else ""
        return "raised", type(error), words


def normal(value: Any, depth: int = 4) -> Any:
    """A value as something that compares: types and contents, proxies unwrapped."""
    if type(value) is Proxy:
        value = value.__proxy_wrapped__
    kind = type(value)
    if depth and kind in (list, tuple):
        return kind, [normal(item, depth - 1) for item in value]
    if depth and kind is dict:
        return kind, [(normal(k), normal(v, depth - 1)) for k, v in value.items()]
    if isinstance(value, (np.ndarray, np.generic)):
        return kind, value.dtype, value.shape, repr(value.tolist())
    if kind is Everything:
        return kind, repr(value.log)
    if isinstance(value, (types.GeneratorType, io.StringIO)) or kind.__name__.endswith("iterator"):
        return kind
    text = repr(value)
    return kind, re.sub(r" at 0x[0-9a-f]+", "", text)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS)
def test_same_outcome(target: str) -> None:
    make = TARGETS[target]
    unexpected = []
    for name, operation in OPERATIONS.items():
        if (target, name) in CRASHES:
            continue
        bare = outcome(name, operation, make())
        proxied = outcome(name, operation, Proxy(make))
        preset = outcome(name, operation, Proxy(make, target=make()))
        listed = [d for d in DIFFERENCES if d.covers(target, name)]
        if bare == proxied == preset:
            continue
        if listed:
            continue
        unexpected.append(f"{name}: bare {bare}, proxy {proxied}, resolved {preset}")
    assert not unexpected, "\n" + "\n".join(f"{target}, {line}" for line in unexpected)


@pytest.mark.parametrize("target", TARGETS)
def test_never_resolved_by_looking(target: str) -> None:
    proxy = Proxy(TARGETS[target])
    repr(proxy)
    copy.copy(proxy)
    assert isinstance(proxy, Proxy)
    assert not is_resolved(proxy)
