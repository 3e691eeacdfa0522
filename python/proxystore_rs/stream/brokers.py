"""Brokers: each carries the messages of streams over one kind of channel.

>>> broker = open_broker('memory://brokers')
>>> subscriber = broker.subscriber('greetings')
>>> broker.publisher().send_message('greetings', b'hello')
>>> subscriber.next_message()
b'hello'
"""

from __future__ import annotations

from typing import Any

from proxystore_rs._core import Broker, BrokerPublisher, BrokerSubscriber

__all__ = ["Broker", "BrokerPublisher", "BrokerSubscriber", "open_broker"]


def open_broker(url: str, **options: Any) -> Broker:
    """Return the broker of a URL; nothing is connected to before an end of it is made.

    Args:
        url: One of

            - `memory://NAME`: queues in the memory of this process;
            - `shm://NAME`: a queue in shared memory, for the processes of this host;
            - `list+redis://HOST:PORT/DATABASE`: lists of Redis, whose items go to one subscriber;
            - `pubsub+redis://HOST:PORT/DATABASE`: messages to all who listen, lost for others;
            - `stream+redis://HOST:PORT/DATABASE`: streams of Redis, with groups, delivered until
              acknowledged;
            - `zmq+tcp://HOST:PORT`: ZeroMQ; publishers bind the port, subscribers connect to it;
            - `nats://HOST:PORT`: NATS JetStream, with groups, delivered until acknowledged.

            After the `+` there may be any URL of Redis, such as `rediss://` or `redis+unix://`.
        options: For Redis: `username`, `password`, `ca_file`, `cert_file`, `key_file`, `timeout`.

    Raises:
        StoreConfigError: The URL names no broker of this build.

    >>> open_broker('memory://here').guarantee
    'at_least_once'
    """
    return Broker(url, **options)
