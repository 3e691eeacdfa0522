"""Tables of pyarrow, pandas and polars come back as they were, and cost no copy."""

from __future__ import annotations

import datetime as dt
import pickle
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from proxystore_rs import _tables
from proxystore_rs.exceptions import SerializationError
from proxystore_rs.proxy import Proxy
from proxystore_rs.store import Store

TABLE = 6
PICKLE = 16


def _codec(store: Store[Any], key: Any) -> int:
    """Return the number of the codec in the head of what lies in the channel."""
    return int.from_bytes(bytes(store.connector.get(key))[10:12], "little")


def _round_trip(store: Store[Any], table: Any, codec: int = TABLE) -> Any:
    key = store.put(table)
    assert _codec(store, key) == codec
    back = store.get(key)
    assert type(back) is type(table)
    return back


def _arrow_table() -> pa.Table:
    moment = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
    columns = {
        "ints": pa.array([1, None, 3]),
        "floats": pa.array([0.5, float("inf"), None]),
        "bools": pa.array([True, None, False]),
        "texts": pa.array(["a", None, "ü" * 30]),
        "views": pa.array(["a", None, "ü" * 30], pa.string_view()),
        "bytes": pa.array([b"\0", b"", None]),
        "labels": pa.array(["x", None, "x"]).dictionary_encode(),
        "lists": pa.array([[1, None], [], None]),
        "pairs": pa.array([{"a": 1, "b": ["u"]}, None, {"a": None, "b": None}]),
        "maps": pa.array([[("k", 1.0)], [], None], pa.map_(pa.string(), pa.float64())),
        "fixed": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int16(), 2)),
        "moments": pa.array([moment, None, moment], pa.timestamp("us", "Europe/Berlin")),
        "days": pa.array([moment.date(), None, moment.date()]),
        "spans": pa.array([dt.timedelta(seconds=1.5), None, dt.timedelta(days=9)]),
        "decimals": pa.array([Decimal("1.50"), None, Decimal("-2.25")]),
        "uuids": pa.ExtensionArray.from_storage(
            pa.uuid(), pa.array([b"\1" * 16] * 3, pa.binary(16))
        ),
        "nothing": pa.nulls(3),
    }
    table = pa.table(columns, metadata={"made by": "a test"})
    unit = table.schema.field("floats").with_metadata({"unit": "m"})
    return table.cast(table.schema.set(1, unit))


def test_arrow_tables_come_back(store: Store[Any]) -> None:
    table = _arrow_table()
    back = _round_trip(store, table)
    back.validate(full=True)
    assert back.equals(table, check_metadata=True)
    assert back.schema.field("floats").metadata == {b"unit": b"m"}


def test_batches_come_back(store: Store[Any]) -> None:
    [batch] = _arrow_table().to_batches()
    assert _round_trip(store, batch).equals(batch, check_metadata=True)
    empty = batch.slice(3)
    assert _round_trip(store, empty).equals(empty, check_metadata=True)


def test_polars_frames_come_back(store: Store[Any]) -> None:
    frame = pl.DataFrame(
        {
            "ints": [1, None, 3],
            "texts": ["a", None, "ü" * 30],
            "lists": [[1], None, []],
            "structs": [{"a": 1, "b": "x"}, {"a": None, "b": "y"}, None],
            "days": [dt.date(2024, 2, 29), None, None],
            "spans": [dt.timedelta(1), None, None],
            "times": [dt.time(1, 2), None, None],
            "decimals": [Decimal("1.5"), None, None],
            "kinds": pl.Series(["x", None, "y"], dtype=pl.Categorical),
            "enums": pl.Series(["x", None, "y"], dtype=pl.Enum(["y", "x"])),
            "pairs": pl.Series([[1, 2], None, [3, 4]], dtype=pl.Array(pl.Int8, 2)),
            "nothing": [None] * 3,
        }
    )
    back = _round_trip(store, frame)
    assert back.schema == frame.schema
    assert back.equals(frame)


def test_what_arrow_has_no_type_for_is_pickled(store: Store[Any]) -> None:
    wide = pl.DataFrame({"n": pl.Series([1, None], dtype=pl.Int128)})
    assert _round_trip(store, wide, PICKLE).equals(wide)


