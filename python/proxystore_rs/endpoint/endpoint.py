"""Not here: the endpoint is a native daemon."""

from __future__ import annotations

raise ImportError(
    "proxystore_rs has no endpoint.endpoint: the endpoint is a native daemon, not an object. Start "
    "one with proxystore_rs.endpoint.commands.start_endpoint or `proxystore endpoint start NAME`, "
    "and use it by proxystore_rs.connectors.endpoint.EndpointConnector",
    name=__name__,
)
