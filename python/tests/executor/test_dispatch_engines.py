"""Items of a stream as tasks of every engine."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import executor_tasks as tasks
import pytest
from executor_engines import POOLS, Engine, wait_until
from numbered_stream import NumberedStream

from proxystore_rs.proxy import Proxy
from proxystore_rs.store import Store
from proxystore_rs.store.executor import ProxyAlways, StoreExecutor
from proxystore_rs.stream.dispatch import Counts, Dispatcher

# Python warns of forking a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@pytest.fixture
def stream(make_store: Callable[..., Store[Any]]) -> NumberedStream:
    return NumberedStream(make_store("file", metrics=True))


def test_every_item_is_a_task_and_no_bytes_come_by(engine: Engine, stream: NumberedStream) -> None:
    stream.send(*range(8))
    with engine.make() as executor, stream.consumer() as consumer:
        dispatcher = Dispatcher(consumer, executor, tasks.first_of, max_in_flight=3)
        assert sorted(dispatcher) == list(range(8))
    assert dispatcher.counts == Counts(items=8, done=8)
    assert stream.objects() == 0
    if not engine.shares_memory and engine.name != "dask-threads":
        assert stream.gets() == 0


def test_no_engine_looks_through_the_proxy(engine: Engine, stream: NumberedStream) -> None:
    stream.send(1, 2)
    with engine.make() as executor, stream.consumer() as consumer:
        seen = list(Dispatcher(consumer, executor, tasks.look, prefetch=False))
    assert seen == [[("Proxy", False)]] * 2


def test_results_may_come_by_proxy(
    engine: Engine, stream: NumberedStream, file_store: Store[Any]
) -> None:
    stream.send(3, 4)
    with (
        StoreExecutor(engine.make(), file_store, ProxyAlways(), close_store=False) as executor,
        stream.consumer() as consumer,
    ):
        results = list(Dispatcher(consumer, executor, tasks.double))
        assert all(isinstance(result, Proxy) for result in results)
        assert sorted(float(result[0]) for result in results) == [6, 8]
    assert stream.objects() == 0


def test_failing_tasks_are_tried_again(
    engine: Engine, stream: NumberedStream, tmp_path: Path
) -> None:
    stream.send(1)
    with engine.make() as executor, stream.consumer() as consumer:
        function = functools.partial(tasks.fail_once, str(tmp_path / "tried"))
        dispatcher = Dispatcher(consumer, executor, function, retries=1)
        (result,) = dispatcher
        assert float(result[0]) == 2
    assert dispatcher.counts == Counts(items=1, done=1, retries=1)
    stream.send(1)
    with (
        engine.make() as executor,
        stream.consumer() as consumer,
        pytest.raises(ZeroDivisionError, match="as it should"),
    ):
        Dispatcher(consumer, executor, tasks.fail).run()
    assert stream.objects() == 1


def test_an_error_spares_what_runs(engine: Engine, stream: NumberedStream, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    stream.send(*range(4))
    found: list[float] = []
    with engine.make() as executor, stream.consumer() as consumer:
        function = functools.partial(tasks.fail_beside, str(gate))
        dispatcher = Dispatcher(consumer, executor, function, max_in_flight=4)

        def open_gate() -> None:
            wait_until(lambda: dispatcher.counts.given_up > 0)
            time.sleep(0.2)  # to be cancelled, if that is to be
            gate.touch()

        opener = threading.Thread(target=open_gate)
        opener.start()
        with pytest.raises(ZeroDivisionError, match="as it should"):
            found.extend(dispatcher)
        opener.join()
    assert 0 in found and len(found) == dispatcher.counts.done
    if engine.name not in (*POOLS, "globus"):
        assert sorted(found) == [0, 2, 3]


def test_items_of_a_killed_worker_come_again(
    engine: Engine, stream: NumberedStream, tmp_path: Path
) -> None:
    if engine.shares_memory or engine.name == "dask-threads":
        pytest.skip("its workers are this process")
    stream.send(*range(5))
    function = functools.partial(tasks.die_once, str(tmp_path / "mark"))
    found: list[float] = []
    with engine.make() as executor, stream.consumer() as consumer:
        dispatcher = Dispatcher(consumer, executor, function, max_in_flight=2)
        with pytest.raises(Exception, match=r"(?i)abrupt|die|kill|lost|loss|crash|exit") as raised:
            found.extend(dispatcher)
        is_pool = engine.name in ("fork", "spawn", "forkserver", "globus")
        assert isinstance(raised.value, BrokenExecutor) == is_pool
    with engine.make() as executor, stream.consumer() as consumer:
        again = list(Dispatcher(consumer, executor, function))
    assert sorted({*found, *again}) == list(range(5)) and 2 not in found
    assert stream.objects() == 0
