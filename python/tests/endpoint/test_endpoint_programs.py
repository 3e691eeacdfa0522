"""Programs at two sites, in Python and Rust: proxies, futures and lifetimes cross between them."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rust_programs import rust_example
from sites import Sites

from proxystore_rs.connectors.endpoint import EndpointConnector
from proxystore_rs.proxy import Proxy
from proxystore_rs.store import Store
from proxystore_rs.store.lifetimes import LeaseLifetime

PYTHON = (sys.executable, Path(__file__).with_name("site_program.py"))


@pytest.fixture
def store(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store of this process, whose site is A."""
    sites.start()
    monkeypatch.setenv("PROXYSTORE_HOME", str(sites.a.home))
    connector = EndpointConnector([sites.a.name], clear=True)
    name = f"between-{sites.a.home.parent.name}"
    with Store(name, connector, register=True, cache_size=0) as store:
        yield store


def at_b(sites: Sites, program: tuple[object, ...], *lines: str) -> list[str]:
    """What a program at site B answers."""
    text = "".join(f"{line}\n" for line in lines)
    answers = sites.lab.run("B", *program, input=text, env=sites.b.environment)
    return answers.splitlines()


def text_of(proxy: Any) -> str:
    return Proxy.to_text(proxy, secret=True)


def test_an_array_of_one_site_is_used_at_the_other(store: Any, sites: Sites) -> None:
    array = np.random.default_rng(1).random((3, 500, 1000))
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    proxy = store.proxy(array)
    assert at_b(sites, PYTHON, f"hash {text_of(proxy)}") == [f"ok {digest}"]


def test_rust_at_one_site_uses_what_python_made_at_the_other(store: Any, sites: Sites) -> None:
    program = (rust_example("exchange"),)
    proxy = store.proxy(b"\x07" * 3_000_000)  # what the program knows as bytes-large
    future = store.future()
    lines = (f"check bytes-large {text_of(proxy)}", f"set bytes-large {text_of(future.proxy())}")
    assert [answer.split()[0] for answer in at_b(sites, program, *lines)] == ["ok", "ok"]
    assert future.result(timeout=60) == b"\x07" * 3_000_000


def test_a_future_of_one_site_is_set_at_the_other(store: Any, sites: Sites) -> None:
    future: Any = store.future()
    text = text_of(future.proxy())
    assert not future.done()
    assert at_b(sites, PYTHON, f"set {text} hello") == ["ok done"]
    assert future.result(timeout=60) == "hello"


def test_an_object_whose_lease_ended_is_gone_at_both_sites(store: Any, sites: Sites) -> None:
    lease = LeaseLifetime(store, expiry=600)
    array = np.arange(10.0)
    text = text_of(store.proxy(array, lifetime=lease))
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    assert at_b(sites, PYTHON, f"hash {text}") == [f"ok {digest}"]
    lease.close()
    (answer,) = at_b(sites, PYTHON, f"hash {text}")
    assert answer.startswith("ProxyResolve"), answer


def test_a_proxy_of_a_site_that_is_gone_says_so(store: Any, sites: Sites) -> None:
    text = text_of(store.proxy(np.arange(10.0)))
    sites.a.kill()
    (answer,) = at_b(sites, PYTHON, f"hash {text}")
    assert not answer.startswith("ok"), answer
    assert "site-a" in answer
    sites.a.start()  # the store of this process clears what it made there
