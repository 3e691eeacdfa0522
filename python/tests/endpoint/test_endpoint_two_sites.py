"""Two sites, each with a home of its own: what is made here is used by a process that knows the other alone."""

from __future__ import annotations

import base64
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from endpoint_daemon import Endpoint

from proxystore_rs.connectors.endpoint import EndpointConnector
from proxystore_rs.store import Store


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def sites(
    endpoint_binary: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Endpoint, Endpoint]]:
    """Two endpoints that admit each other; this process is at the first."""
    a, b = (
        Endpoint(endpoint_binary, tmp_path_factory.mktemp("home"), name)
        for name in ("site-a", "site-b")
    )
    ports = {a: free_port(), b: free_port()}
    for own, other in ((a, b), (b, a)):
        peer = {
            "id": other.card["id"],
            "name": other.name,
            "addresses": [f"127.0.0.1:{ports[other]}"],
        }
        own.configure(peers={"port": ports[own], "allow": [peer]})
    monkeypatch.setenv("PROXYSTORE_HOME", str(a.home))
    try:
        a.start()
        b.start()
        yield a, b
    finally:
        a.kill()
        b.kill()


@pytest.fixture
def at_b(sites: tuple[Endpoint, Endpoint]) -> Callable[..., str]:
    """A function `(code, *objects)` that runs code at the second site, where `sent` are the objects."""

    def run(code: str, *objects: Any) -> str:
        sent = base64.b64encode(pickle.dumps(objects)).decode()
        text = f"import base64, pickle\nsent = pickle.loads(base64.b64decode({sent!r}))\n{code}"
        done = subprocess.run(
            [sys.executable, "-c", text],
            env=os.environ | {"PROXYSTORE_HOME": str(sites[1].home)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def store(sites: tuple[Endpoint, Endpoint]) -> Iterator[Store[Any]]:
    """A store at the first site."""
    connector = EndpointConnector(["site-a"], clear=True)
    with Store(f"sites-{os.getpid()}", connector, register=True, cache_size=0) as store:
        yield store


def test_proxies_resolve_at_the_other_site(store: Any, at_b: Callable[..., str]) -> None:
    small, large = store.proxy([1, 2]), store.proxy(np.arange(2_000_000.0))
    assert at_b("print(sum(sent[0]), sent[1].sum())", small, large) == "3 1999999000000.0"


def test_a_result_stored_there_is_used_here(store: Any, at_b: Callable[..., str]) -> None:
    code = """
from proxystore_rs.store import get_store
store = get_store(sent[0]) or (len(sent[0]), get_store(sent[0]))[1]
print(base64.b64encode(pickle.dumps(store.proxy(sent[0] * 2))).decode())
"""
    result = pickle.loads(base64.b64decode(at_b(code, store.proxy(np.arange(10)))))
    np.testing.assert_array_equal(result, np.arange(10) * 2)


def test_futures_cross(store: Any, at_b: Callable[..., str]) -> None:
    future = store.future()
    at_b("sent[0].set_result([1, 2, 3])", future)
    assert future.result(timeout=60) == [1, 2, 3]


def test_what_was_evicted_is_missing_there(store: Any, at_b: Callable[..., str]) -> None:
    key = store.put("gone")
    proxy = store.proxy_from_key(key)
    store.evict(key)
    code = """
try:
    len(sent[0])
except Exception as error:
    print(type(error.cause).__name__)
"""
    assert at_b(code, proxy) == "ProxyResolveMissingKeyError"


def test_a_site_that_is_down_is_an_error_that_names_it(
    sites: tuple[Endpoint, Endpoint], store: Any, at_b: Callable[..., str]
) -> None:
    proxy = store.proxy("unreachable")
    sites[0].kill()
    code = """
from proxystore_rs.connectors.endpoint import EndpointConnectorError
try:
    sent[0].upper()
except Exception as error:
    assert isinstance(error.cause, EndpointConnectorError), repr(error.cause)
    print(error.cause)
"""
    try:
        assert "site-a" in at_b(code, proxy)
    finally:
        sites[0].start()  # so that the store can be closed
