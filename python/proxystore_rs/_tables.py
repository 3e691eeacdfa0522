"""Tables of pyarrow, pandas and polars as Arrow streams, one for the schema and one a column.

The native module calls `encode` with objects whose class is named like that of a table, and `decode`
with what was stored. pyarrow does the work: its buffers are neither copied to be written nor to be read.
Whoever has a table of a library has imported that library, so that none is imported to find out.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any, TypeAlias

from proxystore_rs.exceptions import SerializationError, UntrustedError

__all__ = ["decode", "encode", "open_stream"]

Encoded: TypeAlias = tuple[str, int, list[str], list[list[Any]]]
"""Kind, number of rows, names of the columns, and of each part the pieces that it consists of."""

_CLASSES = (
    ("pyarrow", "pyarrow", "Table"),
    ("batch", "pyarrow", "RecordBatch"),
    ("polars", "polars", "DataFrame"),
    ("pandas", "pandas", "DataFrame"),
)

# Older ones run code that the data brings along (CVE-2023-47248).
_OLDEST_PYARROW = 15


class _Pieces:
    """A file that keeps what is written to it, which of large pieces are pyarrow's own buffers."""

    closed = False

    def __init__(self) -> None:
        self.pieces: list[Any] = []

    def write(self, piece: Any) -> int:
        self.pieces.append(piece)
        return len(piece)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


_EXTENSION = b"ARROW:extension:name"
"""Key in the metadata of fields whose values stand for those of another type."""


def encode(obj: Any, neutral: bool) -> Encoded | None:
    """Return a table as Arrow streams; `None` for what is no table, or better pickled.

    Args:
        obj: Any object.
        neutral: Whether other languages shall read it. Otherwise only what comes back exactly as it
            was is encoded, and data frames of pandas are not.

    Raises:
        SerializationError: When `neutral`, and the table cannot be represented.
    """
    kind = _kind(obj)
    if kind is None or (kind == "pandas" and not neutral):
        return None
    try:
        arrow = _pyarrow()
        table = _to_arrow(arrow, obj, kind)
        if not neutral and not _comes_back(arrow, obj, kind, table):
            return None
        schema = table.schema
        if neutral and _EXTENSION in schema.serialize().to_pybytes():
            raise TypeError("it has extension types, which other languages need not know")
        parts = [_write(arrow, schema, ())]
        parts += map(partial(_write_column, arrow), schema, table.columns)
        return kind, table.num_rows, schema.names, parts
    except Exception as error:
        if not neutral:
            return None
        raise SerializationError(
            f"Object of type {type(obj)} cannot be stored as an Arrow table ({error}). Convert its "
            "columns to types that Arrow has, or let it be pickled."
        ) from error


def _kind(obj: Any) -> str | None:
    for kind, module, name in _CLASSES:
        # Exactly this class: a subclass may hold more than the table.
        if type(obj) is getattr(sys.modules.get(module), name, None):
            return kind
    return None


def _to_arrow(arrow: Any, obj: Any, kind: str) -> Any:
    match kind:
        case "batch":
            return arrow.Table.from_batches([obj])
        case "polars":
            # Not the newest layout, in which a few rows of a long column drag all its texts along.
            return obj.to_arrow(compat_level=_import("polars").CompatLevel.oldest())
        case "pandas":
            return arrow.Table.from_pandas(obj)
        case _:
            return obj


def _comes_back(arrow: Any, obj: Any, kind: str, table: Any) -> bool:
    if kind == "polars":
        empty = _import("polars").from_arrow(table.slice(0, 0))
        return bool(empty.schema == obj.schema)
    return not any(_is_own_type(arrow.ExtensionType, field.type) for field in table.schema)


def _is_own_type(own: type, kind: Any) -> bool:
    """Return whether a type is a Python class, which a pickle finds and a stream does not."""
    inner = (kind.field(index).type for index in range(kind.num_fields))
    return isinstance(kind, own) or any(_is_own_type(own, kind) for kind in inner)


def _write_column(arrow: Any, field: Any, column: Any) -> list[Any]:
    schema = arrow.schema([field])
    batch = arrow.RecordBatch.from_arrays
    return _write(arrow, schema, (batch([chunk], schema=schema) for chunk in column.chunks))


def _write(arrow: Any, schema: Any, batches: Iterable[Any]) -> list[Any]:
    sink = _Pieces()
    with arrow.ipc.new_stream(sink, schema) as stream:
        for batch in batches:
            stream.write_batch(batch)
    return sink.pieces


def decode(kind: str, rows: int, parts: list[Any], data_only: bool) -> Any:
    """Return the table that was stored, on the memory it was stored in.

    Args:
        kind: What it was.
        rows: Its number of rows.
        parts: The streams.
        data_only: Whether their writer may be anybody.
    """
    libraries = ["pyarrow", kind] if kind in {"pandas", "polars"} else ["pyarrow"]
    try:
        arrow = _pyarrow()
        library = _import(kind) if len(libraries) > 1 else arrow
    except ImportError as error:
        names = " and ".join(libraries)
        raise SerializationError(
            f"it is a table, and reading it takes {names}, of which one cannot be imported "
            f"({error}). Install {names} where tables are used."
        ) from error
    first, *others = (open_stream(arrow, part, data_only) for part in parts)
    schema, columns = first.schema, [stream.read_all().column(0) for stream in others]
    if schema.names:
        table = arrow.Table.from_arrays(columns, schema=schema)
    else:
        table = arrow.table({"": arrow.nulls(rows)}, metadata=schema.metadata).select([])
    # Of sizes alone, which takes no time, if the writer can be trusted with the rest.
    table.validate(full=data_only)
    if table.num_rows != rows:
        raise ValueError(f"its columns have {table.num_rows} rows instead of {rows}")
    match kind:
        case "batch":
            return _batch(arrow, table)
        case "polars":
            return library.from_arrow(table, rechunk=False)
        case "pandas":
            return table.to_pandas()
        case _:
            return table


def open_stream(arrow: Any, part: Any, data_only: bool) -> Any:
    """Return a reader of a stream; of one that may be anybody's, only if no code of types runs.

    Raises:
        UntrustedError: There is an extension type, and `data_only`.
    """
    memory = arrow.py_buffer(part)
    if data_only:
        # Types are made with the schema, in Python if they are registered there.
        schema = arrow.ipc.read_message(memory)
        if _EXTENSION in schema.metadata.to_pybytes():
            raise UntrustedError(
                "failed to decode table: it has extension types, whose code would read what the "
                "writer chose, and codec='data' is set. Store the columns as the plain types that "
                "lie under them"
            )
    return arrow.ipc.open_stream(memory)


def _batch(arrow: Any, table: Any) -> Any:
    batches = table.combine_chunks().to_batches()  # copies nothing if there is one
    if len(batches) > 1:
        raise ValueError(f"its {table.num_rows} rows do not fit one batch")
    return batches[0] if batches else arrow.RecordBatch.from_pylist([], schema=table.schema)


def _pyarrow() -> Any:
    arrow = _import("pyarrow")
    if int(arrow.__version__.partition(".")[0]) < _OLDEST_PYARROW:
        raise ImportError(f"pyarrow {arrow.__version__} is older than {_OLDEST_PYARROW}")
    return arrow


def _import(module: str) -> Any:
    # Untyped, since none of these libraries is required.
    return importlib.import_module(module)
