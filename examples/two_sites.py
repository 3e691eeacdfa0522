"""Two sites on one machine: a proxy is made at one, and resolved at the other.

Each site is an endpoint with a home of its own. The consumer runs in a process that knows the home of the second
site alone; what it gets is a line of text. The endpoints find each other by address, or meet at a relay.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from proxystore_rs.connectors.endpoint import EndpointConnector
from proxystore_rs.endpoint.commands import binary
from proxystore_rs.endpoint.config import get_configs
from proxystore_rs.store import Store

CONSUMER = """
import json, sys, time
from proxystore_rs.proxy import Proxy

for text in sys.stdin:
    start = time.perf_counter()
    total = float(Proxy.from_text(text.strip()).sum())
    print(json.dumps([total, time.perf_counter() - start]), flush=True)
"""


class Site:
    """An endpoint, and the environment of the programs there."""

    def __init__(self, program: str, folder: Path, name: str, secret: Path) -> None:
        self.name = name
        self.home = folder / name
        self.environment = os.environ | {"PROXYSTORE_HOME": str(self.home)}
        self._program = program
        self.call("configure", name, "--group-secret-file", str(secret), "--peer-port", "0")
        self.id = self.call("show", name, "--id").strip()

    def call(self, *words: str) -> str:
        """Run a command on endpoints, and return what it printed."""
        command = [self._program, "endpoint", *words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"two_sites: {' '.join(command)}\n{done.stderr}")
        return done.stdout
