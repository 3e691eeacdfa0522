"""Streams over a Redis server, by the native brokers `pubsub+redis://` and `list+redis://`.

For events that wait for their consumers, and come again where one is killed, see `stream+redis://`
in [`proxystore_rs.stream.brokers`][].
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from proxystore_rs._core import BrokerPublisher, BrokerSubscriber

__all__ = [
    "RedisPublisher",
    "RedisQueuePublisher",
    "RedisQueueSubscriber",
    "RedisSubscriber",
]

_OPTIONS = {
    "username": "username",
    "password": "password",
    "socket_timeout": "timeout",
    "ssl_ca_certs": "ca_file",
    "ssl_certfile": "cert_file",
    "ssl_keyfile": "key_file",
}
"""Arguments of `redis.Redis` that there are here, by the names of the broker's options."""


def _broker(
    kind: str, hostname: str, port: int, given: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return URL and options of a broker; arguments are those of `redis.Redis`."""
    given = dict(given)
    tls = "s" if given.pop("ssl", False) else ""
    database = given.pop("db", 0)
    options = {}
    for name, option in _OPTIONS.items():
        value = given.pop(name, None)
        if value is not None:
            options[option] = os.path.abspath(value) if option.endswith("_file") else value
    if given:
        known = ", ".join(["db", "ssl", *_OPTIONS])
        raise TypeError(f"unknown arguments {', '.join(sorted(given))}; there are {known}")
    host = f"[{hostname}]" if ":" in hostname else hostname
    return f"{kind}+redis{tls}://{host}:{port}/{database}", options


class RedisPublisher(BrokerPublisher):
    """Publishes to all who listen; there is nothing for those who come later.

    Args:
        hostname: Host of the server.
        port: Its port.
        kwargs: As of `redis.Redis`: username, password, db, ssl, ssl_ca_certs, ssl_certfile,
            ssl_keyfile, socket_timeout.
    """

    def __init__(self, hostname: str, port: int, **kwargs: Any) -> None:
        url, options = _broker("pubsub", hostname, port, kwargs)
        self._open(url, **options)


class RedisSubscriber(BrokerSubscriber):
    """Receives what is published to some topics from now on.

    Args:
        hostname: Host of the server.
        port: Its port.
        topic: The topic, or several.
        kwargs: As of `RedisPublisher`.
    """

    def __init__(
        self,
        hostname: str,
        port: int,
        topic: str | Sequence[str],
        **kwargs: Any,
    ) -> None:
        url, options = _broker("pubsub", hostname, port, kwargs)
        self._open(url, topic, **options)


class RedisQueuePublisher(BrokerPublisher):
    """Publishes to lists, one for each topic, that subscribers share.

    Args:
        hostname: Host of the server.
        port: Its port.
        kwargs: As of `RedisPublisher`.
    """

    def __init__(self, hostname: str, port: int, **kwargs: Any) -> None:
        url, options = _broker("list", hostname, port, kwargs)
        self._open(url, **options)


class RedisQueueSubscriber(BrokerSubscriber):
    """Receives from a list that is shared with other subscribers.

    Args:
        hostname: Host of the server.
        port: Its port.
        topic: The topic.
        timeout: How many seconds to wait for a message; then a `TimeoutError` is raised. None for as
            long as it takes.
        kwargs: As of `RedisPublisher`.
    """

    def __init__(
        self,
        hostname: str,
        port: int,
        topic: str,
        *,
        timeout: int | None = None,
        **kwargs: Any,
    ) -> None:
        url, options = _broker("list", hostname, port, kwargs)
        self._timeout = timeout
        self._open(url, topic, **options)

    def next_message(self, timeout: float | None = None) -> bytes:
        """Return the next message.

        Raises:
            TimeoutError: None came in time.
        """
        return super().next_message(self._timeout if timeout is None else timeout)
