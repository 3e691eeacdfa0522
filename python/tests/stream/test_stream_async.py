"""Consumers in asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from proxystore_rs.exceptions import ChannelTimeoutError, StoreClosedError
from proxystore_rs.store import Store
from proxystore_rs.stream import StreamConsumer, StreamProducer, _threads
from proxystore_rs.stream.brokers import Broker

LARGE = b"x" * 20_000


def test_items_come_by_async_for(
    broker: Broker, folder_store: Store[Any], count: Callable[[Store[Any]], int]
) -> None:
    producer: StreamProducer[Any] = StreamProducer(broker.publisher(), default_store=folder_store)

    async def consume() -> list[Any]:
        async with StreamConsumer[Any](broker.subscriber("t")) as consumer:
            return [bytes(proxy) async for proxy in consumer]

    async def both() -> list[Any]:
        consuming = asyncio.create_task(consume())
        await asyncio.sleep(0)
        for _ in range(3):
            producer.send("t", LARGE)
        producer.close_topics("t")
        return await consuming

    assert asyncio.run(both()) == [LARGE] * 3
    assert count(folder_store) == 0


def test_an_iterator_acknowledges_its_own_item_alone(broker: Broker) -> None:
    producer: StreamProducer[Any] = StreamProducer(broker.publisher())
    for number in range(4):
        producer.send("t", number)

    async def consume() -> None:
        consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"), timeout=60)
        first, second = aiter(consumer), aiter(consumer)
        assert (await anext(first), await anext(second), await anext(consumer)) == (0, 1, 2)
        assert consumer.metrics()["acknowledged"] == 0
        assert await anext(second) == 3
        assert consumer.metrics()["acknowledged"] == 1

    asyncio.run(consume())


def test_the_items_before_are_acknowledged_whichever_tasks_asked(broker: Broker) -> None:
    producer: StreamProducer[Any] = StreamProducer(broker.publisher())
    for number in range(4):
        producer.send("t", number)

    async def one(consumer: StreamConsumer[Any]) -> Any:
        return await anext(consumer)

    async def consume() -> None:
        consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"), timeout=60)
        assert {*await asyncio.gather(*(one(consumer) for _ in range(3)))} == {0, 1, 2}
        assert consumer.metrics()["acknowledged"] == 0
        assert await asyncio.create_task(one(consumer)) == 3
        assert consumer.metrics()["acknowledged"] == 3

    asyncio.run(consume())


def test_what_comes_for_a_cancelled_task_is_the_next_ones(broker: Broker) -> None:
    producer: StreamProducer[Any] = StreamProducer(broker.publisher())

    async def consume() -> None:
        consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(consumer), 0.01)
        producer.send("t", 1)  # the thread that waited may take it
        producer.send("t", 2)
        assert {await anext(consumer), await anext(consumer)} == {1, 2}

    asyncio.run(consume())


def test_what_comes_while_the_loop_ends_is_the_next_one(broker: Broker) -> None:
    producer: StreamProducer[Any] = StreamProducer(broker.publisher())
    subscriber = broker.subscriber("t", redeliver_after=3600)
    consumer: StreamConsumer[Any] = StreamConsumer(subscriber)

    async def poll() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(anext(consumer), 0.01)
        producer.send("t", 1)  # the thread still waits

    for _ in range(30):
        asyncio.run(poll())
        assert consumer.next_item(10).value == 1


def test_what_was_to_be_acknowledged_is_when_the_wait_did_not_begin(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_threads, "_MOST", 1)
    producer: StreamProducer[Any] = StreamProducer(broker.publisher())

    async def consume() -> None:
        consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"), timeout=60)
        first, second = aiter(consumer), aiter(consumer)
        producer.send("t", 1)
        assert await anext(first) == 1
        waiting = asyncio.ensure_future(anext(second))  # by the only thread
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(first), 0.01)
        producer.send("t", 2)
        producer.send("t", 3)
        assert {await waiting, await anext(first)} == {2, 3}
        assert consumer.metrics()["acknowledged"] == 1

    asyncio.run(consume())


def test_waiting_takes_no_threads_of_the_loop(broker: Broker) -> None:
    producer: StreamProducer[Any] = StreamProducer(broker.publisher())
    leave = threading.Event()

    async def consume() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, leave.wait)
        try:
            producer.send("t", 1)
            consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"))
            return await asyncio.wait_for(anext(consumer), 20)
        finally:
            leave.set()
            await busy

    assert asyncio.run(consume()) == 1


def test_closing_ends_the_threads(broker: Broker) -> None:
    def threads() -> set[threading.Thread]:
        return {one for one in threading.enumerate() if one.name.startswith("proxystore-stream")}

    async def consume() -> set[threading.Thread]:
        consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"), timeout=0.01)
        before = threads()
        with pytest.raises(ChannelTimeoutError):
            await anext(consumer)
        started = threads() - before
        consumer.close()
        return started

    started = asyncio.run(consume())
    assert started
    for thread in started:
        thread.join(60)
        assert not thread.is_alive()


def test_waiting_ends_by_time_and_by_closing(broker: Broker) -> None:
    async def late() -> None:
        await anext(StreamConsumer[Any](broker.subscriber("t"), timeout=0.01))

    with pytest.raises(ChannelTimeoutError):
        asyncio.run(late())

    async def closed() -> None:
        consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"))
        waiting = asyncio.ensure_future(anext(consumer))
        await asyncio.sleep(0)
        consumer.close()
        await waiting

    with pytest.raises(StoreClosedError):
        asyncio.run(closed())
