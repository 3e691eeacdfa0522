"""Futures that one language makes, and the other sets or waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from exchange_peer import Rust, RustError, to_text
from exchange_samples import check, sample

from proxystore_rs.exceptions import (
    FutureAbandonedError,
    FutureCancelledError,
    FutureFailedError,
    FutureTimeoutError,
)
from proxystore_rs.proxy import Proxy, ProxyResolveError, get_factory, is_resolved
from proxystore_rs.store import Store
from proxystore_rs.store.future import Future

KINDS = ("text", "bytes-large", "array:u2:C:2x3x4")


def future_of(text: str) -> Future[Any]:
    """The future that was made in Rust."""
    return Future(get_factory(Proxy.from_text(text)))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_rust_sets_what_python_made(rust: Rust, store: Store[Any], kind: str) -> None:
    future = store.future()
    proxy = future.proxy()
    assert not future.done()
    rust.tell("set", kind, to_text(proxy))  # perhaps later than Python waits
    check(proxy, kind)
    rust.answer()
    assert future.done()
    check(future.result(), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_python_sets_what_rust_made(rust: Rust, store: Store[Any], url: str, kind: str) -> None:
    text = rust.ask("future", url)
    rust.tell("check", kind, text)  # waits until it is set
    future_of(text).set_result(sample(kind))
    assert rust.answer() == "same"
    check(Proxy.from_text(text), kind)
    rust.ask("drop", text)


def test_rust_waits_for_what_python_made(rust: Rust, store: Store[Any]) -> None:
    future = store.future()
    rust.tell("check", "text", to_text(future.proxy()))
    future.set_result(sample("text"))
    assert rust.answer() == "same"


def test_python_waits_for_what_rust_made(
    start_rust: Callable[[], Rust], store: Store[Any], url: str
) -> None:
    consumer, producer = start_rust(), start_rust()
    text = producer.ask("future", url)
    consumer.tell("check", "text", text)
    producer.tell("set", "text", text)
    check(Proxy.from_text(text), "text")
    assert consumer.answer() == "same"
    producer.answer()


def test_a_result_is_evicted_when_it_is_taken(rust: Rust, store: Store[Any], url: str) -> None:
    future = store.future(evict=True)
    rust.ask("set", "text", to_text(future.proxy()))
    check(future.proxy(), "text")
    assert not future.done()

    text = rust.ask("future", url, "evict")
    future_of(text).set_result(sample("text"))
    rust.check("text", Proxy.from_text(text))
    assert rust.ask("exists", text) == "false"
    rust.ask("drop", text)


def test_rust_learns_of_an_exception(rust: Rust, store: Store[Any]) -> None:
    future = store.future()
    future.set_exception(ValueError("no stars"))
    with pytest.raises(RustError, match="its producer failed with ValueError: no stars") as raised:
        rust.check("text", future.proxy())
    assert raised.value.kind == "Failed"


def test_python_learns_of_an_error(rust: Rust, store: Store[Any]) -> None:
    future = store.future()
    rust.ask("fail", to_text(future.proxy()), "no stars")
    with pytest.raises(FutureFailedError, match="no stars"):
        future.result()
    assert isinstance(future.exception(), FutureFailedError)
    with pytest.raises(ProxyResolveError, match="no stars") as raised:
        len(future.proxy())
    assert isinstance(raised.value.__cause__, FutureFailedError)


def test_cancelling_is_seen_on_the_other_side(rust: Rust, store: Store[Any], url: str) -> None:
    future = store.future()
    assert future.cancel()
    text = to_text(future.proxy())
    for command in (("check", "text", text), ("set", "text", text)):
        with pytest.raises(RustError) as raised:
            rust.ask(*command)
        assert raised.value.kind == "Cancelled"

    text = rust.ask("future", url)
    assert rust.ask("cancel", text) == "true"
    assert future_of(text).cancelled()
    with pytest.raises(FutureCancelledError):
        future_of(text).result()
    rust.ask("drop", text)


def test_the_timeout_travels(rust: Rust, store: Store[Any], url: str) -> None:
    with pytest.raises(RustError) as raised:
        rust.check("text", store.future(polling_timeout=0.05).proxy())
    assert raised.value.kind == "Timeout"

    text = rust.ask("future", url, "timeout=50")
    with pytest.raises(FutureTimeoutError):
        future_of(text).result()
    rust.ask("drop", text)


def test_leases_of_rust_are_noticed_in_python(
    start_rust: Callable[[], Rust], store: Store[Any], url: str
) -> None:
    producer = start_rust()
    text = producer.ask("future", url, "lease=300")
    proxy = Proxy.from_text(text)
    producer.process.kill()
    with pytest.raises(ProxyResolveError) as raised:
        len(proxy)
    assert isinstance(raised.value.__cause__, FutureAbandonedError)
    assert not is_resolved(proxy)


def test_leases_of_python_are_noticed_in_rust(rust: Rust, store: Store[Any]) -> None:
    future = store.future(lease=0.3)
    proxy = future.proxy()
    del future  # nobody renews any more
    with pytest.raises(RustError) as raised:
        rust.check("text", proxy)
    assert raised.value.kind == "Abandoned"


@pytest.mark.parametrize("url", ["shm"], indirect=True)
def test_a_lease_moves_with_the_future(
    start_rust: Callable[[], Rust], store: Store[Any], url: str
) -> None:
    consumer, producer = start_rust(), start_rust()
    text = producer.ask("future", url, "lease=1500")
    future = future_of(text)  # Python renews it from now on
    producer.process.kill()
    producer.process.wait()
    consumer.tell("check", "text", text)
    with pytest.raises(FutureTimeoutError):
        future.result(timeout=1.8)  # longer than the lease: it was renewed
    future.set_result(sample("text"))
    assert consumer.answer() == "same"
