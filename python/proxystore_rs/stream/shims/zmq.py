"""Streams over ZeroMQ, by the native broker `zmq+tcp://`, which needs no library of ZeroMQ."""

from __future__ import annotations

from proxystore_rs._core import BrokerPublisher, BrokerSubscriber

__all__ = ["ZeroMQPublisher", "ZeroMQSubscriber"]


def _url(address: str, port: int) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"zmq+tcp://{host}:{port}"


class ZeroMQPublisher(BrokerPublisher):
    """Publishes to all who are connected.

    Args:
        address: Where to bind; `"*"` for all addresses of this host.
        port: The port to bind.
    """

    def __init__(self, address: str, port: int) -> None:
        self._open(_url(address, port))


class ZeroMQSubscriber(BrokerSubscriber):
    """Receives what is published while it is connected.

    Args:
        address: Host of the publisher.
        port: Its port.
        topic: The topic, or nothing for all.
    """

    def __init__(self, address: str, port: int, *, topic: str = "") -> None:
        if topic:
            self._open(_url(address, port), topic)
        else:
            self._open_all(_url(address, port))
