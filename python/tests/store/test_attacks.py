"""What somebody may try who writes to the channel, or who writes references."""

from __future__ import annotations

import json
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from proxystore_rs import trust
from proxystore_rs._core import _restore
from proxystore_rs.connectors.file import FileConnector
from proxystore_rs.connectors.memory import MemoryConnector
from proxystore_rs.exceptions import (
    CorruptObjectError,
    FutureTimeoutError,
    ProxyResolveMissingKeyError,
    SealedObjectError,
    SerializationError,
    SitePolicyError,
    TamperedObjectError,
    UntrustedError,
)
from proxystore_rs.proxy import Proxy, get_factory, resolve
from proxystore_rs.store import Store, _classes, unregister_store
from proxystore_rs.store.keys import SealedKey
from proxystore_rs.store.metrics import to_prometheus
from proxystore_rs.utils._loaded import loaded

Make = Callable[..., Store[Any]]

_trace: list[Any] = []


class Trap:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> Any:
        return _trace.append, (1,)


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    _trace.clear()
    yield
    assert not _trace


# Classes that a writer names


@dataclass
class Cleaner:
    path: str

    def __del__(self) -> None:
        _trace.append(self.path)


@dataclass
class Holder:
    many: dict[str, list[Cleaner | None]] = field(default_factory=dict)


def test_a_class_with_del_is_not_made_inside_another(make_store: Make) -> None:
    store = make_store("memory", codec="data", cache_size=0)
    key = store.put(Holder({"a": [None]}), codec="data")
    with pytest.raises(UntrustedError, match="Cleaner has a __del__"):
        store.get(key)
    with pytest.raises(UntrustedError):
        _classes.named(f"{__name__}:Holder", {"many": {"a": [{"path": "/"}]}}, True)
    assert store.get(key, type=Holder) == Holder({"a": [None]})


class _Lazy(types.ModuleType):
    def __getattribute__(self, name: str) -> Any:
        _trace.append(name)
        return super().__getattribute__(name)


