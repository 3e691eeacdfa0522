"""Threads, waits that end, processes and forks."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from redis_server import RedisServer

from proxystore_rs._core import BrokerPublisher
from proxystore_rs.exceptions import ChannelError, StoreClosedError
from proxystore_rs.proxy import extract
from proxystore_rs.store import Store, StoreConfig, get_or_create_store
from proxystore_rs.stream import StreamConsumer, StreamProducer
from proxystore_rs.stream.brokers import Broker, open_broker

LARGE = b"x" * 20_000
Count = Callable[[Store[Any]], int]

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def test_threads_share_producer_and_consumer(
    broker: Broker, folder_store: Store[Any], count: Count
) -> None:
    consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"), timeout=60)
    producer: StreamProducer[Any] = StreamProducer(
        broker.publisher(), default_store=folder_store, batch_size=7
    )
    threads, each = 4, 25

    def produce(thread: int) -> None:
        for number in range(each):
            producer.send("t", LARGE, metadata={"thread": thread, "number": number})

    def consume(_: int) -> list[tuple[int, int]]:
        found = []
        for metadata, obj in consumer.iter_objects_with_metadata():
            assert obj == LARGE
            found.append((metadata["thread"], metadata["number"]))
        return found

    with ThreadPoolExecutor(2 * threads) as pool:
        consumed = pool.map(consume, range(threads))
        list(pool.map(produce, range(threads)))
        producer.close_topics("t", ends=threads)
        found = [pair for pairs in consumed for pair in pairs]
    assert sorted(found) == [(t, n) for t in range(threads) for n in range(each)]
    assert count(folder_store) == 0
    assert consumer.metrics()["acknowledged"] == producer.metrics()["messages"]


def test_a_thread_acknowledges_its_own_item_alone(broker: Broker) -> None:
    consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"), timeout=60)
    producer: StreamProducer[Any] = StreamProducer(broker.publisher())
    for number in range(4):
        producer.send("t", number)
    assert consumer.next() == 0
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(consumer.next).result() == 1
        assert consumer.metrics()["acknowledged"] == 0
        assert pool.submit(consumer.next).result() == 2
        assert consumer.metrics()["acknowledged"] == 1
    consumer.close()
    again: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"), timeout=60)
    assert [again.next() for _ in range(3)] == [0, 2, 3]


def test_closing_ends_a_wait(broker: Broker) -> None:
    consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(consumer.next)
        consumer.close()
        with pytest.raises(StoreClosedError):
            waiting.result(60)


@contextmanager
def interrupted() -> Iterator[None]:
    """What Ctrl-C raises ends the block, a moment after it began."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_ctrl_c_ends_a_wait(broker: Broker) -> None:
    consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"))
    with interrupted():
        consumer.next()
    subscriber = broker.subscriber("t")
    with interrupted():
        subscriber.next_message()


def test_ctrl_c_ends_a_wait_for_room(broker: Broker, store: Store[Any]) -> None:
    producer: StreamProducer[Any] = StreamProducer(
        broker.publisher(), default_store=store, max_bytes=1
    )
    producer.send("t", LARGE)
    with interrupted():
        producer.send("t", LARGE)
    consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"))
    assert consumer.next_object() == LARGE
    producer.flush()


def fill(publisher: BrokerPublisher) -> None:
    """Publish until the broker is full and Ctrl-C alone ends the wait."""
    published = 1
    while published:
        published = 0
        with interrupted():
            while True:
                publisher.send_message("t", bytes(1 << 20))
                published += 1


def test_a_wait_for_a_full_broker_ends(topic: str) -> None:
    broker = open_broker(f"shm://{topic}")
    subscriber = broker.subscriber("t")  # who does not take them
    publisher = broker.publisher()
    fill(publisher)
    producer: StreamProducer[Any] = StreamProducer(publisher)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(producer.send, "t", bytes(1 << 20))
        time.sleep(0.5)  # until it waits; if it does not yet, closing takes longer
        producer.close()
        with pytest.raises(StoreClosedError):
            waiting.result(60)
    subscriber.close()


def test_closing_gives_a_full_broker_up(topic: str) -> None:
    broker = open_broker(f"shm://{topic}")
    subscriber = broker.subscriber("t")
    publisher = broker.publisher()
    fill(publisher)
    producer: StreamProducer[Any] = StreamProducer(publisher, batch_size=2)
    producer._farewell = 0.1
    producer.send("t", bytes(1 << 20))
    with pytest.raises(ChannelError):
        producer.close(topics=["t"])
    subscriber.close()


