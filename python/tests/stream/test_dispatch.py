"""Items of a stream as tasks: nothing is lost, nothing is kept, no bytes come by the dispatcher."""

from __future__ import annotations

import functools
import io
import logging
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import (
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import dispatch_tasks as tasks
import numpy as np
import pytest
from numbered_stream import NumberedStream as Stream
from redis_server import RedisServer, need_redis

from proxystore_rs.proxy import Proxy, extract, get_factory, is_resolved, no_resolve
from proxystore_rs.store import Store
from proxystore_rs.store.executor import ProxyAlways, StoreExecutor
from proxystore_rs.stream import StreamConsumer, StreamProducer
from proxystore_rs.stream.brokers import open_broker
from proxystore_rs.stream.dispatch import Counts, DeadLetters, Dispatcher

# Python warns of forking a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

PARTIAL = functools.partial


@pytest.fixture
def stream(make_store: Callable[..., Store[Any]]) -> Stream:
    return Stream(make_store("file", metrics=True))


def make_pool(kind: str, workers: int = 2) -> Executor:
    if kind == "thread":
        return ThreadPoolExecutor(workers)
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(kind))


@pytest.fixture(scope="module", params=["thread", "fork", "spawn"])
def pool(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with make_pool(request.param) as executor:
        yield executor


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


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


def test_an_error_is_raised_when_what_runs_is_over_and_the_item_comes_again(
    stream: Stream, pool: Executor
) -> None:
    stream.send(0, 2, 4, 5, 6, 8)
    with stream.consumer() as consumer:
        dispatcher = Dispatcher(consumer, pool, tasks.fail_odd, max_in_flight=2)
        found = []
        with pytest.raises(ArithmeticError, match="5 is odd"):
            for result in dispatcher:
                found.append(result)
    counts = dispatcher.counts
    assert counts.done == len(found) >= 2 and 5 not in found
    assert counts.items == counts.done + counts.given_up and counts.skipped == 0
    with stream.consumer() as consumer:
        again = list(Dispatcher(consumer, pool, tasks.first))
    assert sorted(found + again) == [0, 2, 4, 5, 6, 8]
    assert stream.objects() == 0


def test_failing_items_may_be_skipped(
    stream: Stream, pool: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    stream.send(*range(6))
    with stream.consumer() as consumer, caplog.at_level(logging.WARNING):
        dispatcher = Dispatcher(consumer, pool, tasks.fail_odd, on_error="skip")
        assert sorted(dispatcher) == [0, 2, 4]
    assert dispatcher.counts == Counts(items=6, done=3, skipped=3)
    assert stream.objects() == 0
    assert caplog.text.count("is odd") >= 3


def test_failing_items_may_be_dealt_with(stream: Stream, threads: ThreadPoolExecutor) -> None:
    stream.send(*range(4))
    failed: list[tuple[int, str]] = []
    results: list[tuple[int, float]] = []
    with stream.consumer() as consumer:
        counts = Dispatcher(
            consumer,
            threads,
            tasks.fail_odd,
            on_error=lambda item, error: failed.append((item.metadata["frame"], str(error))),
            on_result=lambda item, result: results.append((item.metadata["frame"], result)),
        ).run()
    assert sorted(failed) == [(1, "1 is odd"), (3, "3 is odd")]
    assert sorted(results) == [(0, 0.0), (2, 2.0)]
    assert counts == Counts(items=4, done=2, skipped=2)


def test_failing_items_may_be_sent_to_another_topic(stream: Stream, pool: Executor) -> None:
    stream.send(*range(4))
    producer = stream.producer()
    letters = DeadLetters(producer, "failed")
    with stream.consumer() as consumer:
        counts = Dispatcher(consumer, pool, tasks.fail_odd, on_error=letters).run()
    assert counts.skipped == 2
    producer.close(topics=["failed"])
    if not isinstance(pool, ThreadPoolExecutor):
        assert stream.gets() == 0  # it is their proxies that were sent
    found = {}
    with stream.consumer("failed") as consumer:
        for item in consumer.iter_items():
            assert item.metadata["topic"] == "frames" and "is odd" in item.metadata["error"]
            assert item.metadata["attempts"] == 1
            found[item.metadata["frame"]] = float(item.value[0])
            item.acknowledge()
            del item
    assert found == {1: 1.0, 3: 3.0}
    assert stream.objects() == 0


def test_failing_tasks_are_tried_again_with_the_object_as_it_was(
    stream: Stream, pool: Executor, tmp_path: Path
) -> None:
    stream.send(*range(3))
    with stream.consumer() as consumer:
        function = PARTIAL(tasks.fail_twice, str(tmp_path))
        dispatcher = Dispatcher(consumer, pool, function, retries=2, max_in_flight=2)
        assert sorted(dispatcher) == [0, 1, 2]
    assert dispatcher.counts == Counts(items=3, done=3, retries=6)
    stream.send(7)
    with stream.consumer() as consumer:
        dispatcher = Dispatcher(consumer, pool, function, retries=1)
        with pytest.raises(ArithmeticError, match="not yet"):
            dispatcher.run()
    assert dispatcher.counts == Counts(items=1, given_up=1, retries=1)


def test_where_events_come_once_workers_free_and_nothing_is_tried_again(
    make_store: Callable[..., Store[Any]], pool: Executor
) -> None:
    stream = Stream(make_store("file", metrics=True), "shm")
    with stream.consumer() as consumer:
        stream.send(*range(4))
        dispatcher = Dispatcher(consumer, pool, tasks.fail_odd, retries=3, on_error="skip")
        assert sorted(dispatcher) == [0, 2]
    assert dispatcher.counts == Counts(items=4, done=2, skipped=2)
    assert stream.objects() == 0


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_items_of_a_killed_worker_come_again(
    stream: Stream, kind: str, on_error: Any, tmp_path: Path
) -> None:
    stream.send(*range(8))
    function = PARTIAL(tasks.die_once, str(tmp_path / "mark"))
    found: list[float] = []
    with make_pool(kind) as pool, stream.consumer() as consumer:
        dispatcher = Dispatcher(
            consumer, pool, function, max_in_flight=3, on_error=on_error, retries=5
        )
        with pytest.raises(BrokenProcessPool):
            found.extend(dispatcher)
        assert 3 not in found and dispatcher.counts.skipped == 0
    with make_pool(kind) as pool, stream.consumer() as consumer:
        attempts = {}
        again = Dispatcher(
            consumer,
            pool,
            function,
            on_result=lambda item, number: attempts.setdefault(number, item.attempts),
        )
        again.run()
    # What was done before the pool was known to be broken comes again too.
    assert sorted({*found, *attempts}) == list(range(8))
    assert attempts[3] == 2
    assert stream.objects() == 0


def test_items_of_a_killed_dispatcher_come_again(
    stream_server: RedisServer, topic: str, stream: Stream, tmp_path: Path
) -> None:
    url = f"stream+redis://127.0.0.1:{stream_server.port}/0"
    broker = open_broker(url)
    with StreamProducer[Any](broker.publisher(), default_store=stream.store) as producer:
        for number in range(8):
            producer.send(topic, np.full(10_000, float(number)))
        producer.close_topics(topic)
    folder = tmp_path / "done"
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    dispatching = context.Process(
        target=tasks.dispatch_until_killed, args=(url, topic, str(folder))
    )
    dispatching.start()
    wait_until(lambda: len(list(folder.iterdir())) == 7)
    dispatching.kill()
    dispatching.join()
    dispatching.close()
    attempts: dict[float, int] = {}
    subscriber = broker.subscriber(topic, redeliver_after=0.2)
    with (
        StreamConsumer[Any](subscriber, acknowledge="manual", timeout=60) as consumer,
        make_pool("thread") as pool,
    ):
        Dispatcher(
            consumer,
            pool,
            tasks.first,
            on_result=lambda item, number: attempts.setdefault(number, item.attempts),
        ).run()
    assert attempts.pop(3) == 2
    assert len(attempts) <= 1  # the one whose result was noted, and that was not yet acknowledged
    assert stream.objects() == 0


def test_an_executor_that_is_shut_down_gives_the_item_back(stream: Stream) -> None:
    pool = make_pool("thread")
    pool.shutdown()
    stream.send(1)
    with stream.consumer() as consumer:
        dispatcher = Dispatcher(consumer, pool, tasks.first)
        with pytest.raises(RuntimeError, match="after shutdown"):
            dispatcher.run()
        assert dispatcher.counts == Counts(items=1, given_up=1)
    with make_pool("thread") as pool, stream.consumer() as consumer:
        assert list(Dispatcher(consumer, pool, tasks.first)) == [1]


def test_a_result_that_cannot_be_sent_is_an_error_of_its_task(stream: Stream) -> None:
    stream.send(1, 2)
    with make_pool("fork") as pool, stream.consumer() as consumer:
        counts = Dispatcher(consumer, pool, tasks.make_unpicklable, on_error="skip").run()
    assert counts == Counts(items=2, skipped=2)


def test_cancelled_tasks_are_nobodys_fault(stream: Stream, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    stream.send(*range(3))
    pool = ThreadPoolExecutor(1)
    with stream.consumer() as consumer:
        function = PARTIAL(tasks.wait_for, str(gate))
        dispatcher = Dispatcher(consumer, pool, function, on_error="skip", max_in_flight=3)

        def end() -> None:
            wait_until(lambda: dispatcher.counts.items == 3)
            pool.shutdown(wait=False, cancel_futures=True)
            gate.touch()

        ender = threading.Thread(target=end)
        ender.start()
        with pytest.raises(CancelledError):
            dispatcher.run()
        ender.join()
    counts = dispatcher.counts
    assert counts == Counts(items=3, done=1, given_up=2)


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
    again = 0.05
    stream.send(1)
    subscriber = stream.broker.subscriber("frames", redeliver_after=again)
    with StreamConsumer[Any](subscriber, acknowledge="manual", ends=2) as consumer:

        def send_more() -> None:
            time.sleep(10 * again)
            stream.send(2)

        later = threading.Thread(target=send_more)
        later.start()
        assert sorted(Dispatcher(consumer, threads, tasks.first)) == [1, 2]
        later.join()


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


def test_a_callback_that_fails_ends_it(stream: Stream, threads: ThreadPoolExecutor) -> None:
    stream.send(1, end=False)

    def refuse(_item: Any, _result: Any) -> None:
        raise LookupError("of the callback")

    for options in ({"on_result": refuse}, {"on_error": refuse}):
        with stream.consumer() as consumer:
            function = tasks.first if "on_result" in options else tasks.fail
            dispatcher: Dispatcher[Any] = Dispatcher(consumer, threads, function, **options)  # type: ignore[arg-type]
            with pytest.raises(LookupError, match="of the callback"):
                dispatcher.run()
            assert dispatcher.counts == Counts(items=1, given_up=1)


def test_a_broker_that_comes_back_is_used_again(
    threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    need_redis()
    server = RedisServer(tmp_path)
    broker = open_broker(f"list+redis://127.0.0.1:{server.port}/0")
    found: list[str] = []

    def restart() -> None:
        wait_until(lambda: found == ["before"])
        server.kill()
        assert server.start()
        with StreamProducer[str](broker.publisher()) as producer:
            producer.send("t", "after")
            producer.close_topics("t")

    try:
        with StreamProducer[str](broker.publisher()) as producer:
            producer.send("t", "before")
        restarter = threading.Thread(target=restart)
        restarter.start()
        with StreamConsumer[str](broker.subscriber("t"), acknowledge="manual") as consumer:
            Dispatcher(consumer, threads, str, on_result=lambda _, text: found.append(text)).run()
        restarter.join()
    finally:
        server.kill()
    assert found == ["before", "after"]


def test_silence_is_an_error_after_the_timeout(stream: Stream, threads: ThreadPoolExecutor) -> None:
    stream.send(1, 2, end=False)
    with stream.consumer() as consumer:
        dispatcher = Dispatcher(consumer, threads, tasks.first, timeout=0.2)
        found = []
        with pytest.raises(TimeoutError, match=r"no item came within 0\.2 s"):
            found.extend(dispatcher)
        assert dispatcher.counts == Counts(items=2, done=2)


def test_tasks_that_take_too_long_have_failed(stream: Stream, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    stream.send(*range(3))
    with ThreadPoolExecutor(3) as pool, stream.consumer() as consumer:
        function = PARTIAL(tasks.wait_unless, 1, str(gate))
        errors: list[Exception] = []

        def note(_item: Any, error: Exception) -> None:
            errors.append(error)
            if len(errors) == 2:
                gate.touch()

        dispatcher = Dispatcher(consumer, pool, function, on_error=note, task_timeout=0.5)
        assert list(dispatcher) == [1]
        assert [type(error) for error in errors] == [TimeoutError] * 2
        assert "longer than 0.5 s" in str(errors[0])
        assert dispatcher.counts == Counts(items=3, done=1, skipped=2)


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
