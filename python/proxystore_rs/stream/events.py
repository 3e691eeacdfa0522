"""Events, for those who write publishers and subscribers of events.

Streams have no need of these classes otherwise: their messages are made and read in native code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from proxystore_rs import trust
from proxystore_rs._core import _message_from_bytes, _message_to_bytes
from proxystore_rs.store.config import StoreConfig
from proxystore_rs.store.factory import StoreFactory

__all__ = [
    "EndOfStreamEvent",
    "Event",
    "EventBatch",
    "NewObjectEvent",
    "NewObjectKeyEvent",
    "bytes_to_event",
    "dict_to_event",
    "event_to_bytes",
    "event_to_dict",
]


@dataclass
class EndOfStreamEvent:
    """A producer closed the topic."""

    topic: str

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EndOfStreamEvent:
        """Make one of what `event_to_dict` returned, without the type."""
        return cls(**data)


@dataclass
class NewObjectEvent:
    """A new object, which is inside the event."""

    topic: str
    obj: Any
    metadata: dict[str, Any]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NewObjectEvent:
        """Make one of what `event_to_dict` returned, without the type."""
        return cls(**data)


@dataclass
class NewObjectKeyEvent:
    """A new object, which is in a store.

    Args:
        topic: The topic.
        key_type: Path of the class of the key.
        raw_key: The fields of the key.
        evict: Whether the object is freed when it was used.
        metadata: What the producer says of it.
        store_config: From which the store can be opened.
    """

    topic: str
    key_type: str
    raw_key: list[Any]
    evict: bool
    metadata: dict[str, Any]
    store_config: StoreConfig

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NewObjectKeyEvent:
        """Make one of what `event_to_dict` returned, without the type."""
        config = StoreConfig.model_validate(data["store_config"])
        return cls(**{**data, "raw_key": list(data["raw_key"]), "store_config": config})

    @classmethod
    def from_key(
        cls,
        key: tuple[Any, ...],
        *,
        evict: bool,
        metadata: dict[str, Any],
        store_config: StoreConfig,
        topic: str,
    ) -> NewObjectKeyEvent:
        """Make one of a key."""
        class_ = type(key)
        return cls(
            topic=topic,
            key_type=f"{class_.__module__}.{class_.__qualname__}",
            raw_key=list(key),
            evict=evict,
            metadata=metadata,
            store_config=store_config,
        )

    def get_key(self) -> Any:
        """Return the key.

        Raises:
            UntrustedError: Its class is not one that this process may import.
        """
        module, _, name = self.key_type.rpartition(".")
        class_ = trust._key_class(module, name)
        return class_(*self.raw_key)


Event: TypeAlias = EndOfStreamEvent | NewObjectEvent | NewObjectKeyEvent
"""An event of one of the three kinds."""


@dataclass
class EventBatch:
    """Events of one topic that are published together."""

    topic: str
    events: list[Event] = field()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EventBatch:
        """Make one of what `event_to_dict` returned, without the type."""
        events = [dict_to_event(dict(event)) for event in data["events"]]
        return cls(data["topic"], events)  # type: ignore[arg-type]  # no batches of batches


_KINDS: dict[str, type[Event | EventBatch]] = {
    "END_OF_STREAM": EndOfStreamEvent,
    "EVENT_BATCH": EventBatch,
    "NEW_OBJECT": NewObjectEvent,
    "NEW_OBJECT_KEY": NewObjectKeyEvent,
}


def event_to_dict(event: Event | EventBatch) -> dict[str, Any]:
    """Return the fields of an event, and its kind as `"event_type"`.

    >>> event_to_dict(EndOfStreamEvent('frames'))
    {'event_type': 'END_OF_STREAM', 'topic': 'frames'}
    """
    kind = next(kind for kind, class_ in _KINDS.items() if type(event) is class_)
    fields = dict(vars(event))
    if isinstance(event, EventBatch):
        fields["events"] = [event_to_dict(one) for one in event.events]
    if isinstance(event, NewObjectKeyEvent):
        fields["store_config"] = event.store_config.model_dump()
    return {"event_type": kind, **fields}


def dict_to_event(data: dict[str, Any]) -> Event | EventBatch:
    """Return the event of what `event_to_dict` returned; takes `"event_type"` out of it."""
    return _KINDS[data.pop("event_type")].from_dict(data)


def event_to_bytes(event: Event | EventBatch) -> bytes:
    """Return an event, or a batch, as the message that travels through brokers.

    >>> bytes_to_event(event_to_bytes(NewObjectEvent('frames', [1, 2], {})))
    NewObjectEvent(topic='frames', obj=[1, 2], metadata={})
    """
    alone = not isinstance(event, EventBatch)
    events = [event] if not isinstance(event, EventBatch) else event.events
    return _message_to_bytes(event.topic, [_to_part(one) for one in events], alone)


def bytes_to_event(s: bytes) -> Event | EventBatch:
    """Return the event or the batch of a message.

    An object that travels inside its event is decoded for it.

    Raises:
        CorruptObjectError: The bytes are no message of a stream.
        UntrustedError: There is a pickle inside, and the process takes only data.
    """
    topic, parts, alone = _message_from_bytes(s)
    events = [_of_part(topic, *part) for part in parts]
    return events[0] if alone and len(events) == 1 else EventBatch(topic, events)


def _to_part(event: Event) -> tuple[str, Any, dict[str, Any] | None]:
    if isinstance(event, NewObjectKeyEvent):
        factory = StoreFactory[Any, Any](event.get_key(), event.store_config, evict=event.evict)
        return "key", factory, event.metadata
    if isinstance(event, NewObjectEvent):
        return "object", event.obj, event.metadata
    return "end", None, None


def _of_part(topic: str, kind: str, object_: Any, metadata: dict[str, Any]) -> Event:
    if kind == "end":
        return EndOfStreamEvent(topic)
    if kind == "object":
        return NewObjectEvent(topic, object_, metadata)
    return NewObjectKeyEvent.from_key(
        object_.key,
        evict=object_.evict,
        metadata=metadata,
        store_config=object_.store_config,
        topic=topic,
    )
