"""`python -m proxystore_rs.endpoint.cli`: the program `proxystore` with the command `endpoint`."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from proxystore_rs.endpoint._binary import binary

__all__ = ["cli"]


def cli() -> NoReturn:
    """Become the program `proxystore endpoint`, with the arguments of this process."""
    try:
        program = binary()
    except FileNotFoundError as error:
        sys.exit(f"Error: {error}")
    sys.stdout.flush()
    os.execv(program, ["proxystore", "endpoint", *sys.argv[1:]])


if __name__ == "__main__":
    cli()
