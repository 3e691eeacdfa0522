"""Connectors: what moves bytes to and from a channel."""
