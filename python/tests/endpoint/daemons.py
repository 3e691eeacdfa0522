"""Endpoints of the tests' own: configured in a home of theirs, run in the foreground, killed at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self

import pytest
from raw_client import RawClient

PATIENCE = 60.0
"""Seconds; longer than any daemon takes to start or to answer, on a busy machine too."""

ROOT = Path(__file__).resolve().parents[3]

Run = Callable[..., list[str]]
"""Makes a command one that runs in some place."""


def here(*command: object) -> list[str]:
    """The command as it is: it runs where the tests do."""
    return [str(word) for word in command]


@cache
def program() -> Path:
    """The command `proxystore`, built unless that was done; skips the test where there is no cargo."""
    if shutil.which("cargo") is None:
        reason = "there is no cargo here to build the command `proxystore`; see CONTRIBUTING.md"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    build = ["cargo", "build", "--quiet", "--package", "proxystore-cli", "--all-features"]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug" / "proxystore"


class Process:
    """A daemon that logs to a file."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def wait_until(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until something is so; fails when the daemon ends before."""
        end = time.monotonic() + PATIENCE
        while not ready():
            text = f"{what}: {self.log.read_text()[-4000:]}"
            assert self.process.poll() is None, f"it ended with {self.process.returncode}; {text}"
            assert time.monotonic() < end, text
            time.sleep(0.02)

    def memory(self) -> int:
        """Bytes of memory that are its own and in use, without shared memory and mapped files."""
        return self._kibibytes("RssAnon") << 10

    def threads(self) -> int:
        """How many threads it has."""
        return self._kibibytes("Threads")

    def files(self) -> int:
        """How many files it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def _kibibytes(self, field: str) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in text.splitlines() if line.startswith(f"{field}:"))
        return int(line.split()[1])


class Endpoint:
    """An endpoint, and its daemon from `start` on."""

    def __init__(
        self, home: Path, name: str = "site", *, run: Run = here, **sections: Mapping[str, Any]
    ) -> None:
        self.home, self.name = home, name
        self._run = run
        self._daemon: Process | None = None
        self.id = self.command("configure", name).strip()
        self.directory = home / name
        # Nothing on fixed ports, and what the test does not ask for is quick.
        self.sections: dict[str, dict[str, Any]] = {"web": {"address": ""}}
        self.configure(**sections)

    def configure(self, **sections: Mapping[str, Any]) -> None:
        """Set options in sections of its config.toml; they count from its next start on."""
        for section, options in sections.items():
            self.sections.setdefault(section, {}).update(options)
        text = toml({"name": self.name} | self.sections)
        tomllib.loads(text)
        (self.directory / "config.toml").write_text(text)

    def command(self, *words: object, run: Run | None = None, check: bool = True) -> str:
        """Run `proxystore endpoint ...`, and tell what it printed; unchecked, also its complaints."""
        environment = {**os.environ, "PROXYSTORE_HOME": str(self.home)}
        command = (run or self._run)(program(), "endpoint", *words)
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE
        )
        if check:
            assert done.returncode == 0, f"{words}: {done.stderr}"
            return done.stdout
        return done.stdout + done.stderr

    def start(self) -> Self:
        """Start the daemon, and wait until clients can connect."""
        assert self._daemon is None
        words = ("--home", self.home, "endpoint", "start", self.name, "--no-detach")
        self._daemon = Process(self._run(program(), *words), self.home / f"{self.name}.log")
        self._daemon.wait_until(self._answers, "it does not answer")
        return self

    def _answers(self) -> bool:
        try:
            self.raw().close()
        except OSError:
            return False
        return True

    @property
    def daemon(self) -> Process:
        """The daemon that was started."""
        assert self._daemon is not None
        return self._daemon

    def kill(self) -> None:
        """End the daemon at once, as a crash would."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon = None

    def stop(self) -> None:
        """End the daemon as people do; it finishes what it began."""
        self.daemon.signal(signal.SIGTERM)
        self.daemon.process.wait(PATIENCE)
        self._daemon = None

    def restart(self) -> None:
        """Kill it, and start it again."""
        self.kill()
        self.start()

    def raw(self, **options: bool) -> RawClient:
        """A client that can misbehave."""
        return RawClient(self.directory, **options)

    def card(self) -> dict[str, Any]:
        """How the daemon is reached."""
        return tomllib.loads((self.directory / "address.toml").read_text())

    def log(self) -> str:
        """What it logged so far."""
        return (self.home / f"{self.name}.log").read_text()

    def status(self) -> dict[str, Any]:
        """The whole picture, as it tells it."""
        status: dict[str, Any] = json.loads(self.command("status", self.name, "--json"))
        return status


def toml(table: Mapping[str, Any]) -> str:
    """A table as TOML, with its sections in line."""
    return "".join(f"{key} = {_value(value)}\n" for key, value in table.items())


def _value(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_value, value)) + "]"
        case Path():
            return json.dumps(str(value))
        case _:
            return json.dumps(value)
