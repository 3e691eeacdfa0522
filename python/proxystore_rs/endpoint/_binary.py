"""The program `proxystore`, which is the daemon and its command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

__all__ = ["binary", "run"]

VARIABLE = "PROXYSTORE_BINARY"


def binary() -> str:
    """Return the path of the program.

    It is `$PROXYSTORE_BINARY`, else the one beside this interpreter, else the first on the path.

    Raises:
        FileNotFoundError: There is none.
    """
    named = os.environ.get(VARIABLE)
    beside = os.path.join(os.path.dirname(sys.executable or ""), "proxystore")
    for candidate in (named,) if named else (beside, shutil.which("proxystore")):
        if candidate and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    if named:
        raise FileNotFoundError(f"${VARIABLE} names {named!r}, which is no program")
    raise FileNotFoundError(
        "the program `proxystore`, which endpoints are, is neither beside this Python nor on the "
        "path. Install it with: pip install 'proxystore-rs[endpoints]'; or say where it is in "
        f"${VARIABLE}"
    )


def run(arguments: list[str], home: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program, and return what it wrote and its exit status.

    Args:
        arguments: What follows the program's name.
        home: The directory below which endpoints are configured; by default as for this process.
    """
    environment = dict(os.environ)
    if home is not None:
        environment["PROXYSTORE_HOME"] = os.path.abspath(home)
    return subprocess.run(
        [binary(), *arguments], env=environment, capture_output=True, text=True, check=False
    )
