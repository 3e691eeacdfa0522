"""The package `proxystore_ex`: connectors for distributed memory and DAOS, and a plugin for Dask.

It is installed by itself (`pip install proxystore-ex`), and imports `proxystore`, which the compat
distribution of this package provides. `proxystore_rs.ex` and its modules are that package and its
modules.
"""

from __future__ import annotations

import sys

from proxystore_rs._alias import alias

try:
    import proxystore_ex
except ImportError as error:
    raise ImportError(
        "proxystore_rs.ex is the package proxystore_ex, which cannot be imported here "
        f"({error}). Install it with: pip install proxystore-ex",
        name=error.name,
    ) from error

alias(__name__, "proxystore_ex")
sys.modules[__name__] = proxystore_ex
