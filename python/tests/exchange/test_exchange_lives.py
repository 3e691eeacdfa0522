"""When objects end: owners and borrows, evicting proxies, times to live; and what needs no channel."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from exchange_peer import Rust, RustError, give_away, to_text
from exchange_samples import check, sample

from proxystore_rs.proxy import Proxy, ProxyResolveError, get_factory, resolve
from proxystore_rs.store import Store
from proxystore_rs.store.exceptions import ProxyResolveMissingKeyError
from proxystore_rs.store.ref import borrow, into_owned, mut_borrow, update

PATIENCE = 60.0
"""Seconds; longer than anything here takes, on a busy machine too."""


def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def exists(store: Store[Any], text: str) -> bool:
    """Whether the object is in the channel; what this process keeps for speed does not count."""
    found: bool = store.connector.exists(get_factory(Proxy.from_text(text)).key)  # type: ignore[attr-defined]
    return found


def assert_missing_in_rust(rust: Rust, text: str) -> None:
    with pytest.raises(RustError) as raised:
        rust.ask("check", "text", text)
    assert raised.value.kind == "NotFound"


def assert_missing_in_python(text: str) -> None:
    with pytest.raises(ProxyResolveError) as raised:
        resolve(Proxy.from_text(text))
    assert isinstance(raised.value.__cause__, ProxyResolveMissingKeyError)


def test_rust_borrows_from_an_owner_in_python(rust: Rust, store: Store[Any]) -> None:
    owner = store.owned_proxy(sample("text"))
    text = to_text(borrow(owner))
    assert rust.ask("check", "text", text) == "same"
    assert rust.ask("exists", text) == "true"
    del owner
    assert rust.ask("exists", text) == "false"
    assert_missing_in_rust(rust, text)


def test_python_borrows_from_an_owner_in_rust(rust: Rust, store: Store[Any], url: str) -> None:
    text = rust.ask("own", "text", url)
    check(Proxy.from_text(text), "text")
    assert exists(store, text)
    rust.ask("drop", text)
    assert not exists(store, text)
    assert_missing_in_python(text)


def test_rust_sees_what_an_exclusive_borrower_changed(rust: Rust, store: Store[Any]) -> None:
    kind = "array:i4:C:2x3"
    owner = store.owned_proxy(np.zeros((2, 3), np.int32))
    exclusive = mut_borrow(owner)
    exclusive[:] = sample(kind)
    update(exclusive)
    del exclusive
    assert rust.ask("check", kind, to_text(borrow(owner))) == "same"


def test_owners_move_to_python(rust: Rust, store: Store[Any], url: str) -> None:
    text = rust.ask("own", "text", url)
    rust.ask("give", text)
    owner = into_owned(Proxy.from_text(text))
    check(owner, "text")
    del owner
    assert rust.ask("exists", text) == "false"


def test_owners_move_to_rust(rust: Rust, store: Store[Any]) -> None:
    owner = store.owned_proxy(sample("text"))
    text = give_away(owner)
    rust.ask("adopt", "text", text)
    del owner
    assert exists(store, text)
    rust.ask("drop", text)
    assert not exists(store, text)


def test_a_killed_owner_leaks_nothing(
    start_rust: Callable[[], Rust], store: Store[Any], url: str
) -> None:
    owner = start_rust()
    text = owner.ask("own", "text", url, "lease=300")
    owner.process.kill()
    until(lambda: not exists(store, text))


def test_evicting_proxies_of_rust(rust: Rust, store: Store[Any], url: str) -> None:
    text = rust.ask("make", "text", url, "evict")
    assert exists(store, text)
    check(Proxy.from_text(text), "text")
    assert not exists(store, text)
    assert_missing_in_rust(rust, text)


def test_evicting_proxies_of_python(rust: Rust, store: Store[Any]) -> None:
    text = to_text(store.proxy(sample("text"), evict=True, populate_target=False))
    assert rust.ask("check", "text", text) == "same"
    assert not exists(store, text)
    assert_missing_in_python(text)


def test_times_to_live_of_rust(rust: Rust, store: Store[Any], url: str) -> None:
    text = rust.ask("make", "text", url, "ttl=100")
    until(lambda: not exists(store, text))
    assert_missing_in_python(text)
    check(rust.make("text", url, "ttl=100000"), "text")


def test_times_to_live_of_python(rust: Rust, store: Store[Any]) -> None:
    text = to_text(store.proxy(sample("text"), ttl=0.1))
    until(lambda: rust.ask("exists", text) == "false")
    assert_missing_in_rust(rust, text)
    rust.check("text", store.proxy(sample("text"), ttl=100))


def test_small_objects_travel_in_references_of_rust(
    rust: Rust, store: Store[Any], url: str
) -> None:
    text = rust.ask("make", "text", url, "inline")
    assert not exists(store, text)
    check(Proxy.from_text(text), "text")


def test_small_objects_travel_in_references_of_python(rust: Rust, store: Store[Any]) -> None:
    inline: Store[Any] = Store(f"inline-{store.name}", store.connector, inline_bytes=10_000)
    text = to_text(inline.proxy(sample("text")))
    assert not exists(store, text)
    assert rust.ask("check", "text", text) == "same"


def test_batches_of_rust(rust: Rust, store: Store[Any], url: str) -> None:
    texts = rust.ask("batch", "array:f4:C:4", url, 3).split(" ")
    assert len(set(texts)) == 3
    for text in texts:
        check(Proxy.from_text(text), "array:f4:C:4")


def test_batches_of_python(rust: Rust, store: Store[Any]) -> None:
    kind = "array:f4:C:4"
    proxies = store.proxy_batch([sample(kind) for _ in range(3)])
    assert len({to_text(proxy) for proxy in proxies}) == 3
    for proxy in proxies:
        rust.check(kind, proxy)
