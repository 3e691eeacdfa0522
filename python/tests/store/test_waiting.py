"""Waiting for futures: what it costs when nobody needs the result any more, and through which store."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest

from proxystore_rs.connectors.memory import MemoryConnector
from proxystore_rs.exceptions import (
    FutureAbandonedError,
    FutureCancelledError,
    FutureTimeoutError,
    StoreClosedError,
    StoreConfigError,
)
from proxystore_rs.proxy import resolve
from proxystore_rs.store import Store, get_store
from proxystore_rs.store.future import Future
from proxystore_rs.store.ref import into_owned
from proxystore_rs.store.utils import resolve_async

PATIENCE = 60.0


def threads_and_descriptors() -> tuple[int, int]:
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_a_timeout_counts_although_a_fetch_is_in_progress(store: Store[Any]) -> None:
    future: Future[int] = store.future()
    proxy = future.proxy()
    resolve_async(proxy)
    for _ in range(2):
        with pytest.raises(FutureTimeoutError):
            future.result(timeout=0.01)
    future.set_result(7)
    assert (future.result(timeout=PATIENCE), proxy) == (7, 7)


def test_a_fetch_in_the_background_times_out_as_any_other(store: Store[Any]) -> None:
    future: Future[int] = store.future(polling_timeout=0.05)
    resolve_async(future.proxy())
    with pytest.raises(FutureTimeoutError):
        future.result()


def test_nobody_waits_for_proxies_that_are_gone(store: Store[Any]) -> None:
    store.future().done()  # what the channel opens once, it may keep
    before = threads_and_descriptors()
    proxies = [store.future().proxy() for _ in range(10)]
    for proxy in proxies:
        resolve_async(proxy)
    del proxy, proxies
    gc.collect()
    assert eventually(lambda: threads_and_descriptors()[0] <= before[0])
    # A channel may keep one descriptor by which it learns of new objects.
    assert eventually(lambda: threads_and_descriptors()[1] <= before[1] + 1)


@pytest.mark.parametrize("kind", ["memory", "file", "shm"])
def test_closing_the_store_ends_all_waits(make_store: Callable[..., Store[Any]], kind: str) -> None:
    store = make_store(kind)
    future: Future[int] = store.future()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(future.result)
        time.sleep(0.05)
        store.close()
        wait([waiting], timeout=0.3)
        if not waiting.done():  # it began after the store was closed, and opened it again
            future.cancel()
        error = waiting.exception(PATIENCE)
    assert isinstance(error, (StoreClosedError, FutureCancelledError))
    if (again := get_store(store.name)) is not None:
        again.close()


def test_asking_for_the_exception_consumes_nothing(store: Store[Any]) -> None:
    future: Future[str] = store.future(evict=True)
    timer = threading.Timer(0.05, future.set_result, ["for the consumer"])
    timer.start()
    assert future.exception(timeout=PATIENCE) is None
    timer.join()
    assert future.done()
    assert future.proxy() == "for the consumer"
    assert not future.done()


def test_an_exception_of_any_kind_is_returned(store: Store[Any]) -> None:
    for given in (KeyboardInterrupt("stop"), TimeoutError("of the task"), ValueError):
        future: Future[int] = store.future()
        timer = threading.Timer(0.05, future.set_exception, [given])
        timer.start()
        found = future.exception(timeout=PATIENCE)
        timer.join()
        assert type(found) is (given if isinstance(given, type) else type(given))
    with pytest.raises(TypeError, match="set_result"):
        store.future().set_exception("text")  # type: ignore[arg-type]


def test_results_that_are_false(store: Store[Any]) -> None:
    for result in (None, False, True, 0, "", []):
        future: Future[Any] = store.future(evict=True)
        proxy = future.proxy()
        future.set_result(result)
        assert resolve(proxy) is None
        assert proxy == result and bool(proxy) is bool(result)


def test_an_owner_of_a_result_waits_for_it(store: Store[Any]) -> None:
    future: Future[list[int]] = store.future()
    owner = into_owned(future.proxy())
    timer = threading.Timer(0.05, future.set_result, [[1, 2]])
    timer.start()
    assert owner == [1, 2]
    timer.join()
    del owner
    assert not future.done()


class Labelled(Store[Any]):
    """A store with a way of its own to get objects."""

    def get(self, key: Any, **options: Any) -> Any:
        return ("labelled", super().get(key, **options))


def test_a_future_uses_the_store_that_made_it() -> None:
    store = Labelled("waiting-labelled", MemoryConnector("waiting-labelled"))
    future: Future[int] = store.future()
    future.set_result(1)
    assert future.result() == ("labelled", 1)
    assert future.proxy() == ("labelled", 1)
    assert get_store(store.name) is None  # no other store was opened and registered
    store.close(clear=True)


def test_objects_that_are_fetched_in_the_background_come_by_the_same_way() -> None:
    with Labelled("waiting-async", MemoryConnector("waiting-async"), register=True) as store:
        proxy = store.proxy(1, populate_target=False)
        resolve_async(proxy)
        assert proxy == ("labelled", 1)


def test_lengths_of_time_that_are_none(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory")
    with pytest.raises(StoreConfigError, match="longer"):
        store.future(lease=0)
    for seconds in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="None where there shall be no end"):
            store.future(polling_timeout=seconds)
        with pytest.raises(ValueError, match="number from 0"):
            store.future(lease=seconds)
    with pytest.raises(ValueError, match="number from 0"):
        store.future().result(timeout=float("nan"))
    held: Future[int] = store.future(lease=1e18)
    with pytest.raises(FutureTimeoutError):
        held.result(timeout=0.01)


def test_a_lease_that_is_dropped_is_noticed_by_all_who_wait(store: Store[Any]) -> None:
    if not hasattr(store.connector, "new_key") or "Local" in type(store.connector).__name__:
        return
    future: Future[int] = store.future(lease=0.2)
    proxy = future.proxy()
    del future
    with pytest.raises(Exception, match="producer is gone") as caught:
        resolve(proxy)
    assert isinstance(caught.value.__cause__, FutureAbandonedError)
