"""A Redis server of the tests' own."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import trustme

PATIENCE = 60.0
"""Seconds; longer than any server takes to start, on a busy machine too."""


class RedisServer:
    """A server without persistence on this host."""

    def __init__(self, folder: Path, *, password: str | None = None, tls: bool = False) -> None:
        self.folder = folder
        self.password = password
        self.tls = tls
        self.ca_file = str(folder / "ca.pem")
        if tls:
            authority = trustme.CA()
            authority.cert_pem.write_to_path(self.ca_file)
            certificate = authority.issue_cert("localhost", "127.0.0.1")
            certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "all.pem"))
        for _ in range(10):  # another process may take a port before the server does
            self.port = free_port()
            if self.start():
                return
        raise RuntimeError("no server starts")

    def start(self) -> bool:
        """Start on the port; whether it came up."""
        command = ["redis-server", "--dir", str(self.folder), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--unixsocket", "socket"]
        command += ["--tls-port" if self.tls else "--port", str(self.port)]
        if self.tls:
            command += ["--port", "0", "--tls-auth-clients", "no", "--tls-ca-cert-file", "ca.pem"]
            command += ["--tls-cert-file", "all.pem", "--tls-key-file", "all.pem"]
        if self.password is not None:
            command += ["--requirepass", self.password]
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.ask("PING") == "+PONG":
                    return True
            except OSError:
                time.sleep(0.005)
        self.kill()
        return False

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    @property
    def socket(self) -> Path:
        """Path of its socket."""
        return self.folder / "socket"

    @property
    def url(self) -> str:
        """Where it is, without the password."""
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}/0"

    def ask(self, command: str) -> str:
        """The answer to a command, all lines of it."""
        login = "" if self.password is None else f"AUTH {self.password}\r\n"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(self.socket))
            connection.sendall(f"{login}{command}\r\nQUIT\r\n".encode())
            answers = b""
            while received := connection.recv(65536):
                answers += received
        lines = answers.decode("latin-1").split("\r\n")
        return "\r\n".join(lines[bool(login) : -2])

    def keys(self) -> int:
        """How many keys it has."""
        return int(self.ask("DBSIZE").removeprefix(":"))


def free_port() -> int:
    """A port nobody has, below those that the system gives to clients."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def need_redis() -> None:
    """Skip the test where there is no Redis, or fail on a server."""
    if shutil.which("redis-server") is None:
        reason = "there is no redis-server here; scripts/servers says how to get it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
