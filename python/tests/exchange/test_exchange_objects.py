"""Objects of every type that one language makes and the other uses, on every channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars
import pytest
from exchange_peer import Rust, RustError
from exchange_samples import (
    ARRAYS,
    FRAMES,
    NEUTRAL,
    ORIGINALS,
    PACKED,
    TABLES,
    Measurement,
    check,
    sample,
)

from proxystore_rs.exceptions import SerializationError
from proxystore_rs.proxy import Proxy, extract, is_resolved
from proxystore_rs.store import Store
from proxystore_rs.store.utils import get_key

TYPES = [*NEUTRAL, *PACKED, *ARRAYS, *TABLES]


@pytest.mark.parametrize("kind", TYPES)
def test_from_rust(rust: Rust, store: Store[Any], url: str, kind: str) -> None:
    proxy = rust.make(kind, url)
    assert not is_resolved(proxy)
    check(proxy, kind)


@pytest.mark.parametrize("kind", TYPES)
def test_from_python(rust: Rust, store: Store[Any], kind: str) -> None:
    codec: Any = "msgpack" if kind in PACKED else None
    # By its key, as `None` and booleans have no proxies in Python.
    key = store.put(ORIGINALS.get(kind, sample(kind)), codec=codec)
    rust.check(kind, store.proxy_from_key(key))


@pytest.mark.parametrize("kind", FRAMES)
def test_data_frames_from_python(rust: Rust, store: Store[Any], kind: str) -> None:
    key = store.put(FRAMES[kind], codec="data")  # pandas frames are pickled otherwise
    rust.check("table-of-numbers", store.proxy_from_key(key))
    assert store.get(key).equals(FRAMES[kind])


@pytest.mark.parametrize("kind", FRAMES)
def test_data_frames_from_rust(rust: Rust, store: Store[Any], url: str, kind: str) -> None:
    table = rust.make("table-of-numbers", url)
    frame = polars.from_arrow(extract(table)) if kind == "polars" else table.to_pandas()
    assert frame.equals(FRAMES[kind])


def test_dataclasses_are_structs(rust: Rust, store: Store[Any], url: str) -> None:
    proxy = rust.make("struct", url)
    assert store.get(get_key(proxy), type=Measurement) == ORIGINALS["struct"]


def test_integers_of_rust_end_at_64_bits(store: Store[Any]) -> None:
    for number in (2**64, -(2**63) - 1):
        with pytest.raises(SerializationError, match="64 bits"):
            store.put([number], codec="msgpack")


def test_facts_of_rust(rust: Rust, store: Store[Any], url: str) -> None:
    array = rust.make("array:u2:F:2x3x4", url)
    facts = array.shape, array.dtype, array.nbytes, len(array)
    assert facts == ((2, 3, 4), np.dtype("u2"), 48, 2)
    content = rust.make("bytes-large", url)
    assert len(content) == 3_000_000
    assert not is_resolved(array)
    assert not is_resolved(content)


def test_facts_of_python(rust: Rust, store: Store[Any]) -> None:
    proxy = store.proxy(sample("array:u2:F:2x3x4"))
    facts = 'Some(2) Some([2, 3, 4]) Some("<u2") Some(48)'
    assert rust.ask("facts", Proxy.to_text(proxy)) == facts
    proxy = store.proxy(sample("text-large"))
    assert rust.ask("facts", Proxy.to_text(proxy)).startswith("Some(1000000) None None")


def test_another_type_is_an_error_in_rust(rust: Rust, store: Store[Any]) -> None:
    for kind, found in (("bytes", "UTF-8"), ("array:f8:C:5", "UTF-8")):
        with pytest.raises(RustError, match=f"found={found}") as raised:
            rust.check(kind, store.proxy("text"))
        assert raised.value.kind == "Incompatible"
    with pytest.raises(RustError, match="expected=<f8, found=<i8") as raised:
        rust.check("array:f8:C:5", store.proxy(sample("array:i8:C:5")))
    assert raised.value.kind == "Decode"


def test_pickled_objects_are_pythons_alone(rust: Rust, store: Store[Any]) -> None:
    with pytest.raises(RustError, match="only Python reads this") as raised:
        rust.check("list", store.proxy({1, 2, 3}))
    assert raised.value.kind == "Incompatible"
