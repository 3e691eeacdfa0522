"""Streams over clients of Kafka, which are the caller's: those of `confluent_kafka`.

That package is no dependency of this one.
"""

from __future__ import annotations

from typing import Any, Self

__all__ = ["KafkaPublisher", "KafkaSubscriber"]

_SLICE = 0.25
"""How many seconds a poll waits, so that Ctrl-C is noticed."""


class KafkaPublisher:
    """Publishes by a producer of Kafka.

    Args:
        client: The producer, a `confluent_kafka.Producer`.
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def close(self) -> None:
        """Wait until the broker has everything."""
        self.client.flush()

    def send_message(self, topic: str, message: bytes) -> None:
        """Publish a message, and wait until the broker has it.

        Raises:
            confluent_kafka.KafkaException: It could not be delivered.
        """
        errors: list[Any] = []
        self.client.produce(topic, message, on_delivery=lambda error, _: errors.append(error))
        self.client.flush()
        _raise_any(*errors)


class KafkaSubscriber:
    """Receives by a consumer of Kafka, which subscribed to its topics.

    Args:
        client: The consumer, a `confluent_kafka.Consumer`.
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        return self.next_message()

    def close(self) -> None:
        """Close the consumer."""
        self.client.close()

    def next_message(self) -> bytes:
        """Return the next message.

        Raises:
            confluent_kafka.KafkaException: The broker reports an error.
        """
        while (message := self.next_message_within(_SLICE)) is None:
            pass
        return message

    def next_message_within(self, seconds: float) -> bytes | None:
        """Return the next message, or None if none came in so many seconds."""
        message = self.client.poll(seconds)
        if message is None:
            return None
        _raise_any(message.error())
        value: bytes = message.value()
        return value


def _raise_any(*errors: Any) -> None:
    """Raise the error that a client reported, if it did."""
    for error in errors:
        if error is not None:
            import confluent_kafka  # type: ignore[import-not-found,unused-ignore]

            raise confluent_kafka.KafkaException(error)