def produce(url: str, topic: str, config: StoreConfig) -> None:
    """Send three objects; runs in another process."""
    store = get_or_create_store(config)
    with StreamProducer[Any](open_broker(url).publisher(), default_store=store) as producer:
        for number in range(3):
            producer.send(topic, bytes([number]) * 20_000)
        producer.close_topics(topic)


def first_byte(proxy: Any) -> int:
    """Use a proxy; runs in another process."""
    first: int = proxy[0]
    return first


def test_producers_and_workers_are_other_processes(
    stream_server: RedisServer, topic: str, folder_store: Store[Any], count: Count
) -> None:
    url = f"stream+{stream_server.url}"
    consumer: StreamConsumer[Any] = StreamConsumer(open_broker(url).subscriber(topic), timeout=60)
    spawn = multiprocessing.get_context("spawn")
    child = spawn.Process(target=produce, args=(url, topic, folder_store.config()))
    child.start()
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        assert [pool.submit(first_byte, proxy).result(60) for proxy in consumer] == [0, 1, 2]
    child.join(60)
    assert child.exitcode == 0
    assert count(folder_store) == 0
    consumer.close()


def test_a_forked_child_sends_what_it_gathered_itself(
    stream_server: RedisServer, topic: str, folder_store: Store[Any]
) -> None:
    url = f"stream+{stream_server.url}"
    producer: StreamProducer[Any] = StreamProducer(
        open_broker(url).publisher(), default_store=folder_store, batch_size=10
    )
    producer.send(topic, "parent")
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            producer.send(topic, "child")
            producer.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    producer.close(topics=[topic])
    consumer: StreamConsumer[Any] = StreamConsumer(open_broker(url).subscriber(topic), timeout=60)
    assert list(consumer.iter_objects()) == ["child", "parent"]
    consumer.close()


def test_nothing_is_lost_with_a_consumer_that_is_killed(
    stream_server: RedisServer, topic: str, folder_store: Store[Any], count: Count
) -> None:
    url = f"stream+{stream_server.url}"
    produce(url, topic, folder_store.config())
    code = (
        "import sys\n"
        "from proxystore_rs.stream import StreamConsumer\n"
        "from proxystore_rs.stream.brokers import open_broker\n"
        f"consumer = StreamConsumer(open_broker({url!r}).subscriber({topic!r}))\n"
        "consumer.next_object(); consumer.next_object()\n"
        "print('holds', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holds\n"
        process.kill()
    subscriber = open_broker(url).subscriber(topic, redeliver_after=0.2)
    consumer: StreamConsumer[Any] = StreamConsumer(subscriber, timeout=60)
    found = {
        item.metadata.get("n", extract(item.value)[0]): item.attempts for item in some(consumer, 2)
    }
    assert found == {1: 2, 2: 1}
    assert count(folder_store) == 0
    consumer.close()


def some(consumer: StreamConsumer[Any], number: int) -> list[Any]:
    """So many items, acknowledged when they were used."""
    items = []
    while len(items) < number:
        try:
            item = consumer.next_item()
        except StopIteration:
            continue
        extract(item.value)
        item.acknowledge()
        items.append(item)
    return items


def test_proxies_of_items_are_lent_to_a_pool(broker: Broker, folder_store: Store[Any]) -> None:
    """A proxy that was sent holds its share, however often it is copied."""
    producer: StreamProducer[Any] = StreamProducer(
        broker.publisher(), default_store=folder_store, consumers=["a"]
    )
    consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t", group="a"), timeout=60)
    producer.send("t", LARGE)
    sent = pickle.dumps(consumer.next())
    again = pickle.dumps(pickle.loads(sent))
    assert pickle.loads(again) == LARGE
    with pytest.raises(Exception, match=r"(?i)not found|does not exist|no object|missing"):
        extract(pickle.loads(again))


def test_metrics_are_counted_by_all_threads(broker: Broker) -> None:
    producer: StreamProducer[Any] = StreamProducer(broker.publisher())
    threads = [threading.Thread(target=producer.send, args=("t", 1)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert producer.metrics()["sent"] == 8
