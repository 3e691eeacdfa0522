"""Columns of a stored table, each read by itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from proxystore_rs._tables import _pyarrow, open_stream
from proxystore_rs.exceptions import SerializationError

__all__ = ["read_columns"]


def labels_of(schema: Any, *, data_only: bool) -> list[Any]:
    """Return the names of the columns of a data frame of pandas, which need not be texts.

    Args:
        schema: The part that holds the schema; the columns come before those of the index.
        data_only: Whether the writer of the table may be anybody.
    """
    arrow, _ = _libraries("pandas")
    stored = open_stream(arrow, schema, data_only).schema
    return list(stored.empty_table().to_pandas().columns)


def read_columns(
    read: Callable[[int], Any],
    schema: Any,
    table: tuple[str, int],
    labels: list[Any],
    places: dict[Any, int],
    *,
    alone: bool,
    data_only: bool,
) -> Any:
    """Return columns in the form of the library whose table was stored.

    Args:
        read: Reads a part of the object: that of a column is one more than its place.
        schema: The part that holds the schema, if it is needed: for more than one column, and by
            pandas.
        table: What was stored, and its number of rows.
        labels: Which columns.
        places: Where each of them is.
        alone: Whether the one column is wanted, and not a table of it.
        data_only: Whether the writer of the table may be anybody.
    """
    kind, rows = table
    arrow, other = _libraries(kind)

    def column(place: int) -> Any:
        found = open_stream(arrow, read(1 + place), data_only).read_all().column(0)
        found.validate(full=data_only)
        return found

    if alone and kind != "pandas":
        found = column(places[labels[0]])
        return other.from_arrow(found).alias(labels[0]) if kind == "polars" else found
    stored = open_stream(arrow, schema, data_only).schema
    wanted = [places[label] for label in labels]
    if kind == "pandas":
        # Its index is made of columns, too.
        wanted = list(places.values())
        index = (stored.pandas_metadata or {}).get("index_columns", [])
        wanted += [stored.get_field_index(name) for name in index if isinstance(name, str)]
    made = arrow.schema([stored.field(place) for place in wanted], metadata=stored.metadata)
    part = arrow.Table.from_arrays([column(place) for place in wanted], schema=made)
    if not wanted:
        part = arrow.table({"": arrow.nulls(rows)}).select([])
    match kind:
        case "polars":
            return other.from_arrow(part)
        case "pandas":
            frame = part.to_pandas()
            return frame[labels[0]] if alone else frame[labels]
        case _:
            return part


def _libraries(kind: str) -> tuple[Any, Any]:
    """Return pyarrow, and the library of the table if it is another."""
    other = kind if kind in {"pandas", "polars"} else "pyarrow"
    try:
        return _pyarrow(), importlib.import_module(other)
    except ImportError as error:
        raise SerializationError(
            f"reading columns of this table takes pyarrow and {other}, of which one cannot be "
            f"imported ({error}). Install both where its columns are used."
        ) from error
