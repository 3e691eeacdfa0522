"""Bad input gets an error that names cause and remedy, and loses nothing."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import (
    Any,
)

import pytest

from proxystore_rs.exceptions import SerializationError, StoreConfigError
from proxystore_rs.proxy import ProxyResolveError, is_resolved
from proxystore_rs.store import (
    Store,
    StoreFactory,
    get_or_create_store,
)
from proxystore_rs.store.registry import unregister_store


def test_what_is_no_connector_is_refused() -> None:
    with pytest.raises(TypeError, match="not a connector"):
        Store("none", object())


def test_unpicklable_objects_are_named(store: Store[Any]) -> None:
    import threading

    with pytest.raises(SerializationError, match="lock"):
        store.put(threading.Lock())


def test_an_array_of_addresses_is_refused(make_store: Callable[..., Store[Any]]) -> None:
    from proxystore_rs.exceptions import IncompatibleVersionError

    store = make_store("memory")
    # An array payload like any other, but for the type of its one element: "|O".
    payload = bytes.fromhex(
        "895058530d0a1a0a0100040000000000580000000100000088000000000000000000000000000000"
        "00000000000000000000000000000000009adbca86803a0180000000000000000800000000000000"
        "93a27c4f9101a1430000000000000000000000000000000000000000000000000000000000000000"
        "00000000000000000101010101010101"
    )
    key = store.connector.put(payload)
    with pytest.raises(IncompatibleVersionError, match=r"\|O"):
        store.get(key)


def test_foreign_bytes_are_refused(make_store: Callable[..., Store[Any]]) -> None:
    from proxystore_rs.exceptions import CorruptObjectError

    for kind in ("local", "memory", "file", "shm"):
        store = make_store(kind)
        key = store.connector.put(b"not a payload " * 10)
        with pytest.raises(CorruptObjectError, match="not a payload") as caught:
            store.get(key)
        assert store.name in str(caught.value)
        assert (str(key) if kind == "local" else key[0]) in str(caught.value)
        proxy = store.proxy_from_key(key)
        proxy.__proxy_factory__.resolve_async()
        with pytest.raises(ProxyResolveError) as resolving:
            len(proxy)
        assert str(resolving.value.cause) == str(caught.value)


def test_a_missing_object_of_another_process_says_so() -> None:
    from proxystore_rs.connectors.local import LocalConnector

    there = Store("elsewhere", LocalConnector())
    sent = pickle.dumps(there.proxy([1]))
    with pytest.raises(ProxyResolveError) as caught:
        len(pickle.loads(sent))
    unregister_store("elsewhere")
    assert "memory of another process" in caught.value.cause.__notes__[0]


@pytest.mark.parametrize(
    ("reference", "error", "text"),
    [
        (b"something else", "CorruptObjectError", "these bytes are something else"),
        (b"PXR\x01\x81\x05ab", "CorruptObjectError", "cut short"),
        (b"PXR\x02", "IncompatibleVersionError", "upgrade"),
        (b"PXR\x01\x81\x01a\x85\x01a\x8a\x03abc", "UnpicklingError", "unpickling"),
    ],
)
def test_a_reference_that_cannot_be_read_says_so_when_it_is_used(
    reference: bytes, error: str, text: str
) -> None:
    from proxystore_rs._core import _factory, _restore

    with pytest.raises(Exception, match=text) as caught:
        _factory(reference, StoreFactory)
    assert type(caught.value).__name__ == error
    proxy = pickle.loads(pickle.dumps(_restore(reference)))
    assert not is_resolved(proxy)
    with pytest.raises(ProxyResolveError) as resolving:
        len(proxy)
    assert type(resolving.value.cause) is type(caught.value)
    assert proxy.__proxy_factory__.reference == reference


def test_one_name_on_two_channels_is_an_error_that_says_so(
    make_store: Callable[..., Store[Any]],
) -> None:
    from proxystore_rs.connectors.memory import MemoryConnector

    store = make_store("memory")
    twin = Store(store.name, MemoryConnector("elsewhere"))
    received = pickle.loads(pickle.dumps(twin.proxy([1], populate_target=False)))
    with pytest.raises(ProxyResolveError) as caught:
        received[0]
    assert isinstance(caught.value.cause, StoreConfigError)
    assert "memory://elsewhere" in str(caught.value.cause)
    with pytest.raises(StoreConfigError):
        get_or_create_store(twin.config())


def test_a_closed_store_says_so(make_store: Callable[..., Store[Any]]) -> None:
    from proxystore_rs.exceptions import StoreClosedError

    store = make_store("memory")
    key = store.put("x")
    store.close()
    store.close()
    with pytest.raises(StoreClosedError, match="closed"):
        store.get(key)
    with pytest.raises(StoreClosedError):
        store.put("y")


def test_what_is_no_key_is_refused(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory")
    for key in ((), (1,), "abc", None):
        with pytest.raises(TypeError, match="not a key of this connector"):
            store.get(key)
