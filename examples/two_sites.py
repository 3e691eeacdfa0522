"""Two sites on one machine: a proxy is made at one, and resolved at the other.

Each site is an endpoint with a home of its own, and they meet at a relay, as they would on two machines. The consumer
runs in a process that knows the home of the second site alone; what it gets is a line of text, its reference to an
array at the first.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from proxystore_rs.connectors.endpoint import EndpointConnector
from proxystore_rs.endpoint.commands import binary
from proxystore_rs.store import Store

CONSUMER = """
import json, sys, time
from proxystore_rs.proxy import Proxy

for text in sys.stdin:
    start = time.perf_counter()
    total = float(Proxy.from_text(text.strip()).sum())
    print(json.dumps([total, time.perf_counter() - start]), flush=True)
"""


class Relay:
    """A relay on this machine, and the line that invites endpoints to it."""

    def __init__(self, program: str, home: Path) -> None:
        port, udp_port = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
        options = ["--name", "127.0.0.1", "--port", str(port), "--udp-port", str(udp_port)]
        self._command = [program, "--home", str(home), "relay", *options]
        self._log = home / "relay.txt"
        home.mkdir()
        self.invitation = output([*self._command, "--invite"])
        config = home / "relay" / "config.toml"
        # No page, so that several examples may run at once.
        config.write_text(config.read_text().replace('web = "127.0.0.1:7843"', 'web = ""'))

    def __enter__(self) -> Relay:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():  # which says where it is
            sys.exit(f"two_sites: the relay does not start\n{self._log.read_text()}")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.terminate()
        self._process.communicate()


class Site:
    """An endpoint, and the environment of the programs of its site."""

    def __init__(self, program: str, folder: Path, name: str, *options: str) -> None:
        self.name = name
        self.environment = os.environ | {"PROXYSTORE_HOME": str(folder / name)}
        self._program = program
        self.call("configure", name, *options)
        self.id = self.call("show", name, "--id")

    def call(self, *words: str) -> str:
        """Run a command on endpoints, and return what it printed."""
        return output([self._program, "endpoint", *words], self.environment)

    def __enter__(self) -> Site:
        self.call("start", self.name)
        return self

    def __exit__(self, *_exception: object) -> None:
        self.call("stop", self.name)


def output(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Run a command, and return what it printed."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"two_sites: {' '.join(command)}\n{done.stderr}")
    return done.stdout.strip()


def free_port(kind: socket.SocketKind) -> int:
    """Return a port that nobody has."""
    with socket.socket(socket.AF_INET, kind) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main() -> None:
    """Make two sites, and send objects of growing size from the one to the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--largest", type=int, default=100_000_000, help="bytes (%(default)s)")
    largest = parser.parse_args().largest
    try:
        program = binary()
    except FileNotFoundError as error:
        sys.exit(f"two_sites: {error}")

    with tempfile.TemporaryDirectory(prefix="two-sites-") as folder, ExitStack() as stack:
        relay = stack.enter_context(Relay(program, Path(folder) / "relay"))
        join = ("--join", relay.invitation)
        a = stack.enter_context(Site(program, Path(folder), "site-a", *join, "--new-group-secret"))
        invitation = a.call("invite", a.name)
        b = stack.enter_context(Site(program, Path(folder), "site-b", "--join", invitation))
        print(b.call("ping", b.name, a.id))

        os.environ |= a.environment  # this process is at A
        consumer = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", CONSUMER],
                env=b.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert consumer.stdin is not None and consumer.stdout is not None
        with Store("two-sites", EndpointConnector([a.name], clear=True)) as store:
            print(f"{'bytes':>12} {'reference':>10} {'put at A':>10} {'used at B':>10}")
            size = 1000
            while size <= largest:
                array = np.arange(size // 8, dtype=np.float64)
                start = time.perf_counter()
                text = store.proxy(array, evict=True).to_text()
                put = time.perf_counter() - start
                print(text, file=consumer.stdin, flush=True)
                total, used = json.loads(consumer.stdout.readline() or "[null, 0]")
                if total != array.sum():
                    sys.exit("two_sites: the consumer did not get what was put")
                print(f"{size:>12,} {len(text):>10} {put * 1e3:>7.2f} ms {used * 1e3:>7.2f} ms")
                size *= 100
        consumer.stdin.close()


if __name__ == "__main__":
    main()
