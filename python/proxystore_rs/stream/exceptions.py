"""Exceptions of streams; what a store or a broker fails with is in [`proxystore_rs.exceptions`][]."""

from __future__ import annotations

from proxystore_rs.exceptions import ProxyStoreError

__all__ = ["TopicClosedError"]


class TopicClosedError(ProxyStoreError):
    """An object was sent to a topic after that was closed.

    Remedy: send before `close_topics`, or to another topic.
    """
