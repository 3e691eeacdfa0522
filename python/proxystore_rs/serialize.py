r"""Objects to bytes and back.

The bytes start with a line of two letters that says how to read the rest:

| letters | object | rest |
| --- | --- | --- |
| `BS` | `bytes` | the bytes |
| `US` | `str` | UTF-8 |
| `NP` | NumPy array | NPY file |
| `PD` | pandas data frame | pickle |
| `PL` | Polars data frame | Arrow IPC file |
| `PK` | anything else | pickle |
| `CP` | what pickle cannot do | cloudpickle |

    >>> serialize('text')
    b'US\ntext'
    >>> deserialize(b'US\ntext')
    'text'

A proxy is serialized as the reference it is, and not resolved. NumPy, pandas, Polars and
cloudpickle are imported only when an object needs them.
"""

from __future__ import annotations

import importlib
import io
import pickle
import sys
from collections.abc import Callable
from typing import Any, TypeAlias, TypeGuard

from proxystore_rs.exceptions import SerializationError

__all__ = ["BytesLike", "SerializationError", "deserialize", "is_bytes_like", "serialize"]

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""What holds bytes."""

_BYTES_LIKE = (bytes, bytearray, memoryview)


def is_bytes_like(obj: Any) -> TypeGuard[BytesLike]:
    """Return whether the object holds bytes: `bytes`, `bytearray` or `memoryview`.

    From Python 3.12 on, where buffers are a type, whatever else offers its memory as a buffer and
    has a length counts too.

    >>> is_bytes_like(bytearray(3)), is_bytes_like('text')
    (True, False)
    """
    if _is_proxy(obj):
        obj = obj.__proxy_wrapped__
    if isinstance(obj, _BYTES_LIKE):
        return True
    if sys.version_info >= (3, 12):
        from collections.abc import Buffer, Sized

        return isinstance(obj, Buffer) and isinstance(obj, Sized)
    return False


def _is_proxy(obj: Any) -> bool:
    # Asks the type, since isinstance would resolve it. Without the module there are no proxies.
    core = sys.modules.get("proxystore_rs._core")
    proxy = getattr(core, "Proxy", None)
    return proxy is not None and issubclass(type(obj), proxy)


def _import(module: str) -> Any:
    # Untyped, since none of these libraries is required.
    return importlib.import_module(module)


# Writers: the bytes after the letters, or an exception, after which the next one is tried.


def _write_numpy(obj: Any) -> bytes:
    numpy = _import("numpy")
    buffer = io.BytesIO()
    numpy.save(buffer, obj, allow_pickle=True)
    return buffer.getvalue()


def _write_pandas(obj: Any) -> bytes:
    buffer = io.BytesIO()
    obj.to_pickle(buffer)
    return buffer.getvalue()


def _write_polars(obj: Any) -> bytes:
    buffer = io.BytesIO()
    obj.write_ipc(buffer)
    return buffer.getvalue()


def _write_pickle(obj: Any) -> bytes:
    return pickle.dumps(obj, protocol=pickle.HIGHEST_PROTOCOL)


def _write_cloudpickle(obj: Any) -> bytes:
    cloudpickle = _import("cloudpickle")
    data: bytes = cloudpickle.dumps(obj)
    return data


def _loaded(obj: Any, module: str, *names: str, exact: bool = False) -> bool:
    """Return whether the object's type is one of these, without importing their module."""
    loaded = sys.modules.get(module)
    types = tuple(filter(None, (getattr(loaded, name, None) for name in names)))
    return type(obj) in types if exact else isinstance(obj, types)


_Codec: TypeAlias = tuple[bytes, str, Callable[[Any], bool], Callable[[Any], bytes]]

