"""What every engine does with tasks whose arguments and results travel by proxy."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import executor_tasks as tasks
import numpy as np
import pytest
from executor_engines import Engine, objects, wait_until

from proxystore_rs.proxy import Proxy, extract, is_resolved
from proxystore_rs.store import Store
from proxystore_rs.store.executor import ProxyAlways, ProxySize, ProxyType, StoreExecutor
from proxystore_rs.store.ref import OwnedProxy, borrow, mut_borrow
from proxystore_rs.store.scopes import submit

# Python warns of forking a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

ARRAY = np.arange(1000.0)
TARGETS: list[Any] = [
    list(range(500)),
    tuple(range(500)),
    {str(number): number for number in range(500)},
    set(range(500)),
    b"bytes" * 500,
    "text" * 500,
    np.arange(500),
]


def test_arguments_and_results_travel_by_proxy(
    pool: StoreExecutor, file_store: Store[Any], engine: Engine
) -> None:
    future = pool.submit(tasks.double, ARRAY)
    result = future.result()
    assert type(result) is OwnedProxy
    # A populated proxy is what a thread gets, as the pool alone would give it the object.
    assert is_resolved(result) == engine.shares_memory
    # The argument is gone, the result is there. A client of Dask hears later that a task is over.
    wait_until(lambda: objects(file_store) == 1)
    np.testing.assert_array_equal(extract(result), ARRAY * 2)
    del result, future
    gc.collect()
    wait_until(lambda: objects(file_store) == 0)


def test_what_the_rule_does_not_want_travels_as_it_is(pool: StoreExecutor) -> None:
    seen = pool.submit(tasks.look, ARRAY, 1, None, True, "short", big="x" * 5000).result()
    assert [kind for kind, _ in seen] == ["Proxy", "int", "NoneType", "bool", "str", "Proxy"]
    assert pool.submit(tasks.nothing, ARRAY).result() is None
    assert pool.submit(tasks.truth, ARRAY).result() is True
    assert pool.submit(tasks.length, ARRAY).result() == 1000


def test_everything_but_none_and_truth_values_can_be_proxied(
    engine: Engine, file_store: Store[Any]
) -> None:
    with StoreExecutor(engine.make(), file_store, ProxyAlways()) as pool:
        assert type(pool.submit(tasks.add, 1, 2).result()) is OwnedProxy
        seen = extract(pool.submit(tasks.look, 1, None, False, "x", [1]).result())
        assert [kind for kind, _ in seen] == ["Proxy", "NoneType", "bool", "Proxy", "Proxy"]
        assert pool.submit(tasks.nothing).result() is None
        assert pool.submit(tasks.truth, "text").result() is True


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: type(target).__name__)
def test_proxies_are_passed_on_unresolved(
    pool: StoreExecutor, file_store: Store[Any], target: Any
) -> None:
    proxy = file_store.proxy(target, populate_target=False)
    assert pool.submit(tasks.look, proxy, again=proxy).result() == [("Proxy", False)] * 2
    assert not is_resolved(proxy)
    returned = pool.submit(tasks.same, proxy).result()
    assert type(returned) is Proxy and not is_resolved(proxy)
    if isinstance(target, np.ndarray):
        np.testing.assert_array_equal(extract(returned), target)
    else:
        assert extract(returned) == target
    assert objects(file_store) == 1  # the proxy stays its maker's


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: type(target).__name__)
def test_populated_proxies_are_passed_on_too(
    pool: StoreExecutor, file_store: Store[Any], target: Any, engine: Engine
) -> None:
    proxy = file_store.proxy(target)
    assert pool.submit(tasks.look, proxy).result() == [("Proxy", engine.shares_memory)]
    assert pool.submit(tasks.length, proxy).result() == 500 * (
        1 if not isinstance(target, (str, bytes)) else len(target) // 500
    )


def test_proxies_of_any_factory_are_passed_on(pool: StoreExecutor) -> None:
    proxy = Proxy(tasks.ten)
    assert pool.submit(tasks.look, proxy).result() == [("Proxy", False)]
    assert pool.submit(tasks.add, proxy, 1).result() == 11
    assert not is_resolved(proxy) or isinstance(pool.executor, ThreadPoolExecutor)


def test_errors_keep_their_type(pool: StoreExecutor, file_store: Store[Any]) -> None:
    future = pool.submit(tasks.fail, ARRAY)
    with pytest.raises(ZeroDivisionError, match="as it should"):
        future.result()
    assert isinstance(future.exception(), ZeroDivisionError)
    wait_until(lambda: objects(file_store) == 0)


def test_errors_that_cannot_travel_do_not_break_the_engine(pool: StoreExecutor) -> None:
    with pytest.raises(Exception, match=r"1 2"):
        pool.submit(tasks.fail_strangely, ARRAY).result()
    with pytest.raises(Exception, match=r"holds a lock|lock.* object"):
        pool.submit(tasks.fail_with_lock, ARRAY).result()
    assert pool.submit(tasks.length, ARRAY).result() == 1000


def test_functions_return_values_of_what_they_were_given(
    pool: StoreExecutor, file_store: Store[Any]
) -> None:
    array = ARRAY.copy()
    changed = pool.submit(tasks.increment, array).result()
    np.testing.assert_array_equal(extract(changed), ARRAY + 1)
    other = ARRAY + 5
    pair = pool.submit(tasks.both, array, other).result()["pair"]
    assert [type(item) for item in pair] == [np.ndarray] * 2
    np.testing.assert_array_equal(pair[1], other)
    returned = pool.submit(tasks.same, other).result()
    np.testing.assert_array_equal(extract(returned), other)
    del changed, pair, returned
    gc.collect()
    wait_until(lambda: objects(file_store) == 0)


def test_functions_may_return_proxies_of_their_own(
    pool: StoreExecutor, file_store: Store[Any]
) -> None:
    given = file_store.proxy(ARRAY, populate_target=False)
    plain = pool.submit(tasks.own_proxy, given).result()
    assert type(plain) is Proxy
    np.testing.assert_array_equal(extract(plain), ARRAY + 1)
    owner = pool.submit(tasks.own_owner, given).result()
    assert type(owner) is OwnedProxy
    np.testing.assert_array_equal(extract(owner), ARRAY + 1)
    assert objects(file_store) == 3
    del owner
    gc.collect()
    wait_until(lambda: objects(file_store) == 2)
    assert plain[0] == 1 and given[0] == 0


def test_results_without_an_owner_stay(engine: Engine, file_store: Store[Any]) -> None:
    pool = StoreExecutor(
        engine.make(), file_store, ProxySize(1000), ownership=False, close_store=False
    )
    with pool:
        result = pool.submit(tasks.double, ARRAY).result()
        assert type(result) is Proxy
    assert objects(file_store) == 1
    np.testing.assert_array_equal(extract(result), ARRAY * 2)


def test_borrows_end_with_the_task(pool: StoreExecutor, file_store: Store[Any]) -> None:
    owner = file_store.owned_proxy(ARRAY)
    future = submit(pool.submit, args=(tasks.length, borrow(owner)))
    assert future.result() == 1000
    ended = threading.Event()
    future.add_done_callback(lambda _: ended.set())
    assert ended.wait(60)
    wait_until(lambda: not owner._ref.shared)
    assert mut_borrow(owner)[3] == 3


def test_an_owner_as_argument_moves_to_the_task(
    pool: StoreExecutor, file_store: Store[Any], engine: Engine
) -> None:
    owner = file_store.owned_proxy(ARRAY)
    assert pool.submit(tasks.length, owner).result() == 1000
    del owner
    gc.collect()
    wait_until(lambda: objects(file_store) == 0)


def test_map_proxies_items_and_frees_them_as_it_goes(
    pool: StoreExecutor, file_store: Store[Any]
) -> None:
    arrays = [ARRAY + number for number in range(6)]
    assert next(iter(pool.map(tasks.look, arrays, "abcdef")))[0][0] == "Proxy"
    results = pool.map(tasks.double, arrays)
    for number, result in enumerate(results):
        assert type(result) is OwnedProxy
        np.testing.assert_array_equal(extract(result), arrays[number] * 2)
        del result
    wait_until(lambda: objects(file_store) == 0)
    assert list(pool.map(tasks.length, arrays, chunksize=4)) == [1000] * 6
    for chunksize in (1, 2):
        seen = pool.map(tasks.look, arrays[:3], chunksize=chunksize, again=ARRAY)
        assert [[kind for kind, _ in one] for one in seen] == [["Proxy", "Proxy"]] * 3
    chunked = list(pool.map(tasks.double, arrays, chunksize=4))
    assert [float(result[0]) for result in chunked] == [0, 2, 4, 6, 8, 10]
    del chunked
    gc.collect()
    wait_until(lambda: objects(file_store) == 0)


def test_map_that_fails_frees_what_it_stored(pool: StoreExecutor, file_store: Store[Any]) -> None:
    for chunksize in (1, 2):
        results = pool.map(tasks.fail, [ARRAY] * 5, chunksize=chunksize)
        with pytest.raises(ZeroDivisionError):
            next(results)
    gc.collect()
    wait_until(lambda: objects(file_store) == 0)


def test_futures_that_are_dropped_leave_nothing(
    pool: StoreExecutor, file_store: Store[Any]
) -> None:
    for _ in range(5):
        pool.submit(tasks.double, ARRAY)
    pool._ledger.wait()
    gc.collect()
    wait_until(lambda: objects(file_store) == 0)


def test_a_future_is_a_dependency(
    pool: StoreExecutor, file_store: Store[Any], engine: Engine
) -> None:
    if not engine.has_dependencies:
        pytest.skip("pools do not wait for arguments")
    last = pool.submit(
        tasks.add, pool.submit(tasks.double, ARRAY), pool.submit(tasks.numbers, 5000)
    )
    with pytest.raises(ValueError, match="broadcast"):
        last.result()
    # The intermediate future is dropped at once, and its object lives as long as it is needed.
    last = pool.submit(tasks.double, pool.submit(tasks.double, pool.submit(tasks.double, ARRAY)))
    np.testing.assert_array_equal(extract(last.result()), ARRAY * 8)
    if engine.is_dask:
        total = pool.submit(tasks.first_sum, [pool.submit(tasks.double, ARRAY)])
        assert total.result() == ARRAY.sum() * 2
    del last
    gc.collect()
    wait_until(lambda: objects(file_store) == 0)


def test_containers_are_looked_into_on_request(engine: Engine, file_store: Store[Any]) -> None:
    rule = ProxyType(np.ndarray)
    with StoreExecutor(engine.make(), file_store, rule, nested=True) as pool:
        for container in ([ARRAY, 1], (ARRAY, 1), {"a": ARRAY, "b": 1}):
            assert pool.submit(tasks.kinds_inside, container).result() == ["Proxy", "int"]
        assert pool.submit(tasks.first_sum, [ARRAY, ARRAY]).result() == ARRAY.sum()
        wait_until(lambda: objects(file_store) == 0)


def test_what_is_given_twice_is_stored_once(
    engine: Engine, make_store: Callable[..., Store[Any]]
) -> None:
    store = make_store("file", metrics=True)
    with StoreExecutor(engine.make(), store, ProxySize(1000)) as pool:
        pool.submit(tasks.look, ARRAY, ARRAY, again=ARRAY).result()
        assert store.metrics is not None
        assert store.metrics.aggregate_times()["store.put"].count == 1


def test_a_worker_opens_the_store_once(pool: StoreExecutor) -> None:
    seen = {pool.submit(tasks.store_of_worker, ARRAY).result() for _ in range(8)}
    processes = {process for process, _ in seen}
    assert len(seen) == len(processes) <= 2


def test_a_worker_keeps_no_arguments(pool: StoreExecutor) -> None:
    """Else it would hold the memory of as many evicted arrays as its cache has room for."""
    key = pool.submit(tasks.use_and_tell_key, ARRAY).result()
    cached = [pool.submit(tasks.is_cached, ARRAY, key).result() for _ in range(4)]
    assert not any(cached)


def test_eight_threads_use_one_executor(pool: StoreExecutor, file_store: Store[Any]) -> None:
    def work(number: int) -> float:
        total = 0.0
        for turn in range(5):
            array = ARRAY + number + turn
            if turn == 3:
                with pytest.raises(ZeroDivisionError):
                    pool.submit(tasks.fail, array).result()
            total += float(pool.submit(tasks.double, array).result()[0])
        return total

    with ThreadPoolExecutor(8) as threads:
        sums = list(threads.map(work, range(8)))
    assert sums == [10.0 * number + 20 for number in range(8)]
    gc.collect()
    wait_until(lambda: objects(file_store) == 0)


def test_tasks_that_wait_can_be_cancelled(
    pool: StoreExecutor, file_store: Store[Any], engine: Engine, tmp_path: Path
) -> None:
    if engine.name == "parsl":
        future = pool.submit(tasks.double, ARRAY)
        assert not future.cancel()  # Parsl cannot
        assert float(future.result()[1]) == 2
        return
    gates = [tmp_path / str(number) for number in range(2)]
    running = [pool.submit(tasks.wait_for, str(gate), ARRAY) for gate in gates]
    try:
        for gate in gates:
            wait_until(Path(f"{gate}.runs").exists)
        waiting = [pool.submit(tasks.double, ARRAY) for _ in range(6)]
        last = waiting[-1]
        last.cancel()
        wait_until(last.cancelled)
        if isinstance(last, Future):
            assert last.done() and not last.running()
    finally:
        for gate in gates:
            gate.touch()
    assert [float(future.result()[1]) for future in running + waiting[:-1]] == [2] * 7
    del running, waiting, last
    gc.collect()
    wait_until(lambda: objects(file_store) == 0)
