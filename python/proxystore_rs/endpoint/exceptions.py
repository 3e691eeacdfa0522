"""Exceptions about endpoints, under the names that `proxystore` gives them."""

from __future__ import annotations

from proxystore_rs.exceptions import EndpointConnectorError, EndpointFullError

__all__ = [
    "FileDumpNotAvailableError",
    "ObjectSizeExceededError",
    "PeerRequestError",
    "PeeringNotAvailableError",
]


class FileDumpNotAvailableError(Exception):
    """Never raised here: whether objects outlive the daemon is a setting of its storage."""


ObjectSizeExceededError = EndpointFullError
"""The endpoint has no room for an object, or takes none of its length."""

PeeringNotAvailableError = EndpointConnectorError
"""The endpoint has no peers."""

PeerRequestError = EndpointConnectorError
"""A request to a peer failed."""
