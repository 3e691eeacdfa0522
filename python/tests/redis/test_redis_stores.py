"""Stores and proxies over Redis, across threads, forks and processes."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hammer import in_processes, in_threads, settles

from proxystore_rs.connectors.redis import RedisConnector
from proxystore_rs.store import Store, get_store, open_store
from proxystore_rs.store.config import StoreConfig

# Python warns of forking a process with threads, which is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def total(array: Any) -> float:
    return float(array.sum())


def doubled(array: Any) -> Any:
    store: Any = get_store(array)
    return store.proxy(array * 2, evict=True, populate_target=False)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_pool_gets_arrays_by_proxy(redis: Any, method: str) -> None:
    connector = RedisConnector("127.0.0.1", redis.port, whole_bytes=500_000, part_bytes=300_000)
    with Store(f"redis-{method}", connector, register=True) as store:
        array = np.arange(200_000.0)
        proxy = store.proxy(array)
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            assert list(pool.map(total, [proxy] * 20)) == [array.sum()] * 20
            result = pool.submit(doubled, proxy).result()
            np.testing.assert_array_equal(result, array * 2)
            assert store.get(proxy.__proxy_factory__.key).sum() == array.sum()
        store.close(clear=True)  # what workers stored is of the same namespace
    assert redis.keys() == 0


def test_parent_and_forked_children_do_not_share_connections(tls_redis: Any) -> None:
    connector = RedisConnector(
        "127.0.0.1", tls_redis.port, tls=True, ca_file=tls_redis.ca_file, password="hush-hush"
    )
    with Store("redis-forked", connector, register=True) as store:
        key = store.put("of the parent")

        def work() -> None:
            for number in range(100):
                assert store.get(key, default=None) == "of the parent"
                assert store.get(store.put(number)) == number

        with store:
            children = [multiprocessing.get_context("fork").Process(target=work) for _ in range(3)]
            for child in children:
                child.start()
            work()
            for child in children:
                child.join()
            assert [child.exitcode for child in children] == [0, 0, 0]
            work()


def test_threads_hammer_one_store(redis: Any) -> None:
    with Store("redis-threads", RedisConnector("127.0.0.1", redis.port, clear=True)) as store:

        def work(thread: int) -> None:
            for number in range(200):
                key = store.put((thread, number))
                assert store.get(key) == (thread, number)
                store.evict(key)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    assert redis.keys() == 0


RESOLVE = """
import pickle, sys
proxy = pickle.loads(bytes.fromhex(sys.argv[1]))
assert proxy.upper() == "FOR WORKERS", proxy
"""


def test_a_reference_carries_no_password_and_resolves_with_one_in_the_environment(
    locked_redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = locked_redis.url.replace("://", "://default:hush-hush@")
    with open_store(url) as store:
        assert store.name == locked_redis.url
        assert open_store(url) is store
        data = pickle.dumps(store.proxy("for workers", populate_target=False))
        assert b"hush" not in data and "hush" not in f"{store!r} {store.config()!r}"
        command = [sys.executable, "-c", RESOLVE, data.hex()]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "PROXYSTORE_REDIS_PASSWORD" in refused.stderr
        monkeypatch.setenv("PROXYSTORE_REDIS_PASSWORD", "hush-hush")
        subprocess.run(command, check=True, timeout=60)


def test_a_shared_password_resolves_anywhere(locked_redis: Any) -> None:
    connector = RedisConnector.from_url(
        locked_redis.url, password="hush-hush", share_credentials=True
    )
    with Store("redis-shared", connector, register=True) as store:
        data = pickle.dumps(store.proxy("for workers", populate_target=False))
        assert b"hush" in data
        assert "hush" not in f"{store!r} {store.config()!r}"
        command = [sys.executable, "-c", RESOLVE, data.hex()]
        subprocess.run(command, check=True, timeout=60)


def test_a_configuration_file_opens_a_store(redis: Any, tmp_path: Any) -> None:
    with Store("redis-file", RedisConnector("127.0.0.1", redis.port)) as store:
        key = store.put([1, 2])
        store.config().write_toml(tmp_path / "store.toml")
        config = StoreConfig.from_toml(tmp_path / "store.toml")
        assert config == store.config()
        with Store.from_config(config) as again:
            assert again.get(key) == [1, 2]


_GONE = """
import os, signal, sys
from proxystore_rs.store import open_store
from proxystore_rs.store.lifetimes import ContextLifetime, LeaseLifetime
store = open_store(sys.argv[1])
owners = [store.owned_proxy([1]), store.owned_proxy([1], lease=0.03)]
future = store.future(lease=0.03)
context, lease = ContextLifetime(store), LeaseLifetime(store, 3600)
proxies = [store.proxy([1], lifetime=lifetime) for lifetime in (context, lease)]
os.kill(int(sys.argv[2]), signal.SIGKILL)
"""


def test_the_interpreter_ends_although_the_server_is_gone(redis: Any) -> None:
    command = [sys.executable, "-c", _GONE, redis.url, str(redis.process.pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_hammering_leaves_nothing_behind(redis: Any) -> None:
    with Store("redis-hammer", RedisConnector("127.0.0.1", redis.port), register=True) as store:
        in_threads(store, 3)
        for method in ("fork", "spawn"):
            in_processes(store, method, 1)
        assert settles(redis.keys, 0), redis.ask("KEYS *")
