"""Servers that comparisons start for themselves, on this host, and end again."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness import ROOT

BINARY = ROOT / "target" / "release" / "proxystore"


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody listens at, a moment ago."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody listens at a port of this host."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(process: subprocess.Popen[bytes], port: int, name: str, seconds: float = 30) -> None:
    """Return when the process listens."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answers(port):
            return
        if process.poll() is not None:
            sys.exit(f"{name} ended with status {process.returncode}.")
        time.sleep(0.01)
    sys.exit(f"{name} does not listen at port {port}.")


@contextlib.contextmanager
def running(
    command: list[str], port: int, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that listens at a port, until the block ends."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | dict(env or {})
        )
        try:
            wait_for(process, port, command[0])
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def redis() -> Iterator[int]:
    """A Redis server without persistence; its port."""
    if shutil.which("redis-server") is None:
        sys.exit("There is no 'redis-server' here; scripts/servers says how to get it.")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--dir", folder, "--port", str(port), "--bind", "127.0.0.1"]
        # Subscribers that are far behind are not cut off, as by default.
        command += ["--client-output-buffer-limit", "pubsub 0 0 0"]
        with running([*command, "--save", "", "--appendonly", "no"], port):
            yield port


def proxystore(home: Path, *arguments: str, check: bool = True) -> str:
    """Run our command with a home of its own; what it prints."""
    if not BINARY.exists():
        sys.exit("There is no target/release/proxystore. `make bench` builds it.")
    done = subprocess.run(
        [str(BINARY), *arguments],
        env=os.environ | {"PROXYSTORE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        sys.exit(f"proxystore {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


@contextlib.contextmanager
def endpoint(home: Path, name: str, *options: str) -> Iterator[str]:
    """One of our endpoints, below a home; its id."""
    proxystore(home, "endpoint", "configure", name, *options)
    proxystore(home, "endpoint", "start", name)
    try:
        yield proxystore(home, "endpoint", "show", name, "--id")
    finally:
        proxystore(home, "endpoint", "stop", name, check=False)


@contextlib.contextmanager
def relay(home: Path, udp_port: int) -> Iterator[str]:
    """One of our relays; the line that invites endpoints to it."""
    port = free_port()
    options = ["relay", "--name", "127.0.0.1", "--port", str(port), "--udp-port", str(udp_port)]
    invitation = proxystore(home, *options, "--invite")
    config = home / "relay" / "config.toml"
    # No page, so that several may run at once.
    config.write_text(config.read_text().replace('web = "127.0.0.1:7843"', 'web = ""'))
    with running([str(BINARY), *options], port, {"PROXYSTORE_HOME": str(home)}):
        yield invitation


@contextlib.contextmanager
def upstream_endpoint(home: Path, name: str, relay: str | None = None) -> Iterator[str]:
    """An endpoint of the Python library, below a home; its UUID. Runs in its environment."""
    import uuid

    from proxystore.endpoint.config import (
        EndpointConfig,
        EndpointRelayConfig,
        EndpointStorageConfig,
        write_config,
    )

    port, identifier = free_port(), uuid.uuid4()
    config = EndpointConfig(
        name=name,
        uuid=str(identifier),
        port=port,
        host="127.0.0.1",
        host_type="static",
        relay=EndpointRelayConfig(address=relay, verify_certificate=False),
        storage=EndpointStorageConfig(max_object_size=2_000_000_000),
    )
    write_config(config, str(home / name))
    program = Path(sys.executable).with_name("proxystore-endpoint")
    command = [str(program), "start", name, "--no-detach"]
    with running(command, port, {"PROXYSTORE_HOME": str(home)}):
        yield str(identifier)


@contextlib.contextmanager
def upstream_relay() -> Iterator[str]:
    """A relay of the Python library, without TLS; its address. Runs in its environment."""
    port = free_port()
    program = Path(sys.executable).with_name("proxystore-relay")
    with running([str(program), "--host", "127.0.0.1", "--port", str(port)], port):
        yield f"ws://127.0.0.1:{port}"
