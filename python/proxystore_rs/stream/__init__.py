"""Streams: objects through a store, and events of them through a broker.

Whoever receives an event gets a proxy, and only who uses the object fetches it. A dispatcher can so
pass on objects that it never touches; small ones travel inside their events.

>>> from proxystore_rs.store import open_store
>>> from proxystore_rs.stream import StreamConsumer, StreamProducer
>>> from proxystore_rs.stream.brokers import open_broker
>>> broker, store = open_broker('memory://docs'), open_store('memory://stream-docs')
>>> consumer = StreamConsumer(broker.subscriber('frames'))
>>> with StreamProducer(broker.publisher(), default_store=store) as producer:
...     producer.send('frames', [1, 2, 3], metadata={'beam': 'left'})
...     producer.close_topics('frames')
>>> [(metadata, sum(frame)) for metadata, frame in consumer.iter_with_metadata()]
[({'beam': 'left'}, 6)]
>>> consumer.close()
>>> store.close()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxystore_rs._lazy import lazy

if TYPE_CHECKING:
    from proxystore_rs.stream._consumer import StreamConsumer
    from proxystore_rs.stream._item import StreamItem
    from proxystore_rs.stream._producer import StreamProducer

__all__ = ["StreamConsumer", "StreamItem", "StreamProducer"]

__getattr__, __dir__ = lazy(
    __name__,
    {"StreamConsumer": "_consumer", "StreamItem": "_item", "StreamProducer": "_producer"},
)
