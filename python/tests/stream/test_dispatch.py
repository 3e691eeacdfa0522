"""Items of a stream as tasks: nothing is lost, nothing is kept, no bytes come by the dispatcher."""

from __future__ import annotations

import functools
import io
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dispatch_tasks as tasks
import numpy as np
import pytest
from dispatch_pools import make_pool, wait_until
from numbered_stream import NumberedStream as Stream

from proxystore_rs.proxy import Proxy, extract, get_factory, is_resolved, no_resolve
from proxystore_rs.store import Store
from proxystore_rs.store.executor import ProxyAlways, StoreExecutor
from proxystore_rs.stream import StreamConsumer, StreamProducer
from proxystore_rs.stream.dispatch import Counts, Dispatcher

# Python warns of forking a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

PARTIAL = functools.partial


def test_every_item_is_a_task_and_its_object_is_freed(stream: Stream, pool: Executor) -> None:
    stream.send(*range(20))
    with stream.consumer() as consumer:
        dispatcher = Dispatcher(consumer, pool, tasks.first, max_in_flight=4)
        assert sorted(dispatcher) == list(range(20))
    assert dispatcher.counts == Counts(items=20, done=20)
    assert dispatcher.counts.in_flight == 0
    assert stream.objects() == 0


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_no_bytes_come_by_the_dispatcher(stream: Stream, kind: str) -> None:
    stream.send(*range(6))
    with make_pool(kind) as pool, stream.consumer() as consumer:
        pool.submit(len, "").result()  # forked workers inherit what follows
        with no_resolve():
            assert Dispatcher(consumer, pool, tasks.first).run().done == 6
    assert stream.gets() == 0


class Noting(ThreadPoolExecutor):
    """Keeps what it was given."""

    def __init__(self) -> None:
        super().__init__(1)
        self.given: list[Any] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.given += args
        return super().submit(function, *args, **kwargs)


def test_what_travels_is_hidden_and_frees_nothing(stream: Stream) -> None:
    stream.send(1)
    with Noting() as pool, stream.consumer() as consumer:
        dispatcher = Dispatcher(consumer, pool, tasks.fail, prefetch=False)
        with pytest.raises(ArithmeticError):
            dispatcher.run()
        carrier = pool.given[-1]
        assert not isinstance(carrier, Proxy) and len(carrier.data()) < 1000
        proxy = carrier.open()
        factory: Any = get_factory(proxy)
        assert not is_resolved(proxy) and not factory.evict
        assert proxy[0] == 1
    assert stream.objects() == 1  # its item was not acknowledged


def test_the_object_comes_before_it_is_used(stream: Stream, pool: Executor) -> None:
    stream.send(*range(3))
    with stream.consumer() as consumer:
        assert list(Dispatcher(consumer, pool, tasks.is_fetched)) == [True] * 3


def test_workers_keep_nothing(stream: Stream, threads: ThreadPoolExecutor) -> None:
    stream.send(*range(5))
    keys = []

    def first(array: Any) -> float:
        factory: Any = get_factory(array)
        keys.append(factory.key)
        return float(array[0])

    with stream.consumer() as consumer:
        Dispatcher(consumer, threads, first).run()
    assert len(keys) == 5
    assert not any(stream.store.is_cached(key) for key in keys)


def test_a_function_that_returns_its_argument_returns_the_value(
    stream: Stream, pool: Executor
) -> None:
    stream.send(7)
    with stream.consumer() as consumer:
        (result,) = Dispatcher(consumer, pool, tasks.same)
    assert type(result) is np.ndarray and result[0] == 7


def test_metadata_are_the_second_argument(stream: Stream, pool: Executor) -> None:
    stream.send(3, 4)
    with stream.consumer() as consumer:
        results = set(Dispatcher(consumer, pool, tasks.kind_and_frame, metadata=True))
    assert results == {("Proxy", 3), ("Proxy", 4)}


def test_objects_of_topics_without_a_store_are_the_argument(stream: Stream, pool: Executor) -> None:
    producer: StreamProducer[Any] = StreamProducer(stream.broker.publisher())
    for number in range(3):
        producer.send("plain", [number, "text"])
    producer.close(topics=["plain"])
    with stream.consumer("plain") as consumer:
        assert sorted(Dispatcher(consumer, pool, tasks.first)) == [0, 1, 2]


