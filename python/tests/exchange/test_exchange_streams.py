"""Streams that one language feeds, and the other consumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from exchange_peer import Rust
from exchange_samples import check, sample
from redis_server import need_redis

from proxystore_rs.store import Store
from proxystore_rs.stream import StreamConsumer, StreamProducer
from proxystore_rs.stream.brokers import open_broker

KINDS = ("text", "bytes-large", "array:u2:C:2x3x4", "array:f8:C:100x100")


@pytest.fixture
def broker_url(_urls: Callable[[str], str]) -> str:
    """Streams of Redis."""
    need_redis()
    return f"stream+{_urls('redis')}"


@pytest.mark.parametrize("kind", KINDS)
def test_rust_consumes_what_python_produces(
    rust: Rust, store: Store[Any], broker_url: str, kind: str
) -> None:
    topic = f"to-rust-{kind}-{store.name}"
    rust.tell("consume", kind, broker_url, topic)
    publisher = open_broker(broker_url).publisher()
    with StreamProducer[Any](publisher, default_store=store, batch_size=2) as producer:
        for number in range(3):
            producer.send(topic, sample(kind), metadata={"number": number, "more": [1.5, "x"]})
        producer.close_topics(topic)
    assert rust.answer() == "Some(0) Some(1) Some(2)"


@pytest.mark.parametrize("kind", KINDS)
def test_python_consumes_what_rust_produces(
    rust: Rust, store: Store[Any], url: str, broker_url: str, kind: str
) -> None:
    topic = f"to-python-{kind}-{store.name}"
    consumer: StreamConsumer[Any] = StreamConsumer(
        open_broker(broker_url).subscriber(topic), timeout=60
    )
    rust.ask("produce", kind, broker_url, topic, url, 3)
    numbers = []
    for metadata, proxy in consumer.iter_with_metadata():
        check(proxy, kind)
        numbers.append(metadata["number"])
    assert numbers == [0, 1, 2]
    consumer.close()
