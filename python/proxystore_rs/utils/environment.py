"""Where this process runs."""

from __future__ import annotations

import os

__all__ = ["home_dir", "hostname"]


def home_dir() -> str:
    """Return the absolute path of the directory for configurations and logs.

    It is `$PROXYSTORE_HOME`, else `$XDG_DATA_HOME/proxystore`, else `~/.local/share/proxystore`.
    A variable that is empty counts as not set. The directory may not exist yet.
    """
    path = os.environ.get("PROXYSTORE_HOME")
    if not path:
        data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
        path = os.path.join(data, "proxystore")
    return os.path.abspath(path)


def hostname() -> str:
    """Return the name of this host."""
    import socket  # Costs more to import than the rest of this module.

    return socket.gethostname()