class _Celsius(pa.ExtensionType):  # type: ignore[misc]
    """A type that is a Python class, and not registered."""

    def __init__(self) -> None:
        super().__init__(pa.float64(), "test.celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> _Celsius:
        return cls()


def test_types_of_ones_own_are_pickled(store: Store[Any]) -> None:
    array = pa.ExtensionArray.from_storage(_Celsius(), pa.array([20.5]))
    back = _round_trip(store, pa.table({"t": array}), PICKLE)
    assert isinstance(back.schema.field("t").type, _Celsius)
    inner = pa.StructArray.from_arrays([array], ["t"])
    _round_trip(store, pa.table({"inner": inner}), PICKLE)


def test_pandas_frames_are_pickled(store: Store[Any]) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    pd.testing.assert_frame_equal(_round_trip(store, frame, PICKLE), frame)


def _neutral(frame: Any) -> Any:
    """Return what readers of the neutral form of a table get."""
    encoded = _tables.encode(frame, True)
    assert encoded is not None
    kind, rows, names, parts = encoded
    streams = [b"".join(map(bytes, pieces)) for pieces in parts]
    assert len(streams) == 1 + len(names)
    return _tables.decode(kind, rows, streams, True)


def test_pandas_frames_have_a_neutral_form() -> None:
    frame = pd.DataFrame(
        {
            "ints": [1, 2],
            "nullable": pd.array([1, None], dtype="Int64"),
            "texts": ["x", None],
            "kinds": pd.Categorical(["u", "v"]),
            "moments": pd.to_datetime(["2020-01-01", "2024-02-29"]).tz_localize("UTC"),
        },
        index=pd.Index(["first", "second"], name="row"),
    )
    frame.attrs["unit"] = "m"
    back = _neutral(frame)
    pd.testing.assert_frame_equal(back, frame)
    assert back.attrs == {"unit": "m"}
    back.loc["first", "ints"] = 7  # memory of its own


def test_data_alone_includes_pandas_frames(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory", codec="data")
    frame = pd.DataFrame({"a": [1, 2]}, index=["x", "y"])
    pd.testing.assert_frame_equal(_round_trip(store, frame), frame)
    with pytest.raises(SerializationError, match="cannot be stored as an Arrow table"):
        store.put(pd.DataFrame({"z": [1j]}))


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"o": [1, "a"]}),
        pd.DataFrame({"z": [1j]}),
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pl.DataFrame({"n": pl.Series([1], dtype=pl.Int128)}),
    ],
    ids=["mixed", "complex", "duplicate", "wide"],
)
def test_what_has_no_neutral_form_says_so(frame: Any) -> None:
    with pytest.raises(SerializationError, match=r"cannot be stored as an Arrow table \(.+\)\. "):
        _tables.encode(frame, True)


def test_what_is_no_table_is_left_alone() -> None:
    class Table:
        pass

    class Mine(pd.DataFrame):
        pass

    for other in (Table(), Mine({"a": [1]}), pa.array([1]), pd.Series([1]), [1]):
        assert _tables.encode(other, True) is None


def test_tables_of_many_batches_come_back(store: Store[Any]) -> None:
    labels = [pa.array([f"label {n}", None]).dictionary_encode() for n in range(5)]
    numbers = [np.arange(4.0), np.arange(0.0), np.arange(6.0)]
    table = pa.table({"label": pa.chunked_array(labels), "n": pa.chunked_array(numbers)})
    back = _round_trip(store, table)
    assert back.equals(table)
    assert [c.to_pylist() for c in back["label"].chunks] == [c.to_pylist() for c in labels]


@pytest.mark.parametrize(
    "table",
    [
        _arrow_table().slice(0, 0),
        _arrow_table().schema.empty_table(),
        pa.table({}),
        pa.table({"a": [1, 2]}).select([]),
        pa.record_batch({"a": [1, 2]}).select([]),
    ],
    ids=["sliced", "no batches", "nothing", "rows alone", "batch of rows alone"],
)
def test_empty_tables_come_back(make_store: Callable[..., Store[Any]], table: Any) -> None:
    back = _round_trip(make_store("memory"), table)
    assert back.schema.equals(table.schema, check_metadata=True)
    assert back.num_rows == table.num_rows
    assert back.equals(table)


def test_columns_may_share_a_name(make_store: Callable[..., Store[Any]]) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array(["x"])], names=["a", "a"])
    assert _round_trip(make_store("memory"), table).equals(table)


