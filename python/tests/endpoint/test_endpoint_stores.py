"""Stores and proxies over an endpoint, across threads, forks and processes."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from endpoint_daemon import Endpoint
from hammer import in_processes, in_threads

from proxystore_rs.connectors.endpoint import EndpointConnector
from proxystore_rs.connectors.local import LocalConnector
from proxystore_rs.connectors.multi import MultiConnector, Policy
from proxystore_rs.proxy import Proxy
from proxystore_rs.store import Store, get_store, open_store
from proxystore_rs.store.lifetimes import ContextLifetime, LeaseLifetime
from proxystore_rs.store.ref import borrow, mut_borrow, update

# Python warns of forking a process with threads, which is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@pytest.fixture
def store(site: Endpoint) -> Any:
    """A registered store at the endpoint."""
    connector = EndpointConnector([site.name], clear=True)
    with Store(f"at-{site.directory.parent.name}", connector, register=True, cache_size=0) as store:
        yield store


def total(array: Any) -> float:
    return float(array.sum())


def doubled(array: Any) -> Any:
    store: Any = get_store(array)
    return store.proxy(array * 2, evict=True, populate_target=False)


def travelled(proxy: Any) -> Any:
    """The proxy as a process gets it that was sent it."""
    return pickle.loads(pickle.dumps(proxy))


def test_proxies_resolve_and_hold_no_token(store: Any, site: Endpoint) -> None:
    data = pickle.dumps(store.proxy({"a": [1, 2]}))
    assert pickle.loads(data) == {"a": [1, 2]}
    token = (site.directory / "token").read_text().strip()
    assert len(token) > 16 and token.encode() not in data
    assert token not in repr(store) + repr(store.config())
    assert isinstance(pickle.loads(data), Proxy)


def test_a_url_opens_a_store(site: Endpoint) -> None:
    with open_store(f"endpoint:{site.card['id']}") as store:
        assert store.get(store.put([1])) == [1]
        assert isinstance(store.connector, EndpointConnector)
        store.close(clear=True)


@pytest.mark.parametrize("size", [10, 20_000, 3_000_000])
def test_arrays_are_private_to_their_reader(store: Any, size: int) -> None:
    array = np.arange(float(size))
    key = store.put(array)
    mine = store.get(key)
    np.testing.assert_array_equal(mine, array)
    mine[:] = 0
    np.testing.assert_array_equal(store.get(key), array)


def test_futures_are_set_elsewhere(store: Any) -> None:
    future = store.future()
    proxy = travelled(future.proxy())
    with ThreadPoolExecutor(2) as pool:
        sums = [pool.submit(sum, travelled(proxy)) for _ in range(2)]
        travelled(future).set_result([1, 2, 3])
        assert [done.result() for done in sums] == [6, 6]


def test_owners_evict(store: Any) -> None:
    owner = store.owned_proxy([1, 2])
    assert travelled(borrow(owner)) == [1, 2]
    exclusive = mut_borrow(owner)
    exclusive.append(3)
    update(exclusive)
    del exclusive
    assert travelled(borrow(owner)) == [1, 2, 3]
    key = owner.__proxy_factory__.key
    assert store.exists(key)
    del owner
    assert not store.exists(key)


def test_lifetimes_end_objects(store: Any) -> None:
    with ContextLifetime(store) as lifetime:
        key = store.put("short", lifetime=lifetime)
        assert store.exists(key)
    assert not store.exists(key)
    lease = LeaseLifetime(store, 1000)
    key = store.put("leased", lifetime=lease)
    assert store.exists(key)
    lease.close()
    assert not store.exists(key)


def test_views_read_parts(store: Any) -> None:
    array = np.arange(1_000_000.0).reshape(1000, 1000)
    view = store.view(store.proxy(array))
    np.testing.assert_array_equal(view[10:20], array[10:20])
    np.testing.assert_array_equal(view[:, 3], array[:, 3])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_pool_gets_arrays_by_proxy(store: Any, method: str) -> None:
    array = np.arange(200_000.0)
    proxy = store.proxy(array)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(total, [proxy] * 10)) == [array.sum()] * 10
        result = pool.submit(doubled, proxy).result()
        np.testing.assert_array_equal(result, array * 2)
    assert store.get(proxy.__proxy_factory__.key).sum() == array.sum()


def test_parent_and_forked_children_do_not_share_connections(store: Any) -> None:
    key = store.put("of the parent")

    def work() -> None:
        for number in range(50):
            assert store.get(key, default=None) == "of the parent"
            assert store.get(store.put(number)) == number

    children = [multiprocessing.get_context("fork").Process(target=work) for _ in range(3)]
    for child in children:
        child.start()
    work()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    work()


def test_threads_use_all_patterns_at_once(store: Any) -> None:
    in_threads(store, 5)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_use_all_patterns_at_once(store: Any, method: str) -> None:
    in_processes(store, method, 3)


def test_a_part_of_several_channels(site: Endpoint) -> None:
    small = LocalConnector(), Policy(priority=1, max_size_bytes=1000)
    far = EndpointConnector([site.name], clear=True), Policy()
    connector = MultiConnector({"small": small, "far": far})
    with Store("endpoint-and-local", connector, register=True) as store:
        keys = [store.put(b"x" * size) for size in (10, 100_000)]
        assert [key[0] for key in keys] == ["small", "far"]
        assert [len(store.get(key)) for key in keys] == [10, 100_000]
        assert travelled(store.proxy(b"y" * 100_000)) == b"y" * 100_000
