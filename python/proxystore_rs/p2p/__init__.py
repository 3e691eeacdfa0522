"""Not here: peers are the daemon's affair."""

from __future__ import annotations

raise ImportError(
    "proxystore_rs has no p2p: endpoints reach each other by QUIC in a native daemon, and meet at a "
    "relay that is a program of its own. Run one with `proxystore relay`, and name it when an "
    "endpoint is configured; to see what keeps peers apart, run `proxystore doctor`",
    name=__name__,
)