@pytest.mark.parametrize("kind", ["arrow", "polars"])
def test_slices_store_their_rows_alone(make_store: Callable[..., Store[Any]], kind: str) -> None:
    store = make_store("memory")
    texts = [f"a text that is number {n}" for n in range(20_000)]
    if kind == "arrow":
        table = pa.table({"n": range(20_000), "text": texts, "list": [[n] for n in range(20_000)]})
        part = table.slice(5000, 10)
    else:
        part = pl.DataFrame({"n": range(20_000), "text": texts}).slice(5000, 10)
    key = store.put(part)
    assert len(store.connector.get(key)) < 4000
    assert store.get(key).equals(part)


def test_columns_lie_in_the_memory_that_was_read(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("file")
    numbers = np.arange(1_000_000.0)
    before = pa.total_allocated_bytes()
    key = store.put(pa.table({"n": numbers}))
    back = store.get(key)
    assert pa.total_allocated_bytes() - before < 100_000
    column = back["n"].chunk(0).to_numpy()  # not possible with a copy
    assert np.array_equal(column, numbers)
    assert back["n"].chunk(0).buffers()[1].address % 8 == 0
    store.evict(key)
    del back
    assert np.array_equal(column, numbers)


def test_every_column_is_a_stream_of_its_own() -> None:
    table = _arrow_table()
    encoded = _tables.encode(table, False)
    assert encoded is not None
    kind, rows, names, (schema, *columns) = encoded
    assert (kind, rows, names) == ("pyarrow", 3, table.column_names)
    read = pa.ipc.open_stream(b"".join(map(bytes, schema)))
    assert read.schema.equals(table.schema, check_metadata=True)
    assert read.read_all().num_rows == 0
    for name, pieces in zip(names, columns, strict=True):
        alone = pa.ipc.open_stream(b"".join(map(bytes, pieces))).read_all()
        assert alone.equals(table.select([name]))


def test_proxies_of_tables_resolve_elsewhere(shared_store: Store[Any]) -> None:
    table = _arrow_table()
    proxy: Proxy[pa.Table] = shared_store.proxy(table, populate_target=False)
    arrived = pickle.loads(pickle.dumps(proxy))
    assert arrived.num_rows == 3
    assert arrived.column("ints").to_pylist() == [1, None, 3]


_CHILD = """
import sys
for library in {missing!r}:
    sys.modules[library] = None
import pickle
proxy = pickle.loads(bytes.fromhex({reference!r}))
try:
    print(type(proxy.__proxy_wrapped__).__module__.partition(".")[0])
except Exception as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ([], "polars"),
        (["polars"], "takes pyarrow and polars, of which one cannot be imported"),
        (["pyarrow"], "Install pyarrow and polars where tables are used"),
    ],
)
def test_readers_without_the_libraries_are_told(
    make_store: Callable[..., Store[Any]], missing: list[str], expected: str
) -> None:
    store = make_store("file")
    proxy = store.proxy(pl.DataFrame({"a": [1]}), populate_target=False)
    child = _CHILD.format(missing=missing, reference=pickle.dumps(proxy).hex())
    done = subprocess.run(
        [sys.executable, "-c", child], capture_output=True, text=True, timeout=120, check=True
    )
    assert expected in done.stdout


def test_polars_without_pyarrow_is_pickled(
    make_store: Callable[..., Store[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store("memory")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    frame = pl.DataFrame({"a": [1]})
    assert _codec(store, store.put(frame)) == PICKLE
    with pytest.raises(SerializationError, match="pyarrow"):
        _tables.encode(frame, True)


def test_damaged_tables_are_errors() -> None:
    encoded = _tables.encode(pa.table({"a": [1, 2]}), False)
    assert encoded is not None
    kind, rows, _, parts = encoded
    schema, column = (b"".join(map(bytes, pieces)) for pieces in parts)
    with pytest.raises(ValueError, match="2 rows instead of 3"):
        _tables.decode(kind, rows + 1, [schema, column], False)
    for damaged in ([schema, column[:-40]], [schema], [schema, schema], [column[:10], column]):
        with pytest.raises((pa.ArrowException, OSError, ValueError)):
            _tables.decode(kind, rows, damaged, False)
