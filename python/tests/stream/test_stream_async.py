"""Consumers in asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from proxystore_rs.exceptions import ChannelTimeoutError, StoreClosedError
from proxystore_rs.store import Store
from proxystore_rs.stream import StreamConsumer, StreamProducer
from proxystore_rs.stream.brokers import Broker

LARGE = b"x" * 10_000


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
