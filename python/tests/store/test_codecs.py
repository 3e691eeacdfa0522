"""`codec="msgpack"` and `codec="data"`: what is written, what is refused, and what comes back."""

from __future__ import annotations

import datetime
import enum
import math
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Optional

import numpy as np
import pytest

from proxystore_rs.connectors.file import FileConnector
from proxystore_rs.connectors.memory import MemoryConnector
from proxystore_rs.exceptions import SerializationError, StoreConfigError
from proxystore_rs.proxy import is_resolved
from proxystore_rs.store import Store, StoreConfig, _classes

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]

Codec = Literal["msgpack", "data"]
CODECS: list[Codec] = ["msgpack", "data"]
MSGPACK, ARRAY = 3, 4


@dataclass
class Point:
    x: float
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class Frozen:
    point: Point
    tag: str = "none"


class Pair(NamedTuple):
    left: int
    right: Optional[Point] = None  # noqa: UP045 (both spellings are annotations)


class Color(enum.IntEnum):
    RED = 1


@dataclass
class Sample:
    name: str
    points: list[Point]
    by_name: dict[str, Point]
    corner: tuple[int, Point]
    maybe: Point | None
    pair: Pair
    color: Color
    strange: Unknown = None
    total: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.total += 1.0


SAMPLE = Sample(
    "a", [Point(1.0)], {"k": Point(2.0)}, (1, Point(3.0)), None, Pair(1, Point(4.0)), Color.RED
)


@pytest.fixture
def store() -> Iterator[Store[Any]]:
    connector = MemoryConnector("test-codecs")
    with Store("test-codecs", connector, cache_size=0, register=True) as store:
        yield store


def codec_of(store: Store[Any], key: Any) -> int:
    return int.from_bytes(bytes(store.connector.get(key))[10:12], "little")


def back(store: Store[Any], obj: Any, codec: Codec) -> Any:
    return store.get(store.put(obj, codec=codec))


@pytest.mark.parametrize(
    "obj",
    [
        None, True, False, 0, -1, 127, 128, -33, 2**63, 2**64 - 1, -(2**63), 1.5, math.inf, "", "ü€",
        b"", b"\x00\xff", [], {}, [1, [2, [3, None]]], {"a": {"b": [1.5, b"x"]}}, {1: "a", -2: "b"},
        "x" * 70000, list(range(70000)), {str(n): n for n in range(300)},
    ],
    ids=lambda obj: repr(obj)[:20],
)  # fmt: skip
@pytest.mark.parametrize("codec", CODECS)
def test_plain_values_come_back(store: Store[Any], obj: Any, codec: Codec) -> None:
    got = back(store, obj, codec)
    assert got == obj
    assert type(got) is type(obj)


def test_not_a_number_comes_back(store: Store[Any]) -> None:
    assert math.isnan(back(store, math.nan, "data"))


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ((1, (2,)), [1, [2]]),
        (bytearray(b"x"), b"x"),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (Color.RED, 1),
        (np.float32(0.5), 0.5),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        ({"a": [np.float64(1.5), np.str_("t")]}, {"a": [1.5, "t"]}),
        ([Point(1.0)], [{"x": 1.0, "y": 0.0}]),
    ],
)
def test_others_come_back_as_what_they_stand_for(
    store: Store[Any], obj: Any, expected: Any
) -> None:
    got = back(store, obj, "msgpack")
    assert got == expected
    assert type(got) is type(expected)


def nested(depth: int) -> Any:
    obj: Any = 1
    for _ in range(depth):
        obj = [obj]
    return obj


def cycle() -> Any:
    obj: dict[str, Any] = {"a": []}
    obj["a"].append(obj)
    return obj


@pytest.mark.parametrize(
    ("obj", "place", "remedy"),
    [
        ({"a": [0, 1, 2, {1}]}, r"at obj\['a'\]\[3\]: a value of type set", "use a list"),
        ([np.zeros(3)], r"at obj\[0\]: a value of type numpy.ndarray", "by themselves"),
        (Frozen(Point(2**70)), r"at obj\.point\.x: an integer of more than 64 bits", "as text"),
        (Pair(object()), r"at obj\.left: a value of type object", "without codec="),  # type: ignore[arg-type]
        ({1.5: 1}, r"at obj: the key 1\.5 is neither str nor int", "list of pairs"),
        ({True: 1}, "the key True", "list of pairs"),
        ({"k": 1j}, r"at obj\['k'\]: a value of type complex", "pair of floats"),
        ([datetime.date(2026, 1, 1)], "of type datetime.date", "isoformat"),
        (np.datetime64("2026-01-01", "ns"), "of type numpy.datetime64", "number or text"),
        (np.longdouble(1), "of type numpy", "number or text"),
        (["\udc80"], "lone surrogates", "bytes"),
        (cycle(), r"at obj\['a'\]\[0\]: the object contains itself", "tree"),
        (nested(513), "nested more than 512 deep", "parts"),
        (print, "of type builtin_function_or_method", "without codec="),
    ],
)
@pytest.mark.parametrize("codec", CODECS)
def test_errors_name_the_place_and_the_remedy(
    store: Store[Any], obj: Any, place: str, remedy: str, codec: Codec
) -> None:
    with pytest.raises(SerializationError, match=f"{place}.*; .*{remedy}"):
        store.put(obj, codec=codec)


