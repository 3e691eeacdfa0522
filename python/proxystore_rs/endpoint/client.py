"""Objects of an endpoint by the address of its daemon, one call each.

Programs that do more keep an
[`EndpointConnector`][proxystore_rs.connectors.endpoint.EndpointConnector], which keeps its
connection. The token that the daemon wants is read in the directory of the endpoint, where it is
configured on this site; for a daemon at `PROXYSTORE_ENDPOINT_ADDRESS`, it is in
`PROXYSTORE_ENDPOINT_TOKEN`.

A key is the first part of an [`EndpointKey`][proxystore_rs.connectors.endpoint.EndpointKey], its
`object_id`: letters, digits, `-`, `_` and `.`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from proxystore_rs.connectors.endpoint import EndpointConnector, EndpointKey
from proxystore_rs.endpoint import _cards
from proxystore_rs.exceptions import EndpointConfigError

if TYPE_CHECKING:
    import uuid

__all__ = ["evict", "exists", "get", "put"]

_ADDRESS, _TOKEN = "PROXYSTORE_ENDPOINT_ADDRESS", "PROXYSTORE_ENDPOINT_TOKEN"


def evict(
    address: str, key: str, endpoint: uuid.UUID | str | None = None, session: Any = None
) -> None:
    """Remove an object; absent is fine.

    Args:
        address: `tcp://HOST:PORT` of a daemon, or `http://HOST:PORT` as programs for `proxystore`
            have it.
        key: The object.
        endpoint: The endpoint that has it, if it is not this one.
        session: Not used.

    Raises:
        EndpointConnectorError: The daemon does not answer, or its peer does not.
    """
    with _connected(address) as connector:
        connector.evict(_key(connector, key, endpoint))


def exists(
    address: str, key: str, endpoint: uuid.UUID | str | None = None, session: Any = None
) -> bool:
    """Whether there is an object; arguments and errors as in `evict`."""
    with _connected(address) as connector:
        return connector.exists(_key(connector, key, endpoint))


def get(
    address: str, key: str, endpoint: uuid.UUID | str | None = None, session: Any = None
) -> bytes | None:
    """Return an object, or None; arguments and errors as in `evict`."""
    with _connected(address) as connector:
        found = connector.get(_key(connector, key, endpoint))
        return None if found is None else bytes(found)


def put(
    address: str,
    key: str,
    data: bytes,
    endpoint: uuid.UUID | str | None = None,
    session: Any = None,
) -> None:
    """Store an object, replacing what is there; arguments and errors as in `evict`."""
    with _connected(address) as connector:
        connector.set(_key(connector, key, endpoint), data)


def _connected(address: str) -> EndpointConnector:
    place = (address.partition("://")[2] or address).rstrip("/")
    known = [card for _, card in _cards.below() if card.get("tcp")]
    for card in known:
        if card["tcp"] == place:
            return EndpointConnector([card["id"]])
    if os.environ.get(_ADDRESS) == place and os.environ.get(_TOKEN):
        return EndpointConnector([place])
    raise EndpointConfigError(
        f"no endpoint configured on this site is at {address!r}; those with an address are "
        + (", ".join(f"{card['name']} (tcp://{card['tcp']})" for card in known) or "none")
        + f". For one that is configured elsewhere, set {_ADDRESS} (HOST:PORT) and {_TOKEN}"
    )


def _key(connector: EndpointConnector, key: str, endpoint: uuid.UUID | str | None) -> EndpointKey:
    if endpoint is None:
        return EndpointKey(key, connector.endpoints[0])
    found = _cards.called(str(endpoint))
    return EndpointKey(key, found[1]["id"] if found else str(endpoint))