class _Asked:
    """An object in a module, which answers by running code."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        _trace.append("__dict__")
        return {"Sample": Holder}


class _Meta(type):
    @property
    def __dict__(cls) -> Any:  # type: ignore[override]
        _trace.append("__dict__")
        return {"Sample": Holder}


class _Class(metaclass=_Meta):
    pass


def test_looking_for_a_class_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    module = _Lazy("lazy_one")
    monkeypatch.setitem(sys.modules, "lazy_one", module)
    vars(types.ModuleType)["__dict__"].__get__(module).update(
        Asked=_Asked(), Class=_Class, Sample=Holder, proxy=Proxy(lambda: _trace.append(1))
    )
    assert loaded("lazy_one", "Sample") is Holder
    for path in ("Asked.Sample", "Class.Sample", "proxy.Sample", "__class__.mro", "", "."):
        assert loaded("lazy_one", path) is None
        assert _classes.named(f"lazy_one:{path}", {}, True) == {}
        with pytest.raises(UntrustedError):
            _strict_key_class("lazy_one", path)


def _strict_key_class(module: str, name: str) -> Any:
    before = trust.imports("refuse")
    try:
        return trust._key_class(module, name)
    finally:
        trust.imports(before)


class HandMade(tuple[Any, ...]):
    __slots__ = ()
    _fields = ("a",)


def test_odd_classes_are_no_surprise() -> None:
    assert _classes.named(f"{__name__}:HandMade", {"a": 1}, True) == {"a": 1}
    for name in ("builtins:type", "builtins:object.__class__", "os:system", ":", "::", "\0:\0"):
        assert _classes.named(name, {"a": 1}, True) == {"a": 1}


# What a view reads


def test_a_view_unpickles_nothing_where_data_is_taken_alone() -> None:
    lenient = Store("attack-view", MemoryConnector("attack-view"))
    strict = Store("attack-view", MemoryConnector("attack-view"), codec="data")
    key = lenient.put(Trap())
    sealed = lenient.future()
    sealed.set_exception(_Failure())
    for view in (strict.view(key), strict.view(lenient.proxy_from_key(key))):
        with pytest.raises(UntrustedError):
            view.load()
    with pytest.raises(Exception, match="no more"):
        strict.view(get_factory(sealed.proxy()).key).load()
    lenient.close()
    strict.close()


class _Failure(Exception):
    def __init__(self) -> None:
        super().__init__("no more")

    def __reduce__(self) -> Any:
        return _trace.append, (1,)


@pytest.mark.parametrize("inline_bytes", [0, 1000])
def test_a_view_keeps_to_the_sites(tmp_path: Path, inline_bytes: int) -> None:
    name = f"attack-sites-{inline_bytes}"
    strict = Store(name, FileConnector(tmp_path), sites=["*.far-away"], inline_bytes=inline_bytes)
    loose = Store(name, FileConnector(tmp_path))
    proxy = strict.proxy(np.arange(4), populate_target=False)
    received = pickle.loads(pickle.dumps(proxy))
    for view in (strict.view(proxy), Proxy.view(proxy), loose.view(received), Proxy.view(received)):
        with pytest.raises(SitePolicyError):
            view[0]
        with pytest.raises(SitePolicyError):
            view.load()
    unregister_store(name)
    strict.close()
    loose.close()


def test_a_view_keeps_to_the_producers(tmp_path: Path) -> None:
    store = Store("attack-producers", FileConnector(tmp_path), register=True)
    proxy = store.proxy(np.arange(4), populate_target=False)
    received = pickle.loads(pickle.dumps(proxy))
    trust.require_producers(["ab" * 32])
    try:
        assert Proxy.view(proxy)[1] == 1
        for view in (Proxy.view(received), store.view(received)):
            with pytest.raises(UntrustedError):
                view[0]
        with pytest.raises(UntrustedError):
            Proxy.from_text(proxy.to_text())
    finally:
        trust.require_producers(None)
    store.close()


def test_a_head_that_claims_too_much_is_an_error(make_store: Make) -> None:
    store = make_store("memory", compression="lz4", cache_size=0)
    key = store.put(b"x" * 100_000)
    raw = store.connector.get(key)
    assert store.get(key) == b"x" * 100_000
    for place in range(0, 64, 3):
        altered = bytearray(raw)
        altered[place] ^= 0x55
        planted = store.connector.put(bytes(altered))
        for read in (store.get, lambda key: store.view(key).load()):
            with pytest.raises(Exception, match=r".") as caught:
                read(planted)
            assert isinstance(caught.value, Exception), "and no panic"


# Tables


class _Evil(pa.ExtensionType):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(pa.int64(), "attack.evil")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> _Evil:
        _trace.append("deserialized")
        return cls()


@pytest.fixture
def evil() -> Iterator[pa.Table]:
    pa.register_extension_type(_Evil())
    storage = pa.array([1, 2])
    yield pa.table({"a": pa.ExtensionArray.from_storage(_Evil(), storage), "b": [1, 2]})
    pa.unregister_extension_type("attack.evil")


def test_no_code_of_types_runs_where_data_is_taken_alone(evil: pa.Table, make_store: Make) -> None:
    store = make_store("memory", codec="data", cache_size=0)
    with pytest.raises(SerializationError, match="extension types"):
        store.put(evil)
    metadata = {"ARROW:extension:name": "attack.evil", "ARROW:extension:metadata": ""}
    disguised = pa.schema([pa.field("a", pa.int64(), metadata=metadata)])
    planted = Store("planted", store.connector, cache_size=0)
    key = planted.put(pa.table({"a": [1, 2]}, schema=disguised))
    with pytest.raises(UntrustedError, match="extension types"):
        store.get(key)
    for read in (lambda view: view["a"], lambda view: view[["a"]], lambda view: view.load()):
        with pytest.raises(UntrustedError, match="extension types"):
            read(store.view(key))


def test_texts_that_point_outside_are_errors_where_data_is_taken_alone(make_store: Make) -> None:
    store = make_store("memory", codec="data", cache_size=0)
    offsets = pa.py_buffer(np.array([0, 1 << 30, 2], np.int32).tobytes())
    wild = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"ab")])
    key = store.put(pa.table({"a": wild}))
    for read in (store.get, lambda key: store.view(key)["a"], lambda key: store.view(key).load()):
        with pytest.raises((SerializationError, pa.ArrowInvalid)):
            read(key)


# Numbers that a writer makes up


def _reference(facts: bytes) -> bytes:
    def named(tag: int, value: bytes) -> bytes:
        return bytes([tag, len(value)]) + value

    body = named(0x81, b"memory://attack") + named(0x85, b"k") + named(0x86, b"\x01")
    return b"PXR\x01" + body + named(0x0D, facts)


@pytest.mark.parametrize(
    "facts",
    [
        b"\x96\xcf" + b"\xff" * 8 + b"\x91\xcf" + b"\xff" * 8 + b"\xa3<f4\xc0\xc0\xc0",
        b"\x96\xd3" + b"\xff" * 8 + b"\xc0\xc0\xc0\xc0\xc0",
        b"\x96\x01\x92\xce\xff\xff\xff\xff\xce\xff\xff\xff\xff\xadU999999999999\xc0\xc0\xc0",
        b"\x96\x01\x91\x01\xa9(9,9)f8,O\xc0\xc0\xc0",
        b"\xdf\xff\xff\xff\xff",
    ],
)
def test_facts_that_lie_do_no_harm(facts: bytes) -> None:
    proxy = _restore(_reference(facts))
    for ask in (len, repr, lambda p: p.shape, lambda p: p.dtype, lambda p: p.size):
        try:
            ask(proxy)
        except Exception as error:  # it is resolved where the facts are none
            assert "attack" in str(error) or isinstance(error, OverflowError)


@pytest.mark.parametrize(
    "document",
    [
        b"\x91" * 1_000_000,
        b"\x81\x01" * 1_000_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff\x01\x01",
        b"\xdb\xff\xff\xff\xffabc",
        b"\xc6\xff\xff\xff\xffabc",
        b"\xc7\x01\x05a",
        b"\x81\x90\x01",
    ],
)
def test_documents_that_lie_are_errors(document: bytes, make_store: Make) -> None:
    store = make_store("memory", codec="data", cache_size=0)
    # The head, which has a checksum, speaks of lengths alone: that of a text as long serves.
    text = "x" * (len(document) - (1 if len(document) <= 32 else 5))
    raw = bytes(store.connector.get(store.put(text, codec="msgpack")))
    planted = store.connector.put(raw[: len(raw) - len(document)] + document)
    with pytest.raises(SerializationError, match="MessagePack"):
        store.get(planted)


# Seals


def _shown(secret: bytes) -> list[str]:
    return [secret.hex(), repr(secret)[2:20]]


def test_exceptions_and_metrics_do_not_carry_the_secret(make_store: Make) -> None:
    store = make_store("memory", seal=True, metrics=True, populate_target=False)
    proxy = store.proxy("x")
    key = get_factory(proxy).key
    assert type(key) is SealedKey
    store.get(key)
    future = store.future()
    secrets = [key.secret, get_factory(future.proxy()).key.secret]
    store.evict(key)
    with pytest.raises(ProxyResolveMissingKeyError) as missing:
        get_factory(proxy)()
    with pytest.raises(FutureTimeoutError) as late:
        future.result(timeout=0)
    for error in (missing.value, late.value):
        assert type(error.key) is not SealedKey
        travelling = pickle.dumps(error)
        assert not any(secret in travelling for secret in secrets)
        assert repr(pickle.loads(travelling)) == repr(error)
    assert store.metrics is not None
    shown = [to_prometheus(), repr(store.metrics), repr(store.config()), repr(vars(missing.value))]
    shown += [str(key), f"{key}", str([key]), repr({key: 1})]
    for secret in secrets:
        for text in _shown(secret):
            assert not any(text in line for line in shown)
    with pytest.raises(TypeError):
        json.dumps(key)


def test_an_object_read_without_the_seal_is_not_served_for_the_sealed_one(make_store: Make) -> None:
    store = make_store("file", seal=True, populate_target=False)
    key = store.put("genuine")
    with pytest.raises(SealedObjectError):
        store.get(key.key)
    assert store.get(key) == "genuine"
    assert store.is_cached(key)
    assert not store.is_cached(key.key)
    with pytest.raises(SealedObjectError):
        store.get(key.key)
    with pytest.raises(TamperedObjectError):
        store.get(key._replace(digest=bytes(32)))
    proxy = store.proxy_from_key(key)
    text = proxy.to_text()
    with pytest.raises(SealedObjectError, match="to_text"):
        Proxy.view(Proxy.from_text(text)).load()


def test_a_forged_failure_of_a_sealed_future_is_refused(make_store: Make) -> None:
    store = make_store("memory", seal=True)
    operator = Store("operator", store.connector)
    future = store.future()
    forged = operator.future()
    forged.set_exception(_Failure())
    raw = operator.connector.get(get_factory(forged.proxy()).key)
    store.connector.set(get_factory(future.proxy()).key.key, raw)
    received = pickle.loads(pickle.dumps(future.proxy()))
    for read in (
        future.result,
        future.exception,
        lambda: str(future.proxy()),
        lambda: resolve(received),
        lambda: Proxy.view(received).load(),
    ):
        with pytest.raises(Exception, match="sealed"):
            read()


# Signatures


def _deserializer(data: Any) -> Any:
    return ("mine", bytes(data))


def _serializer(data: Any) -> bytes:
    return bytes(data)


def test_what_is_passed_on_is_what_arrived(make_store: Make) -> None:
    for settings in ({}, {"deserializer": _deserializer, "serializer": _serializer}):
        store = make_store("memory", populate_target=False, **settings)
        proxy = store.proxy(b"x", serializer=_serializer, deserializer=_deserializer)
        sent = pickle.dumps(proxy)
        # Written by another version of Python: as good, and other bytes.
        received = pickle.loads(sent)
        assert pickle.dumps(received) == sent
        assert pickle.dumps(pickle.loads(pickle.dumps(received))) == sent
        assert received == ("mine", b"x")


def test_fields_that_come_twice_are_refused() -> None:
    twice = _reference(b"\x90") + b"\x85\x01z"
    with pytest.raises(Exception, match="comes twice"):
        resolve(_restore(twice))
    with pytest.raises(CorruptObjectError):
        get_factory(_restore(twice))()