def test_the_deepest_object_comes_back(store: Store[Any]) -> None:
    got, depth = back(store, nested(512), "data"), 0
    while got != 1:
        got, depth = got[0], depth + 1
    assert depth == 512


def test_a_proxy_inside_is_an_error(store: Store[Any]) -> None:
    proxy = store.proxy([1], populate_target=False)
    with pytest.raises(SerializationError, match=r"at obj\[0\]: a proxy.*extract"):
        store.put([proxy], codec="data")
    assert not is_resolved(proxy)


ARRAYS = [
    np.arange(6).astype(dtype).reshape(2, 3)
    for dtype in ("?", "b", "B", "<i2", ">i4", "=u8", "e", ">f8", "<c8", ">c16")
]
ARRAYS += [
    np.array(1.5),
    np.zeros((0, 3), ">i2"),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(24.0)[::2],
    np.arange(24.0)[::-1],
    np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
    np.broadcast_to(np.float32(2), (3, 2)),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype.str}{a.shape}{a.strides}")
def test_every_plain_array_is_data(store: Store[Any], array: Any) -> None:
    key = store.put(array, codec="data")
    assert codec_of(store, key) == ARRAY
    got = store.get(key)
    assert got.shape == array.shape
    assert got.dtype == array.dtype.newbyteorder("<")
    assert (got == array).all()
    assert got.flags.c_contiguous or got.flags.f_contiguous


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a"]),
        np.array([object()]),
        np.array(["2026-01-01"], "M8[D]"),
        np.zeros(2, "i4,f8"),
        np.ma.masked_array([1.0]),
    ],
    ids=lambda a: str(a.dtype),
)
def test_other_arrays_are_not(store: Store[Any], array: Any) -> None:
    with pytest.raises(SerializationError, match="codec='data' cannot store an array of"):
        store.put(array, codec="data")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("obj", [SAMPLE, Frozen(Point(1.0), "t"), Pair(1, Point(2.0)), Point(1.0)])
def test_dataclasses_come_back_as_they_were(store: Store[Any], obj: Any, codec: Codec) -> None:
    got = back(store, obj, codec)
    assert got == obj
    assert type(got) is type(obj)


def test_no_code_of_the_class_runs(store: Store[Any]) -> None:
    assert SAMPLE.total == 1.0
    got = back(store, SAMPLE, "data")
    assert got.total == 1.0  # __post_init__ would have counted on
    assert type(got.points[0]) is type(got.by_name["k"]) is type(got.corner[1]) is Point


@pytest.mark.parametrize("codec", CODECS)
def test_a_class_that_is_not_loaded_is_a_dict(
    store: Store[Any], monkeypatch: pytest.MonkeyPatch, codec: Codec
) -> None:
    key = store.put(Point(1.0, 2.0), codec=codec)
    monkeypatch.delitem(sys.modules, __name__)
    assert store.get(key) == {"x": 1.0, "y": 2.0}
    assert __name__ not in sys.modules


def test_names_are_not_imported() -> None:
    assert "antigravity" not in sys.modules
    assert _classes.named("antigravity:Sample", {"a": 1}, False) == {"a": 1}
    assert _classes.named("os:environ", {"a": 1}, False) == {"a": 1}
    assert _classes.named("subprocess:Popen", {"a": 1}, False) == {"a": 1}
    assert "antigravity" not in sys.modules


def test_a_local_class_is_a_dict(store: Store[Any]) -> None:
    @dataclass
    class Local:
        a: int

    assert back(store, Local(1), "msgpack") == {"a": 1}


def test_another_version_of_the_class_is_an_error() -> None:
    name = f"{__name__}:Point"
    assert _classes.named(name, {"x": 1.0}, False) == Point(1.0)
    with pytest.raises(SerializationError, match=r"at obj: .*Point has no field 'z'; .*type=dict"):
        _classes.named(name, {"x": 1.0, "z": 1}, False)
    with pytest.raises(SerializationError, match="Point needs the field 'x'"):
        _classes.named(name, {"y": 1.0}, False)
    with pytest.raises(SerializationError, match=r"at obj\.point: Point is made of a map.* not of"):
        _classes.made(Frozen, {"point": 1})


