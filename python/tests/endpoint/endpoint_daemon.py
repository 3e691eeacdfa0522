"""Endpoints of the tests' own: daemons of the command that this repository builds."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]
PATIENCE = 60.0
"""Seconds; longer than a daemon takes to start or stop, on a busy machine too."""


def build() -> Path:
    """The command `proxystore`, built if it is not."""
    cargo = shutil.which("cargo")
    if cargo is None:
        message = "no 'cargo' to build the command 'proxystore' with"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    # The same features as in `cargo test`, which has built it then.
    command = [cargo, "build", "--quiet", "--workspace", "--all-features", "--bin", "proxystore"]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return REPOSITORY / target / "debug" / "proxystore"


class Endpoint:
    """An endpoint with a home of its own, and its daemon."""

    def __init__(self, binary: Path, home: Path, name: str = "site-a", *options: str) -> None:
        self.binary = binary
        self.home = home
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self.command("configure", name, *options)
        (card,) = (card for card in home.rglob("address.toml") if _read(card)["name"] == name)
        self.directory = card.parent

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """What `proxystore endpoint ...` says."""
        return subprocess.run(
            [self.binary, "endpoint", *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=check,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which clients find it."""
        return os.environ | {"PROXYSTORE_HOME": str(self.home)}

    @property
    def card(self) -> dict[str, Any]:
        """How it is reached."""
        return _read(self.directory / "address.toml")

    @property
    def web(self) -> str:
        """Where its page is."""
        return f"http://{self.card['web']}/"

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        with (self.home / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "endpoint", "start", "--no-detach", self.name],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + PATIENCE
        while self.command("status", self.name, check=False).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"no daemon starts: {Path(log.name).read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it, as a user would."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)


def _read(card: Path) -> dict[str, Any]:
    return tomllib.loads(card.read_text())
