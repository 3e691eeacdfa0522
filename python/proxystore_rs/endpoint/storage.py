"""Not here: objects are kept by a native daemon."""

from __future__ import annotations

raise ImportError(
    "proxystore_rs has no endpoint.storage: objects are kept by a native daemon. How "
    "much, and where, is in its config.toml, section [storage] "
    "(proxystore_rs.endpoint.config.EndpointStorageConfig)",
    name=__name__,
)
