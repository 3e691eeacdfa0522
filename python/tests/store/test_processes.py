"""Stores and proxies across threads, forks, spawned processes, signals and interpreter exit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from proxystore_rs.proxy import Proxy, ProxyResolveError, is_resolved
from proxystore_rs.store import Store, get_store
from proxystore_rs.store.exceptions import ProxyResolveMissingKeyError

METHODS = ("fork", "spawn")

# Python warns of forking a process with threads, which is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def total(array: Any) -> float:
    """The work of the tests below; knows nothing of proxies."""
    return float(array.sum())


def total_and_write(array: Any) -> float:
    array += 1  # private memory: nobody else sees it
    return float(array.sum())


def make_result(array: Any) -> Any:
    store = get_store(array)
    assert store is not None
    return store.proxy(array * 2, evict=True, populate_target=False)


def add_up(numbers: Any) -> int:
    return sum(numbers)


@pytest.mark.parametrize("method", METHODS)
def test_a_process_pool_gets_arrays_by_proxy(shared_store: Store[Any], method: str) -> None:
    array = np.arange(200_000.0)
    proxy = shared_store.proxy(array)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(total, [proxy] * 4)) == [array.sum()] * 4
        # Objects are private to a process, where all proxies of one key share one of them.
        written = shared_store.proxy(array)
        assert pool.submit(total_and_write, written).result() == array.sum() + len(array)
        assert shared_store.get(written.__proxy_factory__.key).sum() == array.sum()
        result = pool.submit(make_result, proxy).result()
        assert not is_resolved(result)
        np.testing.assert_array_equal(result, array * 2)
    assert shared_store.get(proxy.__proxy_factory__.key).sum() == array.sum()


@pytest.mark.parametrize("method", METHODS)
def test_a_process_pool_survives_what_cannot_be_resolved(
    shared_store: Store[Any], method: str
) -> None:
    proxy = shared_store.proxy(np.ones(3), populate_target=False)
    shared_store.evict(proxy.__proxy_factory__.key)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        with pytest.raises(ProxyResolveError) as caught:
            pool.submit(total, proxy).result()
        assert "ProxyResolveMissingKeyError" in str(caught.value.__cause__) or isinstance(
            caught.value.cause, ProxyResolveMissingKeyError
        )
        assert pool.submit(add_up, shared_store.proxy([1, 2])).result() == 3


class Sent:
    """Pickled, it is a reference that some other version wrote."""

    def __reduce__(self) -> tuple[Any, ...]:
        from proxystore_rs._core import _restore

        return _restore, (b"PXR\x02",)


@pytest.mark.parametrize("method", METHODS)
def test_a_process_pool_survives_references_of_a_newer_version(method: str) -> None:
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        with pytest.raises(ProxyResolveError) as caught:
            pool.submit(add_up, Sent()).result()
        assert "upgrade" in str(caught.value.__cause__)
        assert pool.submit(add_up, [1, 2]).result() == 3


def test_eight_threads_one_proxy_one_factory_call(store: Store[Any]) -> None:
    evicting = store.proxy(list(range(1000)), evict=True, populate_target=False)
    factory, calls = evicting.__proxy_factory__, []

    def counted() -> Any:
        calls.append(1)
        return factory()

    proxy: Proxy[Any] = Proxy(counted)
    start = threading.Barrier(8)

    def use(_: int) -> int:
        start.wait()
        return len(proxy)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(8))) == [1000] * 8
    assert calls == [1]
    assert not store.exists(factory.key)


class Meeting:
    """A connector whose `get` returns only when all of its users are in it."""

    def __init__(self, parties: int) -> None:
        self.barrier = threading.Barrier(parties, timeout=30)
        self.objects: dict[Any, bytes] = {}

    def put(self, obj: bytes) -> tuple[int]:
        key = (len(self.objects),)
        self.objects[key] = bytes(obj)
        return key

    def get(self, key: Any) -> bytes | None:
        self.barrier.wait()
        return self.objects.get(key)

    def config(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


def test_eight_keys_are_fetched_at_the_same_time() -> None:
    store = Store("meeting", Meeting(8))
    proxies = [store.proxy([i], populate_target=False) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda p: p[0], proxies)) == list(range(8))


def test_other_threads_run_during_a_wait(make_store: Callable[..., Store[Any]]) -> None:
    connector = make_store("memory").connector
    key, found = connector.new_key(), []
    waiter = threading.Thread(target=lambda: found.append(connector.wait(key, 30)))
    waiter.start()
    connector.set(key, b"x")  # would come too late if the waiter kept the interpreter
    waiter.join()
    assert found == [True]


def _run(code: str, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_ctrl_c_ends_a_wait() -> None:
    code = """
import os, signal, threading
from proxystore_rs.connectors.memory import MemoryConnector
connector = MemoryConnector('ctrl-c')
key = connector.new_key()
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    connector.wait(key)
except KeyboardInterrupt:
    print('interrupted')
"""
    done = _run(code)
    assert (done.stdout.strip(), done.stderr) == ("interrupted", "")


def test_interpreter_exit_is_clean_with_stores_open() -> None:
    code = """
import atexit, pickle
import numpy as np
from proxystore_rs.store import open_store
from proxystore_rs.store.utils import resolve_async
store = open_store('shm://test-exit')
proxy = store.proxy(np.arange(1_000_000), populate_target=False)
resolve_async(proxy)
keep = [proxy, store.empty(1000), store.get(store.put(np.arange(100_000)))]
cycle = {'proxy': proxy}
cycle['self'] = cycle
"""
    done = _run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("delay", [0.0, 0.15, 0.2, 0.25])
def test_interpreter_exit_waits_for_a_connector_written_in_python(delay: float) -> None:
    code = f"""
import time
from proxystore_rs.connectors.local import LocalConnector
from proxystore_rs.store import Store
from proxystore_rs.store.utils import resolve_async
class Slow(LocalConnector):
    def get(self, key):
        for _ in range(20):
            time.sleep(0.01)
        return super().get(key)
store = Store('slow', Slow(), read_only=True)
proxies = [store.proxy([1] * 10_000, populate_target=False) for _ in range(4)]
for proxy in proxies:
    resolve_async(proxy)
time.sleep({delay})
"""
    done = _run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_forked_child_uses_inherited_stores_while_the_parent_is_busy(
    shared_store: Store[Any],
) -> None:
    stop = threading.Event()
    key = shared_store.put(np.arange(50_000))

    def busy() -> None:
        while not stop.is_set():
            own = shared_store.put(np.ones(50_000))
            shared_store.get(own)
            shared_store.evict(own)

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                status = 1
                try:
                    fresh = shared_store.put(np.full(50_000, 3))
                    good = shared_store.get(key).sum() == np.arange(50_000).sum()
                    status = 0 if good and shared_store.get(fresh).sum() == 150_000 else 2
                finally:
                    os._exit(status)
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_results_outlive_the_worker_that_made_them(shared_store: Store[Any]) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        result: Proxy[Any] = pool.submit(make_result, shared_store.proxy(np.ones(1000))).result()
    assert result.sum() == 2000  # the worker is gone


def test_heavy_libraries_are_not_imported() -> None:
    code = """
import sys
import proxystore_rs.store
heavy = {'numpy', 'pandas', 'polars', 'pydantic', 'cloudpickle', 'torch', 'asyncio'}
print(sorted(heavy & set(sys.modules)))
"""
    assert _run(code).stdout.strip() == "[]"
