"""Objects come back equal and of their type; the bytes are those of the documented form."""

from __future__ import annotations

import pickle
import sys
import threading
from typing import Any

import pytest

from proxystore_rs.proxy import Proxy, is_resolved
from proxystore_rs.serialize import SerializationError, deserialize, is_bytes_like, serialize


@pytest.mark.parametrize(
    ("obj", "data"),
    [
        (b"data", b"BS\ndata"),
        (b"", b"BS\n"),
        (b"\n\n", b"BS\n\n\n"),
        ("é", b"US\n\xc3\xa9"),
        ([1, 2], b"PK\n" + pickle.dumps([1, 2], protocol=pickle.HIGHEST_PROTOCOL)),
        (None, b"PK\n" + pickle.dumps(None, protocol=pickle.HIGHEST_PROTOCOL)),
        (bytearray(b"x"), b"PK\n" + pickle.dumps(bytearray(b"x"), pickle.HIGHEST_PROTOCOL)),
    ],
)
def test_bytes_are_of_the_documented_form(obj: Any, data: bytes) -> None:
    assert serialize(obj) == data
    again = deserialize(data)
    assert again == obj
    assert type(again) is type(obj)


def test_text_that_is_not_unicode_is_pickled() -> None:
    data = serialize("\ud800")
    assert data.startswith(b"PK\n")
    assert deserialize(data) == "\ud800"


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_reads_from_anything_that_holds_bytes(wrap: Any) -> None:
    assert deserialize(wrap(b"BS\ndata")) == b"data"
    assert deserialize(wrap(b"US\ntext")) == "text"
    assert deserialize(wrap(serialize({"a": 1}))) == {"a": 1}


def test_reads_from_memory_that_is_not_contiguous() -> None:
    spread = memoryview(
        bytes(byte for pair in zip(b"US\nab", b".....", strict=False) for byte in pair)
    )
    assert deserialize(spread[::2]) == "ab"


def test_result_is_independent_of_the_buffer() -> None:
    buffer = bytearray(b"BS\ndata")
    result = deserialize(buffer)
    buffer[3:] = b"atad"
    assert result == b"data"


def test_blanks_around_the_letters_are_fine() -> None:
    assert deserialize(b" BS \ndata") == b"data"


@pytest.mark.parametrize("data", [b"", b"XX\ndata", b"\ndata", b"bs\ndata", b"BSdata", b"\xff\n"])
def test_unknown_letters_are_an_error(data: bytes) -> None:
    with pytest.raises(SerializationError, match="Unknown identifier"):
        deserialize(data)


@pytest.mark.parametrize("data", ["BS\ndata", 3, None, ["BS"]])
def test_what_holds_no_bytes_is_an_error(data: Any) -> None:
    with pytest.raises(ValueError, match="Expected data to be a bytes-like type, not <class"):
        deserialize(data)


@pytest.mark.parametrize(
    ("data", "name"),
    [(b"PK\nabc", "pickle"), (b"US\n\xff", "string"), (b"PK\n", "pickle")],
)
def test_damaged_data_is_an_error_with_its_cause(data: bytes, name: str) -> None:
    message = f"Failed to deserialize object using the {name} serializer."
    with pytest.raises(SerializationError, match=message) as caught:
        deserialize(data)
    assert caught.value.__cause__ is not None


def test_what_cannot_be_pickled_is_an_error_that_names_the_type() -> None:
    with pytest.raises(SerializationError, match=r"<class '_thread.lock'> is not supported\."):
        serialize(threading.Lock())


def test_functions_of_a_script_need_cloudpickle() -> None:
    pytest.importorskip("cloudpickle")
    data = serialize(lambda x: x + 1)
    assert data.startswith(b"CP\n")
    assert deserialize(data)(1) == 2


def test_numpy_arrays() -> None:
    np = pytest.importorskip("numpy")
    for array in (np.arange(6).reshape(2, 3), np.zeros(0), np.array([{}, None], dtype=object)):
        data = serialize(array)
        assert data.startswith(b"NP\n\x93NUMPY")
        again = deserialize(data)
        assert again.dtype == array.dtype
        assert (again == array).all()
    assert type(deserialize(serialize(np.float64(3)))) is np.float64


def test_arrays_that_are_more_than_an_array_lose_nothing() -> None:
    np = pytest.importorskip("numpy")
    again = deserialize(serialize(np.ma.array([1, 2], mask=[False, True])))
    assert again.mask.tolist() == [False, True]


def test_pandas_frames() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    data = serialize(frame)
    assert data.startswith(b"PD\n")
    assert deserialize(data).equals(frame)


def test_polars_frames() -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    data = serialize(frame)
    assert data.startswith(b"PL\n")
    assert deserialize(data).equals(frame)


@pytest.mark.parametrize("make", [dict, str, bytes, list])
def test_a_proxy_stays_a_proxy_and_is_not_resolved(make: Any) -> None:
    proxy = Proxy(make)
    again = deserialize(serialize(proxy))
    assert type(again) is Proxy
    assert not is_resolved(proxy)
    assert not is_resolved(again)
    assert again == make()


def test_a_proxy_of_bytes_is_data_like_any() -> None:
    assert is_bytes_like(Proxy(lambda: b"BS\ndata"))
    assert deserialize(Proxy(lambda: b"BS\ndata")) == b"data"  # type: ignore[arg-type]


def test_what_counts_as_bytes() -> None:
    assert is_bytes_like(b"")
    assert is_bytes_like(bytearray())
    assert is_bytes_like(memoryview(b""))
    assert not is_bytes_like("")
    assert not is_bytes_like(3)
    if sys.version_info >= (3, 12):
        import array

        assert is_bytes_like(array.array("b"))
