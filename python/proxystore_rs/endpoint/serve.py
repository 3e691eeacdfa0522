"""Not here: the endpoint is a native daemon."""

from __future__ import annotations

raise ImportError(
    "proxystore_rs has no endpoint.serve: the endpoint is a native daemon with a protocol of "
    "its own, and not a web application. Start one with "
    "proxystore_rs.endpoint.commands.start_endpoint or `proxystore endpoint start NAME`",
    name=__name__,
)
