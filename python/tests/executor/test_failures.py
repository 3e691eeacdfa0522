"""Workers that die, tasks that are given up or tried again: nothing is freed early, nothing stays."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import executor_tasks as tasks
import numpy as np
import pytest
from executor_engines import Engine, objects, wait_until

from proxystore_rs.connectors.file import FileConnector
from proxystore_rs.proxy import extract
from proxystore_rs.store import Store
from proxystore_rs.store.executor import ProxySize, StoreExecutor

# Python warns of forking a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

ARRAY = np.arange(1000.0)


def test_a_killed_worker_leaves_nothing(engine: Engine, file_store: Store[Any]) -> None:
    if engine.shares_memory or engine.name == "dask-threads":
        pytest.skip("its workers are this process")
    pool = StoreExecutor(engine.make(), file_store, ProxySize(1000), close_store=False)
    with pool:
        others = [pool.submit(tasks.double, ARRAY) for _ in range(4)]
        with pytest.raises(Exception, match=r"(?i)abrupt|die|kill|lost|loss|crash|exit"):
            pool.submit(tasks.die, ARRAY).result()
        del others  # some have failed as well, some have results
    gc.collect()

    def is_empty() -> bool:
        # What a killed worker was just writing goes when the channel is opened again.
        FileConnector(file_store.connector.store_dir, clear=False).close()
        return objects(file_store) == 0

    wait_until(is_empty)


def test_a_task_that_is_tried_again_fills_the_same_key(
    engine: Engine, file_store: Store[Any], tmp_path: Path
) -> None:
    if not engine.is_dask:
        pytest.skip("tries no task again, as it is set up here")
    with StoreExecutor(engine.make(), file_store, ProxySize(1000), close_store=False) as pool:
        future = pool.submit(tasks.fail_once, str(tmp_path / "tried"), ARRAY, retries=2)
        result = future.result()
        np.testing.assert_array_equal(extract(result), ARRAY * 2)
        wait_until(lambda: objects(file_store) == 1)
        del result, future
        gc.collect()
        wait_until(lambda: objects(file_store) == 0)


def test_a_running_task_that_is_given_up_leaves_nothing(
    engine: Engine, file_store: Store[Any], tmp_path: Path
) -> None:
    """Pools refuse; Dask and Ray forget the task, which still runs and fills its key."""
    gate = tmp_path / "gate"
    with StoreExecutor(engine.make(), file_store, ProxySize(1000), close_store=False) as pool:
        future = pool.submit(tasks.wait_for, str(gate), ARRAY)
        wait_until(Path(f"{gate}.runs").exists)
        if engine.is_dask or engine.name == "ray":
            future.cancel()
            wait_until(future.cancelled)
            gate.touch()
        else:
            assert future.running() or engine.name == "parsl"
            assert not future.cancel()
            gate.touch()
            assert float(future.result()[1]) == 2
        # What comes after it in the same worker.
        assert pool.submit(tasks.length, ARRAY).result() == 1000
        del future
    gc.collect()
    wait_until(lambda: objects(file_store) == 0)


def test_unsent_tasks_free_their_inputs(file_store: Store[Any]) -> None:
    inner = ThreadPoolExecutor(1)
    pool = StoreExecutor(inner, file_store, ProxySize(1000), close_store=False)
    inner.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(tasks.double, ARRAY)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(tasks.double, [ARRAY] * 3, chunksize=2)
    assert objects(file_store) == 0
    pool.shutdown()


def test_shutdown_without_waiting_closes_the_store_after_the_last_task(
    make_store: Callable[..., Store[Any]], tmp_path: Path
) -> None:
    store = make_store("memory")
    closed = threading.Event()
    close = store.close

    def noted_close(**options: Any) -> None:
        closed.set()
        close(**options)

    store.close = noted_close  # type: ignore[method-assign]
    pool = StoreExecutor(ThreadPoolExecutor(1), store, ProxySize(1000), ownership=False)
    gate = tmp_path / "gate"
    future = pool.submit(tasks.wait_for, str(gate), ARRAY)
    waiting = pool.submit(tasks.double, ARRAY)
    wait_until(Path(f"{gate}.runs").exists)
    pool.shutdown(wait=False, cancel_futures=True)
    assert waiting.cancelled() and not closed.is_set()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(tasks.double, ARRAY)
    gate.touch()
    assert float(future.result()[1]) == 2
    assert closed.wait(60)
    pool.shutdown()


def test_a_dask_client_is_closed_and_its_cluster_stays(
    engine: Engine, make_store: Callable[..., Store[Any]]
) -> None:
    if not engine.is_dask:
        pytest.skip("is shut down, not closed")
    client = engine.make()
    with StoreExecutor(client, make_store("file"), ProxySize(1000)) as pool:
        futures = [pool.submit(tasks.length, ARRAY) for _ in range(3)]
    assert client.status == "closed"
    assert all(future.status == "cancelled" for future in futures)
    with engine.make() as other:
        assert other.submit(len, [1]).result() == 1


class Bare:
    """Has `submit` and no way to be shut down."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.submit = self.pool.submit


def test_an_executor_that_cannot_be_closed_is_warned_of(file_store: Store[Any]) -> None:
    bare = Bare()
    pool = StoreExecutor(bare, file_store, ProxySize(1000), close_store=False)
    assert float(pool.submit(tasks.double, ARRAY).result()[1]) == 2
    with pytest.warns(RuntimeWarning, match="Cannot shutdown Bare"):
        pool.shutdown()
    bare.pool.shutdown()


def test_a_store_that_fails_does_not_hide_results(
    make_store: Callable[..., Store[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store("local")

    def broken(_key: Any) -> None:
        raise OSError("the channel is gone")

    with StoreExecutor(ThreadPoolExecutor(1), store, ProxySize(1000), close_store=False) as pool:
        future = pool.submit(tasks.length, ARRAY)
        store.evict = broken  # type: ignore[method-assign]
        assert future.result() == 1000
        assert pool.submit(tasks.length, ARRAY).result() == 1000
        del store.evict  # type: ignore[method-assign]
    assert "could not evict" in caplog.text


def test_map_gives_up_at_its_timeout(file_store: Store[Any], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with StoreExecutor(ThreadPoolExecutor(1), file_store, ProxySize(1000)) as pool:
        results = pool.map(tasks.wait_for, [str(gate)] * 3, [ARRAY] * 3, timeout=0.1)
        with pytest.raises(TimeoutError):
            next(results)
        gate.touch()
    with (
        StoreExecutor(ThreadPoolExecutor(1), file_store, close_store=False) as pool,
        pytest.raises(ValueError, match="chunksize"),
    ):
        pool.map(tasks.double, [ARRAY], chunksize=0)