_WRITERS: tuple[_Codec, ...] = (
    (b"BS", "bytes", lambda obj: isinstance(obj, bytes), bytes),
    (b"US", "string", lambda obj: isinstance(obj, str), lambda obj: obj.encode()),
    # Only plain arrays: the file would drop the mask of a masked one, or the class of a matrix.
    (b"NP", "numpy", lambda o: _loaded(o, "numpy", "ndarray", "memmap", exact=True), _write_numpy),
    (b"PD", "pandas", lambda obj: _loaded(obj, "pandas", "DataFrame"), _write_pandas),
    (b"PL", "polars", lambda obj: _loaded(obj, "polars", "DataFrame"), _write_polars),
    (b"PK", "pickle", lambda _: True, _write_pickle),
    (b"CP", "cloudpickle", lambda _: True, _write_cloudpickle),
)


def serialize(obj: Any) -> bytes:
    r"""Turn an object into bytes.

    >>> serialize(b'data')
    b'BS\ndata'

    Args:
        obj: The object. A proxy is not resolved, and comes back as a proxy.

    Raises:
        SerializationError: When neither pickle nor cloudpickle can do it.
    """
    is_proxy = _is_proxy(obj)
    failures = []
    for letters, name, suits, write in _WRITERS:
        if is_proxy and write is not _write_pickle and write is not _write_cloudpickle:
            continue
        if not suits(obj):
            continue
        try:
            return letters + b"\n" + write(obj)
        except Exception as error:
            failures.append((name, error))
    kind = type(obj)
    reasons = "; ".join(f"{name}: {error}" for name, error in failures)
    raise SerializationError(f"Object of type {kind} is not supported. ({reasons})") from (
        failures[-1][1]
    )


# Readers.


def _read_numpy(data: memoryview) -> Any:
    numpy = _import("numpy")
    return numpy.load(io.BytesIO(data), allow_pickle=True)


def _read_pandas(data: memoryview) -> Any:
    pandas = _import("pandas")
    return pandas.read_pickle(io.BytesIO(data))


def _read_polars(data: memoryview) -> Any:
    polars = _import("polars")
    return polars.read_ipc(io.BytesIO(data))


def _read_cloudpickle(data: memoryview) -> Any:
    cloudpickle = _import("cloudpickle")
    return cloudpickle.loads(data)


_READERS: dict[bytes, tuple[str, Callable[[memoryview], Any]]] = {
    b"BS": ("bytes", bytes),
    b"US": ("string", lambda data: str(data, "utf-8")),
    b"NP": ("numpy", _read_numpy),
    b"PD": ("pandas", _read_pandas),
    b"PL": ("polars", _read_polars),
    b"PK": ("pickle", pickle.loads),
    b"CP": ("cloudpickle", _read_cloudpickle),
}


def deserialize(buffer: BytesLike) -> Any:
    r"""Turn bytes made by `serialize` back into an object.

    Pickles run code when they are read: take bytes only from whom you trust.

    >>> deserialize(b'BS\ndata')
    b'data'

    Args:
        buffer: The bytes.

    Raises:
        ValueError: When `buffer` does not hold bytes.
        SerializationError: When the letters are unknown, or what follows them is damaged.
    """
    if not is_bytes_like(buffer):
        raise ValueError(f"Expected data to be a bytes-like type, not {type(buffer)}.")
    if _is_proxy(buffer):
        buffer = buffer.__proxy_wrapped__  # type: ignore[union-attr]
    view = memoryview(buffer)
    data = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
    end, start = _find_line(data)
    letters = bytes(data[:end]).strip()
    if letters not in _READERS:
        raise SerializationError(
            f"Unknown identifier {letters!r} for deserialization. The data was not written by "
            "serialize, or by a newer version of it."
        )
    name, read = _READERS[letters]
    try:
        return read(data[start:])
    except Exception as error:
        raise SerializationError(
            f"Failed to deserialize object using the {name} serializer. ({error})"
        ) from error


def _find_line(data: memoryview) -> tuple[int, int]:
    """Return the end of the first line, and the start of what follows it."""
    head = bytes(data[:64])
    end = head.find(b"\n")
    return (len(head), len(data)) if end < 0 else (end, end + 1)
