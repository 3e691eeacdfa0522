"""The package `proxystore_rs` under the name of the package whose interface it has.

The modules beside this one are those of `proxystore_rs`: each puts that one in its own place. They
are written by `scripts/compat-modules`.
"""

from __future__ import annotations

import os

import proxystore_rs
from proxystore_rs._alias import alias

__version__ = "1.1.0+rs.1"
__all__ = ["__version__"]

_ABSENT = {
    "globus": "Globus authentication",
    "connectors.globus": "the Globus connector",
}


def _explain(fullname: str) -> str | None:
    for name, subject in _ABSENT.items():
        if f"{fullname}.".startswith(f"proxystore.{name}."):
            return (
                f"No module named {fullname!r}: this proxystore is provided by proxystore-rs "
                f"{proxystore_rs.__version__}, which does not have {subject} yet. Programs that "
                "need them need the other distribution: pip install proxystore==1.1.0"
            )
    return None


def _check_files(folder: str) -> None:
    own = os.path.dirname(proxystore_rs.__file__)
    foreign = sorted(
        name
        for name in os.listdir(folder)
        if (name.endswith(".py") or os.path.exists(os.path.join(folder, name, "__init__.py")))
        and not os.path.exists(os.path.join(own, name))
    )
    if foreign:
        raise ImportError(
            f"{folder} has files of two distributions that are both called proxystore: this one, "
            f"on top of proxystore-rs, and another ({', '.join(foreign)}). Remove both and install "
            f"one again: pip uninstall -y proxystore; rm -r {folder}; pip install the one you want"
        )


_check_files(os.path.dirname(os.path.abspath(__file__)))
alias("proxystore", "proxystore_rs")
