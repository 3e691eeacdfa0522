"""Not here: what endpoints send each other is no Python object."""

from __future__ import annotations

raise ImportError(
    "proxystore_rs has no endpoint.messages: what endpoints send each "
    "other are frames of a native daemon, described in docs/protocol-endpoint.md",
    name=__name__,
)