def test_a_type_can_be_asked_for(store: Store[Any]) -> None:
    key = store.put([{"x": 1.0}], codec="msgpack")
    assert store.get(key, type=list[Point]) == [Point(1.0)]
    assert store.get(key) == [{"x": 1.0}]
    with pytest.raises(SerializationError, match="the object is list, not str"):
        store.get(key, type=str)
    named = store.put(Point(1.0), codec="msgpack")
    assert store.get(named, type=dict) == {"x": 1.0, "y": 0.0}
    assert store.get(store.put("text"), type=str) == "text"


def test_a_type_asked_for_is_not_cached(store: Store[Any]) -> None:
    with Store("codecs-cached", store.connector) as cached:
        key = cached.put(Point(1.0), codec="msgpack")
        assert cached.get(key) == Point(1.0)
        assert cached.get(key, type=dict) == {"x": 1.0, "y": 0.0}
        assert cached.get(key) == Point(1.0)


@pytest.mark.parametrize("codec", CODECS)
def test_every_way_in_takes_a_codec(store: Store[Any], codec: Codec) -> None:
    with pytest.raises(SerializationError):
        store.put({1}, codec=codec)
    with pytest.raises(SerializationError):
        store.put_batch([1, {1}], codec=codec)
    with pytest.raises(SerializationError):
        store.proxy({1}, codec=codec)
    with pytest.raises(SerializationError):
        store.proxy_batch([{1}], codec=codec)
    with pytest.raises(SerializationError):
        store.locked_proxy({1}, codec=codec)
    with pytest.raises(SerializationError):
        store.owned_proxy({1}, codec=codec)
    future = store.future(codec=codec)
    moved = pickle.loads(pickle.dumps(future))
    for one in (future, moved):
        with pytest.raises(SerializationError):
            one.set_result({1})
    moved.set_result(Point(1.0))
    assert future.result() == Point(1.0)
    assert codec_of(store, future._factory.key) == MSGPACK
    assert store.proxy(Point(1.0), codec=codec, populate_target=False).x == 1.0
    assert store.proxy_batch([[1]], codec=codec, populate_target=False)[0] == [1]
    assert store.locked_proxy([1], codec=codec).unlock() == [1]
    assert store.owned_proxy([1], codec=codec) == [1]


@pytest.mark.parametrize("codec", CODECS)
def test_a_store_has_a_codec_that_travels(tmp_path: Path, codec: Codec) -> None:
    with Store("codec-travels", MemoryConnector("codec-travels"), codec=codec) as store:
        with pytest.raises(SerializationError):
            store.put({1})
        config = store.config()
        assert config.codec == codec
        config.write_toml(tmp_path / "store.toml")
        assert StoreConfig.from_toml(tmp_path / "store.toml") == config
        factory = pickle.loads(pickle.dumps(store.proxy([1]))).__proxy_factory__
        assert factory.store_config == config
        with Store.from_config(config) as other, pytest.raises(SerializationError):
            other.put({1})


def test_wrong_codecs_are_errors(store: Store[Any]) -> None:
    wrong: Any = "json"
    with pytest.raises(ValueError, match="codec must be None, 'msgpack' or 'data', not \"json\""):
        store.put(1, codec=wrong)
    with pytest.raises(ValueError, match="codec must be"):
        store.get(store.put(1), codec=wrong)
    with pytest.raises(ValueError, match="codec must be"):
        Store("wrong-codec", MemoryConnector("wrong-codec"), codec=wrong)
    with pytest.raises(
        StoreConfigError, match=r"StoreConfig\.codec must be one of None, 'msgpack', 'data'"
    ):
        StoreConfig(name="a", connector={"kind": "local"}, codec=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="serializer and codec both say"):
        store.put(1, codec="data", serializer=pickle.dumps)
    with pytest.raises(ValueError, match="serializer and codec='msgpack' both say"):
        Store("both", store.connector, codec="msgpack", serializer=pickle.dumps)


def test_a_proxy_of_a_dataclass_works_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "shapes.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Shape:\n    sides: int\n    def area(self): return self.sides * 2\n"
    )
    make = (
        "import pickle, sys, shapes\n"
        "from proxystore_rs.connectors.file import FileConnector\n"
        "from proxystore_rs.store import Store\n"
        "store = Store('shapes', FileConnector(sys.argv[1]), codec='data', register=True)\n"
        "sys.stdout.buffer.write(pickle.dumps(store.proxy(shapes.Shape(3))))\n"
    )
    use = (
        "import pickle, sys, shapes\n"
        "proxy = pickle.loads(sys.stdin.buffer.read())\n"
        "assert isinstance(proxy, shapes.Shape) and proxy.area() == 6 and proxy.sides == 3\n"
    )
    folder = str(tmp_path / "objects")
    options: dict[str, Any] = {"cwd": tmp_path, "timeout": 120, "check": True}
    made = subprocess.run([sys.executable, "-c", make, folder], capture_output=True, **options)
    subprocess.run([sys.executable, "-c", use], input=made.stdout, **options)
    FileConnector(folder).close(clear=True)
