"""Chains of tasks that overlap: each waits for the future that its predecessor sets."""

from __future__ import annotations

from typing import Any

import executor_tasks as tasks
import numpy as np
import pytest
from executor_engines import objects, wait_until

from proxystore_rs.proxy import ProxyResolveError, extract
from proxystore_rs.store import Store
from proxystore_rs.store.executor import StoreExecutor
from proxystore_rs.store.future import Future

# Python warns of forking a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

LENGTH = 4


def chain(
    pool: StoreExecutor, store: Store[Any], function: Any, **options: Any
) -> tuple[Future[Any], list[Any], Any]:
    """Submit a chain; return the future of its input, its tasks, and the proxy of its output."""
    first: Future[Any] = store.future(polling_timeout=120, **options)
    proxy: Any = first.proxy()
    submitted = []
    for _ in range(LENGTH):
        future: Future[Any] = store.future(polling_timeout=120, **options)
        submitted.append(pool.submit(function, proxy, future))
        proxy = future.proxy()
    return first, submitted, proxy


def test_all_tasks_are_submitted_before_the_first_is_done(
    pool: StoreExecutor, file_store: Store[Any]
) -> None:
    first, submitted, output = chain(pool, file_store, tasks.take_over, evict=True)
    assert not any(task.done() for task in submitted)  # the first one has no input yet
    first.set_result(np.zeros(1000))
    np.testing.assert_array_equal(extract(output), np.full(1000, LENGTH))
    assert [task.result() for task in submitted] == [None] * LENGTH
    wait_until(lambda: objects(file_store) == 0)


def test_a_failure_goes_down_the_chain(pool: StoreExecutor, file_store: Store[Any]) -> None:
    first, submitted, output = chain(pool, file_store, tasks.fail_over)
    first.set_result("text")  # to which 1 cannot be added
    assert [task.result() for task in submitted] == [None] * LENGTH
    with pytest.raises(ProxyResolveError) as caught:
        extract(output)
    error: BaseException | None = caught.value
    while isinstance(error, ProxyResolveError):  # one for each task that waited
        error = error.cause
    assert isinstance(error, TypeError) and "can only concatenate str" in str(error)
