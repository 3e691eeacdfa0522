"""The program `proxystore`, which is the daemon and its command."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable

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


def run(
    arguments: list[str],
    home: str | None = None,
    *,
    told: Callable[[str], None],
    given: str = "",
) -> int:
    """Run the program, tell each line that it writes at once, and return its exit status.

    Args:
        arguments: What follows the program's name.
        home: The directory below which endpoints are configured; by default as for this process.
        told: Is called with each line.
        given: What it reads from its standard input, at most a few lines.
    """
    environment = dict(os.environ)
    if home is not None:
        environment["PROXYSTORE_HOME"] = os.path.abspath(home)
    with subprocess.Popen(
        [binary(), *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,  # an interrupt reaches it by this process alone
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(given)
        while True:
            try:
                for line in process.stdout:
                    told(line.rstrip())
                return process.wait()
            except KeyboardInterrupt:
                # It ends in order at the first, and at once at the second.
                process.terminate()
