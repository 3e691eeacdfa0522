"""The guard that turns an unwanted resolve into an error."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest

from proxystore_rs.proxy import (
    Proxy,
    ProxyResolveError,
    UnwantedResolveError,
    extract,
    is_resolved,
    no_resolve,
    resolve,
)


def numbers() -> list[int]:
    return [1, 2, 3]


def innocent_looking_function(p: Any) -> int:
    return len(p)


def test_says_what_and_where() -> None:
    p = Proxy(numbers)
    with no_resolve(), pytest.raises(UnwantedResolveError) as caught:
        innocent_looking_function(p)
    message = str(caught.value)
    assert repr(p) in message
    assert "numbers" in message
    assert "innocent_looking_function" in message
    assert "proxystore_rs.proxy.resolve(p)" in message
    assert "innocent_looking_function" in caught.value.stack
    assert isinstance(caught.value, ProxyResolveError)
    assert not is_resolved(p)
    assert innocent_looking_function(p) == 3


def test_refuses_explicit_resolves_too() -> None:
    for use in (resolve, extract):
        with no_resolve(), pytest.raises(UnwantedResolveError):
            use(Proxy(numbers))


def test_looking_and_resolved_proxies_are_fine() -> None:
    p, resolved = Proxy(numbers), Proxy(numbers, target=[1])
    with no_resolve():
        repr(p)
        pickle.loads(pickle.dumps(p))
        copy.copy(p)
        assert isinstance(p, Proxy)
        assert not hasattr(p, "_repr_html_")
        assert len(resolved) == 1


def test_nests() -> None:
    p = Proxy(numbers)
    with no_resolve():
        with no_resolve():
            pass
        with pytest.raises(UnwantedResolveError):
            len(p)
    assert len(p) == 3


def test_ends_with_an_error() -> None:
    with pytest.raises(KeyError), no_resolve():
        raise KeyError
    assert len(Proxy(numbers)) == 3


def test_decorator() -> None:
    guarded = no_resolve()(innocent_looking_function)
    for _ in range(2):
        with pytest.raises(UnwantedResolveError):
            guarded(Proxy(numbers))


def test_other_threads_are_free() -> None:
    lengths: list[int] = []
    with no_resolve():
        thread = threading.Thread(target=lambda: lengths.append(len(Proxy(numbers))))
        thread.start()
        thread.join()
    assert lengths == [3]


def test_tasks() -> None:
    async def run() -> int:
        with no_resolve():
            inherits = asyncio.create_task(use(0))
            with pytest.raises(UnwantedResolveError):
                await inherits
            later = asyncio.create_task(use(0.001))
        # The guard ended before the task came to use its proxy, though another one is on.
        with no_resolve():
            return await later

    async def use(delay: float) -> int:
        await asyncio.sleep(delay)
        return len(Proxy(numbers))

    assert asyncio.run(run()) == 3


@pytest.mark.parametrize(("value", "refused"), [("1", True), ("true", True), ("0", False)])
def test_environment_variable(value: str, refused: bool) -> None:
    code = (
        "from proxystore_rs.proxy import Proxy, UnwantedResolveError\n"
        "import threading\n"
        "def use():\n"
        "    try: len(Proxy(list))\n"
        "    except UnwantedResolveError as e: print('PROXYSTORE_NO_RESOLVE' in str(e))\n"
        "use()\n"
        "t = threading.Thread(target=use); t.start(); t.join()\n"
    )
    environment = os.environ | {"PROXYSTORE_NO_RESOLVE": value}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == (["True", "True"] if refused else [])
