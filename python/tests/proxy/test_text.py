"""Proxies as one line of text."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxystore_rs.connectors.file import FileConnector
from proxystore_rs.exceptions import (
    CorruptObjectError,
    IncompatibleVersionError,
    SealedObjectError,
    UnsupportedOperationError,
)
from proxystore_rs.proxy import Proxy, ProxyResolveError, get_factory, is_resolved, resolve
from proxystore_rs.store import Store
from proxystore_rs.store.factory import StoreFactory
from proxystore_rs.store.ref import borrow


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store[Any]]:
    with Store(f"text-{tmp_path}", FileConnector(str(tmp_path)), register=True) as store:
        yield store


def decoded(text: str) -> bytes:
    coded = text.removeprefix("pxr1:")
    return base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4))


def encoded(reference: bytes) -> str:
    return "pxr1:" + base64.urlsafe_b64encode(reference).decode().rstrip("=")


def sealed(text: str) -> str:
    """Give the reference of a text a secret and its digest."""
    return encoded(decoded(text) + b"\x8e\x20" + b"\xa7" * 32 + b"\x8f\x20" + b"\xb8" * 32)


def test_a_proxy_goes_and_comes_as_text(store: Store[Any]) -> None:
    proxy: Proxy[list[int]] = store.proxy([1, 2], populate_target=False)
    text = proxy.to_text()
    assert not is_resolved(proxy)
    assert text.startswith("pxr1:")
    assert text.isascii() and not set(text) & set(" \n\"'\\=")
    assert json.loads(json.dumps(text)) == text
    arrived = Proxy.from_text(f"  {text}\n")
    assert type(arrived) is Proxy
    assert not is_resolved(arrived)
    assert arrived == [1, 2]
    # The same, resolved; it knows its class then.
    again = Proxy.from_text(proxy.to_text())
    assert again.__class__ is list
    assert not is_resolved(again)


def test_a_text_is_read_by_another_process(store: Store[Any]) -> None:
    program = (
        "import sys; from proxystore_rs.proxy import Proxy\n"
        "print(sum(Proxy.from_text(sys.argv[1])))"
    )
    text = store.proxy([3, 4]).to_text()
    done = subprocess.run(
        [sys.executable, "-c", program, text], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_a_to_text_of_the_target_comes_first(store: Store[Any]) -> None:
    class Document:
        def to_text(self, margin: int = 0) -> str:
            return " " * margin + "words"

    document = Proxy(Document, cache_defaults=True, target=Document())
    assert document.to_text(margin=1) == " words"
    unresolved = store.proxy_from_key(store.put("x"))
    unresolved.__proxy_default_class__ = Document
    with pytest.raises(AttributeError):
        unresolved.to_text()  # the class of what is really there has none
    assert Proxy.from_text(Proxy.to_text(unresolved)) == "x"


def test_a_subclass_may_have_its_own() -> None:
    class Loud(Proxy[Any]):
        def to_text(self, secret: bool = False) -> str:
            return f"LOUD {secret}"

    assert Loud(list).to_text(secret=True) == "LOUD True"


def test_futures_and_owners_have_texts(store: Store[Any]) -> None:
    future = store.future()
    arrived = Proxy.from_text(future.proxy().to_text())
    future.set_result("done")
    assert arrived == "done"

    owner = store.owned_proxy([1])
    # An address of the object, neither owner nor borrow.
    plain = Proxy.from_text(owner.to_text())
    shared = borrow(owner)
    assert plain == [1]
    assert type(plain) is Proxy
    assert shared.to_text() == owner.to_text()
    del plain, shared
    assert store.exists(get_factory(owner).key)


def test_factories_of_other_classes_are_refused(store: Store[Any]) -> None:
    class Own(StoreFactory[Any, Any]):
        pass

    own = Proxy(Own(store.put(1), store.config()))
    for proxy in (own, Proxy(lambda: 1)):
        with pytest.raises(UnsupportedOperationError, match=r"store\.proxy\(obj\)"):
            proxy.to_text()
    with pytest.raises(UnsupportedOperationError):
        Proxy.to_text(Proxy.__new__(Proxy))


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ("", CorruptObjectError),
        ("hello", CorruptObjectError),
        ("pxr1:", CorruptObjectError),
        ("pxr1:UFhS AYEK", CorruptObjectError),
        ("pxr1:UFhSAYEKbWVtb3J5Oi8vYYUBaw==", CorruptObjectError),
        ("pxr2:UFhSAYEKbWVtb3J5Oi8vYYUBaw", IncompatibleVersionError),
    ],
)
def test_other_texts_are_refused_at_once(bad: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        Proxy.from_text(bad)
    with pytest.raises(TypeError):
        Proxy.from_text(bad.encode())  # type: ignore[arg-type]


def test_the_secret_of_an_object_is_left_out_unless_asked_for(store: Store[Any]) -> None:
    secret = Proxy.from_text(sealed(store.proxy("x").to_text()))
    assert b"\xa7" * 32 in decoded(secret.to_text(secret=True))
    assert b"\xa7" * 32 in pickle.dumps(secret)

    text = secret.to_text()
    assert b"\xa7" * 32 not in decoded(text)
    assert b"\xb8" * 32 not in decoded(text)
    incomplete = Proxy.from_text(text)
    for proxy in (incomplete, pickle.loads(pickle.dumps(incomplete))):
        with pytest.raises(ProxyResolveError, match="to_text\\(secret=True\\)") as raised:
            resolve(proxy)
        assert isinstance(raised.value.cause, SealedObjectError)


def test_nothing_shows_a_secret(store: Store[Any], capsys: pytest.CaptureFixture[str]) -> None:
    secret = Proxy.from_text(sealed(store.proxy_from_key(store.put("x")).to_text()))
    factory = get_factory(secret)
    text = secret.to_text(secret=True)
    shown = [repr(secret), repr(factory), str(factory.key), repr(factory.store_config)]
    for bad in (text + "=", text[:-3], text.replace("pxr1", "pxr2"), text[5:]):
        with pytest.raises((CorruptObjectError, IncompatibleVersionError)) as raised:
            Proxy.from_text(bad)
        shown.append(repr(raised.value))
    store.evict(factory.key)
    with pytest.raises(ProxyResolveError) as missing:
        resolve(secret)
    shown += [repr(missing.value), str(missing.value), *capsys.readouterr()]
    raw = b"\xa7" * 32
    for spelled in (raw.hex(), base64.b64encode(raw).decode()[3:40], repr(raw)[2:-1], "167, 167"):
        assert not any(spelled in one for one in shown), spelled


def test_credentials_of_the_channel_are_left_out_unless_asked_for() -> None:
    url = b"redis://someone:hush-hush@host:1/0"
    options = b"\x81\xa8password\xa9hush-hush"
    fields = [(0x81, b"demo"), (0x82, url), (0x03, options), (0x85, b"run.7")]
    reference = b"PXR\x01" + b"".join(bytes([tag, len(value)]) + value for tag, value in fields)
    proxy = Proxy.from_text(encoded(reference))
    assert decoded(proxy.to_text(secret=True)) == reference
    open_text = decoded(proxy.to_text())
    assert b"hush" not in open_text
    assert b"someone" not in open_text
    assert b"redis://host:1/0" in open_text
    assert "hush" not in repr(proxy) + repr(get_factory(proxy))
