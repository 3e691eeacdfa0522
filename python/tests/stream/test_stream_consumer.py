"""What consumers hand out, acknowledge and free."""

from __future__ import annotations

import asyncio
import gc
import pickle
import sys
import time
import types
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis_server import RedisServer, need_redis

from proxystore_rs.exceptions import (
    ChannelError,
    ChannelTimeoutError,
    SerializationError,
    StoreClosedError,
)
from proxystore_rs.proxy import Proxy, extract
from proxystore_rs.store import Store
from proxystore_rs.store.ref import into_owned
from proxystore_rs.stream import StreamConsumer, StreamItem, StreamProducer
from proxystore_rs.stream.brokers import Broker, open_broker
from proxystore_rs.stream.filters import SamplingFilter

LARGE = b"x" * 20_000
Count = Callable[[Store[Any]], int]


class Frame:
    """An object that weak references can be made of."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def send(broker: Broker, store: Store[Any] | None, *objects: Any, **options: Any) -> None:
    """Send objects, and the end of their topic."""
    with StreamProducer[Any](broker.publisher(), default_store=store, **options) as producer:
        for number, obj in enumerate(objects):
            producer.send("t", obj, metadata={"n": number})
        producer.close_topics("t")


def consumer_of(broker: Broker, **options: Any) -> StreamConsumer[Any]:
    return StreamConsumer(broker.subscriber("t"), timeout=60, **options)


def test_acknowledging_frees_objects(
    broker: Broker, folder_store: Store[Any], count: Count
) -> None:
    send(broker, folder_store, LARGE, LARGE, batch_size=5)
    consumer = consumer_of(broker)
    first = consumer.next_item()
    assert isinstance(first, StreamItem)
    assert (first.topic, first.metadata, first.attempts) == ("t", {"n": 0}, 1)
    assert extract(first.proxy) == LARGE
    assert count(folder_store) == 2  # the event could come again
    first.acknowledge()
    first.acknowledge()
    assert count(folder_store) == 1
    second = consumer.next()
    assert second == LARGE
    with pytest.raises(StopIteration):
        consumer.next()  # acknowledges
    assert count(folder_store) == 0


def test_lent_proxies_free_nothing(broker: Broker, folder_store: Store[Any], count: Count) -> None:
    send(broker, folder_store, LARGE)
    item = consumer_of(broker, acknowledge="manual").next_item()
    one, other = item.lend(), item.lend()
    assert one is not other and one == LARGE
    assert pickle.loads(pickle.dumps(other)) == LARGE
    del one, other
    assert count(folder_store) == 1
    item.acknowledge()
    assert count(folder_store) == 0


def test_what_was_lent_may_still_be_given_away(
    broker: Broker, folder_store: Store[Any], count: Count
) -> None:
    send(broker, folder_store, LARGE)
    item = consumer_of(broker, acknowledge="manual").next_item()
    assert item.lend() == LARGE
    given = pickle.dumps(item.value)
    item.acknowledge()
    del item
    assert count(folder_store) == 1
    assert pickle.loads(given) == LARGE and count(folder_store) == 0


def test_where_events_come_once_the_user_of_what_was_lent_frees(
    topic: str, folder_store: Store[Any], count: Count
) -> None:
    broker = open_broker(f"shm://{topic}")
    with StreamConsumer[Any](broker.subscriber("t"), acknowledge="manual", timeout=60) as consumer:
        send(broker, folder_store, LARGE)
        item = consumer.next_item()
        lent = item.lend()
        item.acknowledge()
        assert count(folder_store) == 1
        assert lent == LARGE and count(folder_store) == 0


def test_objects_without_a_store_are_lent_as_they_are(broker: Broker) -> None:
    send(broker, None, LARGE)
    item = consumer_of(broker).next_item()
    assert type(item.lend()) is bytes and item.lend() == LARGE


def test_an_unused_proxy_frees_its_object_when_it_goes(
    broker: Broker, folder_store: Store[Any], count: Count
) -> None:
    send(broker, folder_store, LARGE)
    item = consumer_of(broker, acknowledge="manual").next_item()
    item.acknowledge()
    assert count(folder_store) == 1
    del item
    assert count(folder_store) == 0


def test_a_proxy_that_is_used_late_frees_its_object_then(
    broker: Broker, folder_store: Store[Any], count: Count
) -> None:
    send(broker, folder_store, LARGE)
    (proxy,) = consumer_of(broker)
    assert count(folder_store) == 1
    assert proxy == LARGE
    assert count(folder_store) == 0


def test_a_proxy_that_is_sent_frees_its_object_where_it_is_used(
    broker: Broker, folder_store: Store[Any], count: Count
) -> None:
    send(broker, folder_store, LARGE)
    (sent,) = [pickle.dumps(proxy) for proxy in consumer_of(broker)]
    assert count(folder_store) == 1
    assert pickle.loads(sent) == LARGE
    assert count(folder_store) == 0


def test_a_share_survives_being_sent(
    broker: Broker, folder_store: Store[Any], count: Count
) -> None:
    groups = ["a", "b"]
    consumers = [
        StreamConsumer[Any](broker.subscriber("t", group=group), timeout=60) for group in groups
    ]
    send(broker, folder_store, LARGE, consumers=groups)
    ((first,), (second,)) = ([pickle.dumps(proxy) for proxy in consumer] for consumer in consumers)
    assert pickle.loads(first) == LARGE
    assert count(folder_store) >= 1
    assert pickle.loads(second) == LARGE
    assert count(folder_store) == 0


def test_what_was_not_acknowledged_comes_again(broker: Broker, folder_store: Store[Any]) -> None:
    send(broker, folder_store, LARGE, LARGE)
    with consumer_of(broker) as consumer, pytest.raises(ZeroDivisionError):
        for proxy in consumer:
            assert proxy == LARGE
            raise ZeroDivisionError
    again = consumer_of(broker)
    assert again.next_item().attempts == 2
    assert again.next_object() == LARGE
    assert again.metrics()["repeated"] == 1


def test_objects_that_are_kept_stay(broker: Broker, folder_store: Store[Any], count: Count) -> None:
    producer: StreamProducer[Any] = StreamProducer(broker.publisher(), default_store=folder_store)
    producer.send("t", "small", evict=False)
    producer.close_topics("t")
    assert list(consumer_of(broker).iter_objects()) == ["small"]
    assert count(folder_store) == 1


def test_filters_free_what_they_drop(
    broker: Broker, folder_store: Store[Any], count: Count
) -> None:
    send(broker, folder_store, LARGE, LARGE, LARGE)
    consumer = consumer_of(broker, filter_=lambda metadata: metadata["n"] != 1)
    assert [metadata for metadata, _ in consumer.iter_objects_with_metadata()] == [{"n": 1}]
    assert count(folder_store) == 0
    assert consumer.metrics()["filtered"] == 2


def test_a_store_opened_by_a_filter_has_its_functions(
    broker: Broker, make_store: Callable[..., Store[Any]]
) -> None:
    store = make_store("memory", serializer=pickle.dumps, deserializer=pickle.loads)
    send(broker, store, [LARGE], [LARGE])
    consumer = consumer_of(broker, filter_=lambda metadata: metadata["n"] == 0)
    assert list(consumer.iter_objects()) == [[LARGE]]


def test_reading_goes_on_behind_an_end(broker: Broker) -> None:
    send(broker, None, 1)
    send(broker, None, 2)
    consumer = consumer_of(broker)
    assert list(consumer) == [1]
    assert consumer.next() == 2
    with pytest.raises(StopIteration):
        consumer.next()


def test_an_iteration_may_have_several_ends(broker: Broker) -> None:
    send(broker, None, 1)
    send(broker, None, 2)
    send(broker, None, 3)
    consumer = consumer_of(broker, ends=2)
    assert list(consumer) == [1, 2]
    assert consumer.next() == 3


def test_an_end_is_counted_once_however_often_its_batch_comes(broker: Broker) -> None:
    send(broker, None, 1, batch_size=2)
    subscriber = broker.subscriber("t", redeliver_after=0.1)
    consumer = StreamConsumer[Any](subscriber, acknowledge="manual", ends=2, timeout=60)
    found = set()
    for item in consumer.iter_items():
        if item.attempts > 1 and item.value == 1:
            item.acknowledge()
            if found == {1}:  # the other producer is late
                send(broker, None, 2)
        found.add(item.value)
    assert found == {1, 2}


def test_an_owner_frees_instead_of_the_stream(
    broker: Broker, folder_store: Store[Any], count: Count
) -> None:
    send(broker, folder_store, LARGE)
    consumer = consumer_of(broker)
    owned = into_owned(consumer.next())
    assert owned == LARGE
    assert list(consumer) == []  # acknowledges
    assert count(folder_store) == 1
    del owned
    assert count(folder_store) == 0


def test_nothing_is_kept_of_what_was_consumed(
    broker: Broker, folder_store: Store[Any], count: Count
) -> None:
    consumer = consumer_of(broker)
    producer: StreamProducer[Any] = StreamProducer(broker.publisher(), default_store=folder_store)
    last = None
    for number in range(50):
        producer.send("t", Frame(LARGE + bytes([number])))
        obj = consumer.next_object()
        assert last is None or last() is None
        last = weakref.ref(obj)
        del obj
        assert count(folder_store) == 1  # which is not acknowledged yet
    producer.close_topics("t")
    assert list(consumer) == []
    assert count(folder_store) == 0
    assert gc.collect() >= 0
    assert last is not None
    assert last() is None


def test_a_missing_object_is_said_to_be(broker: Broker, folder_store: Store[Any]) -> None:
    send(broker, folder_store, LARGE)
    consumer = consumer_of(broker)
    for path in Path(folder_store.connector.store_dir).iterdir():
        if path.is_file():
            path.unlink()
    with pytest.raises(ValueError, match="returned None"):
        consumer.next_object()


def test_waiting_ends_by_its_time(broker: Broker) -> None:
    consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"), timeout=0.01)
    with pytest.raises(ChannelTimeoutError, match="none came in time"):
        consumer.next()
    with pytest.raises(TimeoutError):
        consumer_of(broker).next_item(timeout=0)


def test_closing_may_close_the_stores(broker: Broker, make_store: Callable[..., Any]) -> None:
    store = make_store("memory")
    send(broker, store, 1)
    consumer = consumer_of(broker)
    assert list(consumer.iter_objects()) == [1]
    consumer.close(stores=True)
    with pytest.raises(StoreClosedError):
        store.put(1)
    with pytest.raises(StoreClosedError):
        consumer.next()


def test_the_subscriber_may_stay_open(broker: Broker) -> None:
    subscriber = broker.subscriber("t")
    StreamConsumer[Any](subscriber).close(subscriber=False)
    broker.publisher().send_message("t", b"hello")
    assert subscriber.next_message() == b"hello"


def test_what_is_no_message_of_a_stream_is_passed_over(broker: Broker) -> None:
    consumer = consumer_of(broker)
    broker.publisher().send_message("t", b"hello")
    with pytest.raises(Exception, match="read the message of a stream"):
        consumer.next()
    send(broker, None, 1)
    assert consumer.next() == 1


def test_metrics_are_text_too(broker: Broker) -> None:
    send(broker, None, 1)
    consumer = consumer_of(broker)
    assert list(consumer) == [1]
    assert consumer.metrics()["received"] == 2
    assert 'proxystore_stream_received_total{stream="t"} 2' in consumer.metrics_text("t")


@pytest.mark.parametrize("wrong", [{"acknowledge": "never"}, {"ends": 0}])
def test_wrong_arguments_are_refused(broker: Broker, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        consumer_of(broker, **wrong)


def test_filters_are_probabilities() -> None:
    assert not any(SamplingFilter(0)({}) for _ in range(100))
    with pytest.raises(ValueError, match="probability"):
        SamplingFilter(1.5)


def test_none_is_an_object(broker: Broker, folder_store: Store[Any]) -> None:
    producer: StreamProducer[None] = StreamProducer(broker.publisher(), default_store=folder_store)
    producer.send("t", None, evict=False)
    consumer = consumer_of(broker)
    proxy = consumer.next()
    assert type(proxy) is Proxy
    assert extract(proxy) is None
    producer.send("t", None)
    assert consumer.next_object() is None


def test_an_error_does_not_make_ends_forgotten(broker: Broker) -> None:
    consumer = StreamConsumer[Any](broker.subscriber("t"), timeout=0.05, ends=2)
    send(broker, None, 1)
    with pytest.raises(ChannelTimeoutError):
        list(consumer.iter_items())
    send(broker, None, 2)
    assert list(consumer.iter_objects()) == [2]


@pytest.mark.parametrize("error", [ArithmeticError, SerializationError])
def test_an_item_whose_filter_fails_comes_again(broker: Broker, error: type[Exception]) -> None:
    send(broker, None, 1)

    def fail(_: dict[str, Any]) -> bool:
        raise error

    with consumer_of(broker, filter_=fail) as failing, pytest.raises(error):
        failing.next()
    assert consumer_of(broker).next() == 1


def test_an_item_whose_class_is_missing_comes_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    application = types.ModuleType("application")
    exec("class Shot:\n    number = 7", application.__dict__)
    with monkeypatch.context() as installed:
        installed.setitem(sys.modules, "application", application)
        send(broker, None, application.Shot())
    with consumer_of(broker) as without, pytest.raises(SerializationError, match="application"):
        without.next()
    monkeypatch.setitem(sys.modules, "application", application)
    assert consumer_of(broker).next().number == 7


@pytest.mark.parametrize(
    ("whole", "damaged"), [(b"\xa8MARKMARK", b"\xc1MARKMARK"), (b"OBJECT", b"OBJE\xffT")]
)
def test_a_damaged_item_is_reported_once(broker: Broker, whole: bytes, damaged: bytes) -> None:
    subscriber = broker.subscriber("t")
    with StreamProducer[Any](broker.publisher()) as producer:
        producer.send("t", "OBJECT", metadata={"n": "MARKMARK"})
    message = subscriber.next_message()
    damaged = message.replace(whole, damaged)
    assert damaged != message
    broker.publisher().send_message("t", damaged)
    subscriber.close()
    with consumer_of(broker) as consumer, pytest.raises(SerializationError):
        consumer.next()
    again: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"), timeout=0.05)
    with pytest.raises(ChannelTimeoutError):
        again.next()


@pytest.mark.parametrize("way", ["next_item", "anext", "next_message"])
def test_waiting_outlasts_a_restart_of_the_broker(tmp_path: Path, way: str) -> None:
    need_redis()
    server = RedisServer(tmp_path)
    broker = open_broker(f"list+redis://127.0.0.1:{server.port}/0")
    subscriber = broker.subscriber("t")
    consumer: StreamConsumer[Any] = StreamConsumer(subscriber)

    async def one() -> Any:
        return await anext(consumer)

    ask: Callable[[], Any] = {
        "next_item": lambda: consumer.next_item(60).value,
        "anext": lambda: asyncio.run(one()),
        "next_message": lambda: bool(subscriber.next_message(60)),
    }[way]
    try:
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(ask)
            server.kill()
            time.sleep(1)
            assert not found.done()
            assert server.start()
            send(broker, None, True)
            assert found.result(60) is True
        server.kill()
        with pytest.raises(ChannelError, match=r"reached|answer"):
            consumer.next_item(0.1)
    finally:
        server.kill()