def test_a_store_executor_returns_results_by_proxy(
    stream: Stream, make_store: Callable[..., Store[Any]]
) -> None:
    stream.send(*range(4))
    results = make_store("file")
    with (
        StoreExecutor(make_pool("fork"), results, ProxyAlways(), close_store=False) as pool,
        stream.consumer() as consumer,
    ):
        found = list(Dispatcher(consumer, pool, tasks.first))
        assert all(isinstance(result, Proxy) for result in found)
        assert sorted(map(extract, found)) == [0, 1, 2, 3]
        stream.send(9)
        (same,) = Dispatcher(consumer, pool, tasks.same)
        assert stream.objects() == 0 and same[0] == 9
    assert stream.gets() == 0


def test_the_bound_holds_and_any_task_makes_room(
    stream: Stream, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    stream.send(*range(10))
    with stream.consumer() as consumer:
        # The first item waits; only others can make room for what comes after it.
        function = PARTIAL(tasks.wait_unless, 1, str(gate))
        dispatcher = Dispatcher(consumer, threads, function, max_in_flight=2)
        results = iter(dispatcher)
        assert next(results) == 1
        rest: list[float] = []
        receiver = threading.Thread(target=lambda: rest.extend(results))
        receiver.start()
        wait_until(Path(f"{gate}.2").exists)
        assert not Path(f"{gate}.3").exists()
        counts = dispatcher.counts
        assert (counts.items, counts.done, counts.in_flight) == (3, 1, 2)
        gate.touch()
        receiver.join()
    assert sorted(rest) == [0, *range(2, 10)]


def test_the_bound_is_never_exceeded(stream: Stream, threads: ThreadPoolExecutor) -> None:
    stream.send(*range(60))
    running: list[int] = []
    seen = []

    def first(array: Any) -> float:
        running.append(1)
        seen.append(len(running))
        number = float(array[0])
        time.sleep(0.001)
        running.pop()
        return number

    with stream.consumer() as consumer:
        dispatcher = Dispatcher(consumer, threads, first, max_in_flight=3)
        in_flight = [dispatcher.counts.in_flight for _ in dispatcher]
    assert max(seen) <= 3 and max(in_flight) <= 3


def test_stop_lets_tasks_end(stream: Stream, threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    stream.send(*range(5), end=False)
    with stream.consumer() as consumer:
        function = PARTIAL(tasks.wait_for, str(gate))
        dispatcher = Dispatcher(consumer, threads, function, max_in_flight=2)

        def stop() -> None:
            wait_until(lambda: dispatcher.counts.items == 2)
            dispatcher.stop()
            gate.touch()

        stopper = threading.Thread(target=stop)
        stopper.start()
        assert dispatcher.run() == Counts(items=2, done=2)
        stopper.join()
    assert stream.objects() > 0  # the others wait


def test_stop_ends_waiting_for_items(stream: Stream, threads: ThreadPoolExecutor) -> None:
    stream.send(1, end=False)
    with stream.consumer() as consumer:
        dispatcher = Dispatcher(consumer, threads, tasks.first)
        for _ in dispatcher:
            dispatcher.stop()
        assert dispatcher.counts.done == 1
        stopped = Dispatcher(consumer, threads, tasks.first)
        stopped.stop()
        assert stopped.run() == Counts()


def test_an_end_that_was_counted_does_not_come_again(
    stream: Stream, threads: ThreadPoolExecutor
) -> None:
    again = 0.2
    stream.send(1)
    subscriber = stream.broker.subscriber("frames", redeliver_after=again)
    with StreamConsumer[Any](subscriber, acknowledge="manual", ends=2) as consumer:

        def send_more() -> None:
            time.sleep(3 * again)
            stream.send(2)

        later = threading.Thread(target=send_more)
        later.start()
        assert sorted(Dispatcher(consumer, threads, tasks.first)) == [1, 2]
        later.join()


def test_an_item_that_comes_again_while_its_task_lasts_is_one(
    stream: Stream, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    begun: list[float] = []
    stream.send(0, 1, end=False)

    def wait(array: Any) -> float:
        begun.append(float(array[0]))
        return tasks.wait_for(str(gate), array)

    subscriber = stream.broker.subscriber("frames", redeliver_after=0.2)
    with StreamConsumer[Any](subscriber, acknowledge="manual") as consumer:
        dispatcher = Dispatcher(consumer, threads, wait, max_in_flight=4)

        def end() -> None:
            wait_until(lambda: consumer.metrics()["repeated"] >= 2)
            stream.send()
            gate.touch()

        ender = threading.Thread(target=end)
        ender.start()
        assert sorted(dispatcher) == [0, 1]
        ender.join()
    assert sorted(begun) == [0, 1]
    assert dispatcher.counts.done == 2
    assert stream.objects() == 0


def test_an_item_that_somebody_else_did_meanwhile_is_passed_over(
    stream: Stream, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    stream.send(1, end=False)
    slow = stream.broker.subscriber("frames", redeliver_after=0.2)
    with (
        StreamConsumer[Any](slow, acknowledge="manual") as other,
        stream.consumer() as consumer,
    ):
        item = other.next_item()
        dispatcher = Dispatcher(
            consumer, threads, PARTIAL(tasks.use_late, str(gate)), prefetch=False
        )

        def acknowledge() -> None:
            wait_until(lambda: dispatcher.counts.items == 1)
            item.lend()
            item.acknowledge()
            gate.touch()
            stream.send()

        acknowledging = threading.Thread(target=acknowledge)
        acknowledging.start()
        assert list(dispatcher) == []
        acknowledging.join()
    assert dispatcher.counts == Counts(items=1, skipped=1)


def test_leaving_the_loop_gives_the_rest_back(stream: Stream, threads: ThreadPoolExecutor) -> None:
    stream.send(*range(6))
    with stream.consumer() as consumer:
        dispatcher = Dispatcher(consumer, threads, tasks.first, max_in_flight=2)
        for number, _ in enumerate(dispatcher, 1):
            if number == 3:
                break
        wait_until(lambda: dispatcher.counts.in_flight == 0)
    assert dispatcher.counts.done == 2  # the third was not dealt with, as far as is known
    with stream.consumer() as consumer:
        assert len(list(Dispatcher(consumer, threads, tasks.first))) == 4
    assert stream.objects() == 0


def test_silence_is_an_error_after_the_timeout(stream: Stream, threads: ThreadPoolExecutor) -> None:
    stream.send(1, 2, end=False)
    with stream.consumer() as consumer:
        dispatcher = Dispatcher(consumer, threads, tasks.first, timeout=0.2)
        found = []
        with pytest.raises(TimeoutError, match=r"no item came within 0\.2 s"):
            found.extend(dispatcher)
        assert dispatcher.counts == Counts(items=2, done=2)


def test_it_runs_once_and_needs_manual_acknowledgement(
    stream: Stream, threads: ThreadPoolExecutor
) -> None:
    stream.send(1)
    with stream.consumer() as consumer:
        dispatcher = Dispatcher(consumer, threads, tasks.first)
        dispatcher.run()
        with pytest.raises(RuntimeError, match="runs once"):
            dispatcher.run()
        with pytest.raises(ValueError, match="max_in_flight"):
            Dispatcher(consumer, threads, tasks.first, max_in_flight=0)
        assert "done=1" in repr(dispatcher)
    with (
        stream.consumer(acknowledge="next") as consumer,
        pytest.raises(ValueError, match='acknowledge="manual"'),
    ):
        Dispatcher(consumer, threads, tasks.first)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("out", [Terminal(), io.StringIO()])
def test_progress_is_for_terminals(
    stream: Stream, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, out: Any
) -> None:
    monkeypatch.setattr(sys, "stderr", out)
    stream.send(*range(3))
    with stream.consumer() as consumer:
        Dispatcher(consumer, threads, tasks.fail_odd, on_error="skip", progress=True).run()
    if isinstance(out, Terminal):
        assert "2 done, 0 in flight" in out.getvalue() and "1 skipped" in out.getvalue()
        assert out.getvalue().endswith("\n")
    else:
        assert "done" not in out.getvalue()
