"""Views: stored objects of which only those parts are read that are used.

>>> import numpy as np
>>> from proxystore_rs.store import open_store
>>> store = open_store('memory://views')
>>> proxy = store.proxy(np.arange(1_000_000).reshape(1000, 1000), populate_target=False)
>>> view = store.view(proxy)
>>> view.shape, view[3, :4]  # reads 32 bytes
((1000, 1000), array([3000, 3001, 3002, 3003]))
>>> store.close()

Arrays give what NumPy gives for the same index, `bytes` what they give for a slice, tables their columns.
The characters of a text have no fixed places, so that text is read as a whole, once.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from proxystore_rs._core import Proxy, StoreBase, ViewBase
from proxystore_rs.exceptions import SerializationError, UnsupportedOperationError

if TYPE_CHECKING:
    import numpy

__all__ = ["View", "view"]

# Iterating reads this many bytes at once.
_CHUNK = 8 << 20


def view(proxy: Proxy[Any]) -> View:
    """Return a view of the stored object of a proxy, which is not resolved.

    >>> from proxystore_rs.store import open_store
    >>> store = open_store('memory://views')
    >>> view(store.proxy(b'abcdef'))[1:3]
    b'bc'
    >>> store.close()
    """
    return View(None, proxy)


class View(ViewBase):
    """A stored object of which only those parts are read that are used.

    Made by `store.view(proxy_or_key)` and `Proxy.view(proxy)`, which read nothing. The first use
    reads the head of the object, after waiting for it if it is that of a future; a missing
    object, or a failed future, raises then what resolving raises. Parts are read by ranges on channels
    that have them, and come in private memory. A view never evicts.
    """

    _text: str | None
    _schema: Any
    _pandas_labels: list[Any] | None

    def __init__(self, store: StoreBase | None, source: Any) -> None:
        del store, source
        self._text = self._schema = self._pandas_labels = None

    def __repr__(self) -> str:
        factory = self._factory
        about = f"store={factory.store_config.name!r}, key={factory.key!r}"
        if not self._is_open:
            return f"View({about})"
        match self._kind:
            case "array":
                return f"View({about}, array of {self.dtype}, shape={self.shape})"
            case "table":
                return f"View({about}, table, shape={self.shape}, columns={self.columns})"
            case kind:
                return f"View({about}, {kind}, {self.nbytes} bytes)"

    def __reduce__(self) -> Any:
        raise TypeError("a view cannot be pickled: send the proxy, and view it where it arrives")

    def __len__(self) -> int:
        match self._kind:
            case "text":
                return len(self._whole_text())
            case "array" if not self.shape:
                raise TypeError("len() of unsized object")
            case _:
                return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        match self._kind:
            case "array":
                return self._select_from_array(index)
            case "bytes":
                return self._select_from_bytes(index)
            case "text":
                return self._whole_text()[index]
            case "table":
                return self._select_columns(index)
            case kind:
                raise self._has_no("parts that can be read", kind)

    def __iter__(self) -> Iterator[Any]:
        if self._kind == "table":
            raise TypeError("a view of a table is not iterable: use view.columns, or load() it")
        step = max(1, _CHUNK * len(self) // max(1, self.nbytes))
        for start in range(0, len(self), step):
            yield from self[start : start + step]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy as np

        if copy is False:
            raise ValueError("a view is copied into an array: copy=False is impossible")
        return np.asarray(self.load(), dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the dimensions of an array, length of bytes, rows and columns of a table."""
        match self._kind:
            case "array" | "bytes":
                return self._layout[1]
            case "table":
                return self._table[1], len(self._labels)
            case kind:
                raise self._has_no("shape", kind)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def dtype(self) -> numpy.dtype[Any]:
        """Type of the elements of an array; of those of bytes, the one that an array of them has."""
        import numpy as np

        match self._kind:
            case "array":
                return np.dtype(self._layout[0])
            case "bytes":
                return np.dtype(np.uint8)
            case kind:
                raise self._has_no("dtype", kind)

    @property
    def columns(self) -> list[Any]:
        """Names of the columns of a table; its index is none of them, if it is one of pandas."""
        if self._kind != "table":
            raise self._has_no("columns", self._kind)
        return list(self._labels)

    def load(
        self, *, parallel: int = 4, progress: Callable[[int, int], object] | None = None
    ) -> Any:
        """Return the whole object, read anew.

        Args:
            parallel: How many ranges are read at the same time; that helps with large objects on
                parallel file systems and on servers.
            progress: Called with the bytes that are there and the bytes of all, after each range
                of 8 MiB. To give up, raise an exception.

        >>> from proxystore_rs.store import open_store
        >>> store = open_store('memory://views')
        >>> view(store.proxy([1, 2])).load(progress=lambda done, total: print(done == total))
        True
        [1, 2]
        >>> store.close()
        """
        if parallel < 1:
            raise ValueError(f"parallel must be at least 1, not {parallel}")
        return self._load(parallel, progress)

    def _has_no(self, what: str, kind: str) -> Exception:
        stored = f"an object stored as {kind}"
        if kind in {"array", "bytes", "text", "table"}:
            return AttributeError(f"{stored} has no {what}")
        return SerializationError(
            f"{stored} has no {what}: only arrays, bytes and tables have. Store it as one of them, or "
            "read the whole with view.load(), or by resolving the proxy."
        )

    def _whole_text(self) -> str:
        if self._text is None:
            self._text = str(self._part(0), "utf-8")
        return self._text

    def _select_from_bytes(self, index: Any) -> bytes | int:
        positions = range(len(self))
        if not isinstance(index, slice):
            try:
                at = positions[operator.index(index)]
            except IndexError:
                raise IndexError("index out of range") from None
            return self._bytes(at, at + 1)[0]
        wanted = positions[index]
        if not wanted:
            return b""
        first, last = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
        found = self._bytes(first, last + 1)
        return found[:: wanted.step] if len(wanted) > 1 else found

    def _select_from_array(self, index: Any) -> Any:
        import numpy as np

        shape = self.shape
        items = index if isinstance(index, tuple) else (index,)
        if not all(_is_basic(item) for item in items):
            items = tuple(item if _is_basic(item) else _positions(item, np) for item in items)
        # An array of this shape that takes no memory: refuses what is no index of it.
        np.broadcast_to(np.empty((), np.dtype("V0")), shape)[items]
        named = sum(item is not None and item is not Ellipsis for item in items)
        filled: list[Any] = []
        wanted: list[slice | bytes] = []
        lists = 0
        for item in items:
            if item is None:
                filled.append(None)
            elif item is Ellipsis:
                filled.append(item)
                wanted += [slice(None)] * (len(shape) - named)
            elif isinstance(item, slice):
                filled.append(slice(None))
                wanted.append(item)
            elif isinstance(item, np.ndarray):
                lists += 1
                length = shape[len(wanted)]
                at = np.flatnonzero(item) if item.dtype == bool else item
                at = at.astype(np.int64)
                filled.append(np.arange(at.size).reshape(at.shape))
                wanted.append(np.where(at < 0, at + length, at).astype("<i8").tobytes())
            else:
                filled.append(0)
                place = operator.index(item)
                place += shape[len(wanted)] if place < 0 else 0
                wanted.append(slice(place, place + 1))
        if lists > 1:
            raise _too_much("lists of positions on several dimensions")
        wanted += [slice(None)] * (len(shape) - len(wanted))
        # What is left to do is to drop, add and order dimensions, by the rules of NumPy.
        return self._select(wanted)[tuple(filled)]

    @property
    def _labels(self) -> list[Any]:
        kind, _, names = self._table
        if kind != "pandas":
            return names
        if self._pandas_labels is None:
            from proxystore_rs.store._columns import labels_of

            self._pandas_labels = labels_of(self._stored_schema(), data_only=self._takes_data_only)
        return self._pandas_labels

    def _stored_schema(self) -> Any:
        if self._schema is None:
            self._schema = self._part(0)
        return self._schema

    def _select_columns(self, index: Any) -> Any:
        is_pandas = self._table[0] == "pandas"
        if isinstance(index, str) or (is_pandas and not isinstance(index, (list, slice))):
            return self._read_columns([index], alone=True)
        if isinstance(index, Sequence) and (is_pandas or all(isinstance(n, str) for n in index)):
            return self._read_columns(list(index), alone=False)
        raise TypeError(f"columns are read by name, or by a list of names, not by {index!r}")

    def _read_columns(self, labels: list[Any], *, alone: bool) -> Any:
        from proxystore_rs.store._columns import read_columns

        kind, rows, _ = self._table
        places = {label: place for place, label in enumerate(self._labels)}
        for label in labels:
            if label not in places:
                raise KeyError(label)
        schema = None if alone and kind != "pandas" else self._stored_schema()
        wanted = {label: places[label] for label in labels}
        return read_columns(
            self._part,
            schema,
            (kind, rows),
            labels,
            wanted,
            alone=alone,
            data_only=self._takes_data_only,
        )


def _is_basic(item: Any) -> bool:
    """Return whether NumPy takes it for an integer, a slice, an ellipsis or a new dimension."""
    if item is None or isinstance(item, (slice, EllipsisType)):
        return True
    if isinstance(item, bool) or str(getattr(item, "dtype", None)) == "bool":
        return False
    return hasattr(type(item), "__index__") and not getattr(item, "ndim", 0)


def _positions(item: Any, np: Any) -> Any:
    """Return a list of positions, or a mask, as an array."""
    found = np.asarray(item)
    if found.dtype == bool and found.ndim != 1:
        raise _too_much("a mask of several dimensions" if found.ndim else "a boolean")
    if found.size == 0 and not isinstance(item, np.ndarray):
        return found.astype(np.intp)  # an empty list has no type of its own
    return found


def _too_much(what: str) -> Exception:
    return UnsupportedOperationError(
        f"a view does not select by {what}: read a part that has it all by slices, or "
        "view.load(), and select from that"
    )
