"""Proxies handed to engines by hand, without the executor of this package."""

from __future__ import annotations

import pickle
from typing import Any

import executor_tasks as tasks
import numpy as np
import pytest
from executor_engines import Engine

from proxystore_rs.proxy import Proxy, extract, is_resolved, resolve
from proxystore_rs.store import Store

# Python warns of forking a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

ARRAY = np.arange(500)
TARGETS: dict[str, Any] = {
    "ndarray": ARRAY,
    "str": "text" * 100,
    "bytes": b"bytes" * 100,
    "list": list(range(500)),
    "tuple": tuple(range(500)),
    "dict": {str(number): number for number in range(500)},
    "set": set(range(500)),
}
# Dask descends into what says it is one of these.
DESCENDED = ("list", "tuple", "dict", "set")
# Parsl looks results that can be called, as every proxy can, up in a table.
UNHASHABLE = ("ndarray", "list", "dict", "set")


@pytest.mark.parametrize("populated", [False, True])
@pytest.mark.parametrize("kind", TARGETS)
def test_bare_proxies_arrive_as_proxies(
    engine: Engine, file_store: Store[Any], kind: str, populated: bool
) -> None:
    if engine.name == "ray" and kind == "bytes":
        pytest.skip("Ray takes what says it is bytes for bytes: see the next test")
    target = TARGETS[kind]
    proxy = file_store.proxy(target, populate_target=populated)
    with engine.make() as executor:
        seen = executor.submit(tasks.look, proxy).result()
        resolved = is_resolved(proxy)
        assert executor.submit(tasks.length, proxy).result() == len(target)
        if engine.name == "parsl" and kind in UNHASHABLE:
            with pytest.raises(TypeError, match="unhashable"):
                executor.submit(tasks.same, proxy).result()
            back = proxy
        else:
            back = executor.submit(tasks.same, proxy).result()
    assert seen == [("Proxy", populated and engine.shares_memory)]
    assert resolved == (populated or (engine.is_dask and kind in DESCENDED))
    assert type(back) is Proxy
    np.testing.assert_equal(extract(back), target)


def test_ray_refuses_a_bare_proxy_of_bytes_and_does_not_ship_something_else(
    engine: Engine, file_store: Store[Any]
) -> None:
    if engine.name != "ray":
        pytest.skip("a limit of Ray")
    with engine.make() as executor, pytest.raises(TypeError, match="Could not serialize"):
        executor.submit(tasks.length, file_store.proxy(TARGETS["bytes"]))


@pytest.mark.parametrize("kind", TARGETS)
def test_the_token_of_dask_is_that_of_the_key(
    engine: Engine, file_store: Store[Any], kind: str
) -> None:
    if engine.name != "dask":
        pytest.skip("a token of Dask")
    from dask.tokenize import tokenize

    target = TARGETS[kind]
    proxy = file_store.proxy(target, populate_target=False)
    token = tokenize(proxy)
    assert token == tokenize(proxy) != tokenize(file_store.proxy(target, populate_target=False))
    assert not is_resolved(proxy)
    if kind in ("str", "bytes"):
        return  # Dask takes what says it is text by its `repr`: other proxies have other tokens
    again = pickle.loads(pickle.dumps(proxy))
    assert tokenize(again) == token and not is_resolved(again)
    resolve(proxy)
    assert tokenize(proxy) == token
    with engine.make() as client:
        futures = [client.submit(tasks.length, item) for item in (proxy, again)]
        assert futures[0].key == futures[1].key  # a pure call is made once
        assert client.gather(futures) == [len(target)] * 2


def test_other_factories_have_a_token_too(engine: Engine) -> None:
    if engine.name != "dask":
        pytest.skip("a token of Dask")
    from dask.tokenize import tokenize

    one, two = Proxy(tasks.ten), Proxy(tasks.ten)
    assert one.__dask_tokenize__() == two.__dask_tokenize__() != Proxy(list).__dask_tokenize__()
    assert not is_resolved(one) and not is_resolved(two)
    assert tokenize(one) == tokenize(one)
