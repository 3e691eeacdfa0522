"""Items of a stream as tasks that fail, or whose workers, dispatchers and brokers do."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, cast

import dispatch_tasks as tasks
import numpy as np
import pytest
from dispatch_pools import make_pool, wait_until
from numbered_stream import NumberedStream as Stream
from redis_server import RedisServer, need_redis

from proxystore_rs.exceptions import StoreConfigError
from proxystore_rs.store import Store
from proxystore_rs.stream import StreamConsumer, StreamProducer
from proxystore_rs.stream.brokers import open_broker
from proxystore_rs.stream.dispatch import Counts, DeadLetters, Dispatcher

# Python warns of forking a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

PARTIAL = functools.partial


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


def test_what_a_broker_refuses_late_was_not_sent_to_another_topic(
    stream: Stream, threads: ThreadPoolExecutor, stream_server: RedisServer, topic: str
) -> None:
    stream.send(1)
    assert stream_server.ask(f"SET {topic} no-list") == "+OK"
    broker = open_broker(f"list+redis://127.0.0.1:{stream_server.port}/0")
    producer: StreamProducer[Any] = StreamProducer(broker.publisher(), default_store=stream.store)
    with stream.consumer() as consumer:
        letters = DeadLetters(producer, topic)
        dispatcher = Dispatcher(consumer, threads, tasks.fail, on_error=letters)
        with pytest.raises(StoreConfigError, match="something else"):
            dispatcher.run()
    assert dispatcher.counts == Counts(items=1, given_up=1)
    producer.close()
    with stream.consumer() as consumer:
        assert list(Dispatcher(consumer, threads, tasks.first)) == [1]
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


@pytest.fixture
def once(make_store: Callable[..., Store[Any]]) -> Stream:
    """A stream whose events come once."""
    return Stream(make_store("file", metrics=True), "shm")


def test_where_events_come_once_objects_stay_for_more_tries(once: Stream, pool: Executor) -> None:
    with once.consumer() as consumer:
        once.send(*range(4))
        dispatcher = Dispatcher(consumer, pool, tasks.fail_odd, retries=3, on_error="skip")
        assert sorted(dispatcher) == [0, 2]
    assert dispatcher.counts == Counts(items=4, done=2, skipped=2, retries=6)
    assert once.objects() == 0


def test_where_events_come_once_objects_stay_for_dead_letters(
    once: Stream, pool: Executor, topic: str
) -> None:
    with once.consumer() as consumer, once.consumer(topic) as failed:
        once.send(1, 2)
        with once.producer() as producer:
            letters = DeadLetters(producer, topic)
            Dispatcher(consumer, pool, tasks.fail_odd, retries=2, on_error=letters).run()
            producer.close_topics(topic)
        (letter,) = failed.iter_items()
        assert letter.metadata["attempts"] == 1 and letter.metadata["tries"] == 3
        assert letter.value[0] == 1
        letter.acknowledge()
    assert once.objects() == 0


def test_where_events_come_once_the_consumer_has_what_was_given_up(
    once: Stream, threads: ThreadPoolExecutor
) -> None:
    with once.consumer(timeout=60) as consumer:
        once.send(1)
        with pytest.raises(ArithmeticError):
            Dispatcher(consumer, threads, tasks.fail).run()
        assert list(Dispatcher(consumer, threads, tasks.first)) == [1]  # and the end
        assert once.objects() == 0
        once.send(2)
        with pytest.raises(ArithmeticError):
            Dispatcher(consumer, threads, tasks.fail).run()
        assert once.objects() == 1
    assert once.objects() == 0


def test_where_events_come_once_items_outlive_their_workers(once: Stream, tmp_path: Path) -> None:
    function = PARTIAL(tasks.die_once, str(tmp_path / "mark"))
    found: list[float] = []
    with once.consumer(timeout=60) as consumer:
        once.send(*range(8))
        with make_pool("spawn") as pool, pytest.raises(BrokenProcessPool):
            found.extend(Dispatcher(consumer, pool, function, max_in_flight=3))
        with make_pool("spawn") as pool:
            found.extend(Dispatcher(consumer, pool, function))
    assert sorted(found) == list(range(8))
    assert once.objects() == 0


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


class Closed(ThreadPoolExecutor):
    """Cancels nothing, as a client of Dask that was closed."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Any = super().submit(function, *args, **kwargs)
        future.cancel = self.refuse
        return cast("Future[Any]", future)

    def refuse(self) -> bool:
        raise RuntimeError("it is closed")


def test_tasks_that_cannot_be_cancelled_replace_no_error(stream: Stream, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    stream.send(*range(3), end=False)

    def refuse(_item: Any, _result: Any) -> None:
        raise LookupError("of the callback")

    with Closed(3) as pool, stream.consumer() as consumer:
        function = PARTIAL(tasks.wait_unless, 1, str(gate))
        dispatcher = Dispatcher(consumer, pool, function, max_in_flight=3, on_result=refuse)
        with pytest.raises(LookupError, match="of the callback"):
            dispatcher.run()
        gate.touch()
        assert dispatcher.counts.in_flight == 0


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
