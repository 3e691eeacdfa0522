"""Types that the signatures of stores are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from proxystore_rs.connectors.protocols import Connector
from proxystore_rs.serialize import BytesLike

__all__ = ["ConnectorKeyT", "ConnectorT", "DeserializerT", "SerializerT"]

ConnectorT = TypeVar("ConnectorT", bound=Connector[Any])
"""Type of a connector."""

ConnectorKeyT: TypeAlias = tuple[Any, ...]
"""A connector's key, which is a named tuple."""

SerializerT: TypeAlias = Callable[[Any], BytesLike]
"""Turns an object into bytes."""

DeserializerT: TypeAlias = Callable[[BytesLike], Any]
"""Turns bytes back into the object."""
