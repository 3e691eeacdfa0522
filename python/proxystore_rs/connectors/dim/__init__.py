"""Nothing: the connectors for distributed memory are in `proxystore_ex.connectors.dim`."""

from __future__ import annotations

import warnings

warnings.warn(
    "The connectors for distributed memory (Margo, UCX, ZeroMQ) are not in this package but in "
    "proxystore_ex.connectors.dim; install them with: pip install proxystore-ex",
    UserWarning,
    stacklevel=2,
)
