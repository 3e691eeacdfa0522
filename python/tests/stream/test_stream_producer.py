"""What producers gather, filter, aggregate, store and close."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from proxystore_rs.connectors.local import LocalConnector, LocalKey
from proxystore_rs.exceptions import (
    ChannelFullError,
    ChannelTimeoutError,
    ProxyStoreError,
    SerializationError,
    StoreClosedError,
    UntrustedError,
)
from proxystore_rs.proxy import Proxy, is_resolved
from proxystore_rs.store import Store
from proxystore_rs.stream import StreamConsumer, StreamProducer
from proxystore_rs.stream.brokers import Broker
from proxystore_rs.stream.exceptions import TopicClosedError

LARGE = b"x" * 20_000


def received(broker: Broker, topic: str = "t") -> list[Any]:
    """What is there by now."""
    consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber(topic), timeout=0)
    found = []
    try:
        found.extend(consumer.iter_objects())
    except ChannelTimeoutError:
        found.append("open")
    consumer.close()
    return found


def test_objects_arrive_in_order_with_their_metadata(broker: Broker, store: Store[Any]) -> None:
    consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"))
    said = {"n": 1, "list": [1.5, None, True], "bytes": b"x", "dict": {"a": -1}}
    objects = [LARGE, "small", {"a": 1}, None, 3]
    with StreamProducer[Any](broker.publisher(), default_store=store) as producer:
        for number, obj in enumerate(objects):
            producer.send("t", obj, metadata=said | {"n": number})
        said.clear()  # a copy was taken
        producer.close_topics("t")
    found = list(consumer.iter_objects_with_metadata())
    assert [obj for _, obj in found] == objects
    assert found[1][0] == {"n": 1, "list": [1.5, None, True], "bytes": b"x", "dict": {"a": -1}}


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, 1 << 70, {3}, float("inf"), "\ud800"])
def test_metadata_arrive_as_what_they_are(broker: Broker, value: Any) -> None:
    consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"))
    producer: StreamProducer[Any] = StreamProducer(broker.publisher())
    producer.send("t", 1, metadata={"value": value})
    metadata, _ = consumer.next_with_metadata()
    assert metadata == {"value": value}
    assert type(metadata["value"]) is type(value)


def test_a_store_of_data_pickles_no_metadata(
    broker: Broker, make_store: Callable[..., Store[Any]]
) -> None:
    producer: StreamProducer[Any] = StreamProducer(
        broker.publisher(), default_store=make_store("memory", codec="data")
    )
    with pytest.raises(UntrustedError, match="metadata"):
        producer.send("t", 1, metadata={"value": (1, 2)})
    producer.send("t", 1, metadata={"value": [1, 2]})
    assert received(broker) == [1, "open"]


def test_topics_have_stores_of_their_own_or_none(broker: Broker, store: Store[Any]) -> None:
    consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber(["a", "b"]))
    producer: StreamProducer[Any] = StreamProducer(
        broker.publisher(), default_store=store, stores={"b": None}
    )
    producer.send("a", LARGE)
    producer.send("b", LARGE)
    stored, inline = consumer.next(), consumer.next()
    assert type(stored) is Proxy
    assert not is_resolved(stored)
    assert type(inline) is bytes
    assert stored == inline == LARGE


def test_a_batch_is_sent_when_it_is_full(broker: Broker, store: Store[Any]) -> None:
    producer: StreamProducer[Any] = StreamProducer(
        broker.publisher(), default_store=store, batch_size=3
    )
    producer.send("t", 1)
    producer.send("t", 2)
    assert received(broker) == ["open"]
    producer.send("t", 3)
    producer.send("t", 4)
    assert received(broker) == [1, 2, 3, "open"]
    producer.flush()
    assert received(broker) == [4, "open"]
    assert producer.metrics()["messages"] == 2


def test_a_batch_is_sent_by_its_bytes_and_by_its_age(broker: Broker, store: Store[Any]) -> None:
    by_bytes: StreamProducer[Any] = StreamProducer(
        broker.publisher(), default_store=store, batch_size=100, batch_bytes=30_000
    )
    by_bytes.send("t", LARGE)
    assert received(broker) == ["open"]
    by_bytes.send("t", LARGE)
    assert received(broker) == [LARGE, LARGE, "open"]
    by_age: StreamProducer[Any] = StreamProducer(
        broker.publisher(), default_store=store, batch_size=100, batch_age=0.01
    )
    by_age.send("t", 1)
    consumer: StreamConsumer[Any] = StreamConsumer(broker.subscriber("t"), timeout=60)
    assert consumer.next_object() == 1


def test_what_is_gathered_is_sent_on_close(broker: Broker, store: Store[Any]) -> None:
    with StreamProducer[Any](broker.publisher(), default_store=store, batch_size=9) as producer:
        producer.send("t", 1)
    assert received(broker) == [1, "open"]
    with pytest.raises(StoreClosedError):
        producer.flush()


def test_batches_are_aggregated(broker: Broker, store: Store[Any]) -> None:
    producer: StreamProducer[int] = StreamProducer(
        broker.publisher(), aggregator=sum, batch_size=2, default_store=store
    )
    consumer: StreamConsumer[int] = StreamConsumer(broker.subscriber("t"))
    producer.send("t", 1, metadata={"a": 1, "b": 1})
    producer.send("t", 2, metadata={"b": 2})
    producer.close(topics=["t"])  # nothing is left to aggregate
    assert list(consumer.iter_objects_with_metadata()) == [({"a": 1, "b": 2}, 3)]


def test_filters_drop_before_anything_is_stored(broker: Broker, store: Store[Any]) -> None:
    producer: StreamProducer[int] = StreamProducer(
        broker.publisher(), default_store=store, filter_=lambda metadata: metadata["n"] % 2 == 1
    )
    for number in range(4):
        producer.send("t", number, metadata={"n": number})
    assert received(broker) == [0, 2, "open"]
    assert producer.metrics()["filtered"] == 2
    assert 'proxystore_stream_filtered_total{stream="odd"} 2' in producer.metrics_text("odd")


def test_nothing_is_sent_to_a_closed_topic(broker: Broker) -> None:
    producer: StreamProducer[int] = StreamProducer(broker.publisher(), batch_size=5)
    producer.send("t", 1)
    producer.close_topics("t")
    with pytest.raises(TopicClosedError, match="'t'") as raised:
        producer.send("t", 2)
    assert isinstance(raised.value, ProxyStoreError)
    producer.send("other", 2)
    assert received(broker) == [1]


def test_every_consumer_of_a_group_can_get_an_end(broker: Broker) -> None:
    producer: StreamProducer[int] = StreamProducer(broker.publisher())
    producer.close_topics("t", ends=2)
    assert received(broker) == []
    assert received(broker) == []
    assert received(broker) == ["open"]


def test_closing_closes_what_is_told(broker: Broker, make_store: Callable[..., Any]) -> None:
    store = make_store("memory")
    producer: StreamProducer[int] = StreamProducer(broker.publisher(), default_store=store)
    producer.close(publisher=False)
    producer.send("t", 1)
    producer.close(stores=True)
    with pytest.raises(StoreClosedError):
        store.put(1)


def test_closing_again_does_nothing_but_for_topics(broker: Broker) -> None:
    with StreamProducer[int](broker.publisher(), batch_size=5) as producer:
        producer.send("t", 1)
        producer.close(topics=["t"])
    producer.close(topics=["t"])
    with pytest.raises(StoreClosedError):
        producer.close(topics=["other"])  # whose consumers would wait for ever
    with pytest.raises(StoreClosedError):
        producer.close_topics("other")
    with pytest.raises(StoreClosedError):
        producer.send("other", 1)
    assert received(broker) == [1]


def test_nothing_is_gathered_behind_closing(broker: Broker) -> None:
    entered, leave = threading.Event(), threading.Event()

    class Slow(Failing):
        def send_message(self, topic: str, message: bytes) -> None:
            entered.set()
            leave.wait(30)
            super().send_message(topic, message)

    producer: StreamProducer[int] = StreamProducer(Slow(broker), batch_size=2)
    producer.send("t", 1)
    thread = threading.Thread(target=producer.close)
    thread.start()
    entered.wait()
    with pytest.raises(StoreClosedError):
        producer.send("other", 2)
    leave.set()
    thread.join()
    assert received(broker) == [1, "open"]


def test_an_object_that_cannot_be_encoded_is_left_out(broker: Broker) -> None:
    producer: StreamProducer[Any] = StreamProducer(broker.publisher(), batch_size=2)
    producer.send("t", 1)
    with pytest.raises(ProxyStoreError):
        producer.send("t", threading.Lock())
    producer.send("t", 2)
    producer.flush()
    assert received(broker) == [1, 2, "open"]


def test_what_cannot_be_sent_keeps_no_other_from_it(broker: Broker) -> None:
    def fail_for_text(batch: list[Any]) -> Any:
        return [one + 0 for one in batch]

    for bad, said, aggregator, error in (
        (threading.Lock(), {}, None, SerializationError),
        (0, {"lock": threading.Lock()}, None, TypeError),
        ("text", {}, fail_for_text, TypeError),
    ):
        producer: StreamProducer[Any] = StreamProducer(
            broker.publisher(), batch_size=3, aggregator=aggregator
        )
        producer.send("t", bad, metadata=said)
        producer.send("t", 1)
        with pytest.raises(error) as raised:
            producer.send("t", 2)
        assert "of the 3 objects gathered for the topic 't'" in raised.value.__notes__[0]
        producer.send("t", 3)
        producer.send("t", bad, metadata=said)
        with pytest.raises(error):
            producer.close_topics("t", ends=2)
        producer.close(topics=["t"])
        found = received(broker)
        assert found == ([1, 2, 3] if aggregator is None else [[1, 2], [3]])
        assert [received(broker), received(broker)] == [[], ["open"]]  # two ends


def test_what_waits_for_a_broker_is_sent_later(broker: Broker) -> None:
    publisher = Failing(broker)
    producer: StreamProducer[int] = StreamProducer(publisher, batch_size=2)
    publisher.failing.add("t")
    producer.send("t", 1)
    with pytest.raises(OSError, match="not t"):
        producer.send("t", 2)
    publisher.failing.clear()
    producer.send("t", 3)
    assert received(broker) == [1, 3, "open"]


def test_a_full_stream_raises_waits_or_drops(broker: Broker, store: Store[Any]) -> None:
    def producer(when_full: Any) -> StreamProducer[bytes]:
        return StreamProducer(
            broker.publisher(),
            default_store=store,
            max_bytes=50_000,
            when_full=when_full,
            timeout=0.05,
        )

    for when_full, error in (("raise", ChannelFullError), ("wait", ChannelTimeoutError)):
        full = producer(when_full)
        full.send("t", LARGE)
        full.send("t", LARGE)
        with pytest.raises(error):
            full.send("t", LARGE)
        assert received(broker) == [LARGE, LARGE, "open"]
        full.send("t", LARGE)  # there is room again
        assert received(broker) == [LARGE, "open"]
    dropping = producer("drop_oldest")
    for number in range(3):
        dropping.send("t", bytes([number]) * 20_000)
    assert [found[0] for found in received(broker)] == [1, 2, "o"]


def test_closing_ends_a_wait_for_room(broker: Broker) -> None:
    looked = threading.Event()

    class Watched(LocalConnector):
        def exists(self, key: LocalKey) -> bool:
            looked.set()
            return super().exists(key)

    store = Store[Any]("watched", Watched())
    producer: StreamProducer[bytes] = StreamProducer(
        broker.publisher(), default_store=store, max_bytes=1
    )
    producer.send("t", LARGE)
    raised: list[BaseException] = []

    def send() -> None:
        try:
            producer.send("t", LARGE)
        except StoreClosedError as error:
            raised.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    assert looked.wait(60)  # whether there is room: it waits
    producer.close()
    thread.join(60)
    assert len(raised) == 1
    assert "send an object" in str(raised[0])
    store.close()


class Failing:
    """A publisher that fails with the messages of some topics."""

    def __init__(self, broker: Broker) -> None:
        self.publisher = broker.publisher()
        self.failing: set[str] = set()

    def send_message(self, topic: str, message: bytes) -> None:
        if topic in self.failing:
            raise OSError(f"not {topic}")
        self.publisher.send_message(topic, message)

    def close(self) -> None:
        self.publisher.close()


def test_closing_a_topic_again_sends_the_ends_that_are_missing(broker: Broker) -> None:
    producer: StreamProducer[int] = StreamProducer(broker.publisher())
    consumer: StreamConsumer[int] = StreamConsumer(broker.subscriber("t"), timeout=30)
    for ends in (1, 3, 3):
        producer.close_topics("t", ends=ends)
    for _ in range(3):
        with pytest.raises(StopIteration):
            consumer.next_item()
    with pytest.raises(ChannelTimeoutError):
        consumer.next_item(timeout=0.1)
    producer.close()
    consumer.close()


def test_what_a_publisher_raises_late_is_not_published_again(broker: Broker) -> None:
    calls = []

    class Late(Failing):
        def send_message(self, topic: str, message: bytes) -> None:
            calls.append(topic)
            time.sleep(0.3)
            raise ConnectionError("lost, after it may have been sent")

    producer: StreamProducer[int] = StreamProducer(Late(broker))
    with pytest.raises(ConnectionError, match="may have been sent"):
        producer.send("t", 1)
    assert calls == ["t"]


def test_closing_tries_all_topics_and_raises_the_first_error(broker: Broker) -> None:
    publisher = Failing(broker)
    producer: StreamProducer[int] = StreamProducer(publisher, batch_size=10)
    consumer: StreamConsumer[int] = StreamConsumer(broker.subscriber("t"), timeout=60)
    for topic in ("a", "b", "t"):
        producer.send(topic, 1)
    publisher.failing |= {"a", "b"}
    with pytest.raises(Exception, match="not a"):
        producer.close(topics=["a", "b", "t"])
    assert list(consumer) == [1]


def test_the_end_is_sent_when_the_last_batch_fails(broker: Broker) -> None:
    def aggregate(_: list[int]) -> int:
        raise ArithmeticError

    producer = StreamProducer(broker.publisher(), aggregator=aggregate, batch_size=10)
    producer.send("t", 1)
    with pytest.raises(ArithmeticError):
        producer.close(topics=["t"])
    assert list(StreamConsumer[int](broker.subscriber("t"), timeout=60)) == []


def test_a_late_error_is_forgotten_when_all_was_sent(broker: Broker) -> None:
    publisher = Failing(broker)
    producer: StreamProducer[int] = StreamProducer(publisher, batch_size=10, batch_age=0.01)
    publisher.failing.add("t")
    producer.send("t", 1)
    while producer._topics["t"].failure is None:
        time.sleep(0.01)
    publisher.failing.clear()
    producer.flush()
    producer.close(topics=["t"])
    assert list(StreamConsumer[int](broker.subscriber("t"), timeout=60)) == [1]


def test_an_aged_batch_that_waits_for_room_keeps_no_other_waiting(
    broker: Broker, store: Store[Any]
) -> None:
    full: StreamProducer[bytes] = StreamProducer(
        broker.publisher(), default_store=store, max_bytes=1, batch_size=2, batch_age=0.01
    )
    full.send("full", LARGE)
    full.flush()
    full.send("full", LARGE)
    time.sleep(0.1)
    other: StreamProducer[int] = StreamProducer(broker.publisher(), batch_size=2, batch_age=0.01)
    other.send("t", 1)
    assert StreamConsumer[int](broker.subscriber("t"), timeout=30).next() == 1
    consumer: StreamConsumer[bytes] = StreamConsumer(broker.subscriber("full"), timeout=30)
    assert [consumer.next_object(), consumer.next_object()] == [LARGE, LARGE]
    full.close()


def test_no_thread_waits_longer_for_another_than_its_timeout(broker: Broker) -> None:
    entered, leave = threading.Event(), threading.Event()

    class Stuck(Failing):
        def send_message(self, topic: str, message: bytes) -> None:
            entered.set()
            leave.wait(30)

    producer: StreamProducer[int] = StreamProducer(Stuck(broker), timeout=0.05)
    thread = threading.Thread(target=producer.send, args=("t", 1))
    thread.start()
    entered.wait()
    with pytest.raises(ChannelTimeoutError, match="another thread"):
        producer.send("t", 2)
    with pytest.raises(ChannelTimeoutError, match="another thread"):
        producer.close()
    assert not leave.is_set() and thread.is_alive()
    leave.set()
    thread.join()


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"when_full": "explode", "max_bytes": 1}, {"consumers": ["a", "a"]}],
)
def test_wrong_arguments_are_refused(broker: Broker, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        StreamProducer(broker.publisher(), **wrong)


def test_a_publisher_has_methods() -> None:
    with pytest.raises(TypeError, match="send_message"):
        StreamProducer(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="next_message"):
        StreamConsumer(object())  # type: ignore[arg-type]
