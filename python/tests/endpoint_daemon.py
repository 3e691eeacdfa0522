"""Endpoints of the tests' own: daemons of the command that this repository builds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raw_client import STATUS, RawClient, unbase32

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds; longer than a daemon takes to start or stop, on a busy machine too."""

Run = Callable[..., list[str]]
"""Makes a command one that runs in some place."""


def here(*command: object) -> list[str]:
    """The command as it is: it runs where the tests do."""
    return [str(word) for word in command]


class Daemon:
    """A process that runs until it is told otherwise, and logs to a file."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def wait_until(self, so: Callable[[], bool], otherwise: str) -> None:
        """Wait until something is so; fails when the daemon ends before, or after long."""
        end = time.monotonic() + PATIENCE
        while not so():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{otherwise}: {self.log.read_text()[-4000:]}")
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; one that stops it has done so when this returns."""
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitpid(self.process.pid, os.WUNTRACED)

    def stop(self) -> None:
        """End it, as a user would."""
        self.process.terminate()
        self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def memory(self) -> int:
        """Bytes of memory that are its own and in use, without shared memory and mapped files."""
        return self._number("RssAnon") << 10

    def threads(self) -> int:
        """How many threads it has."""
        return self._number("Threads")

    def files(self) -> int:
        """How many files it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def _number(self, field: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith(f"{field}:"))
        return int(line.split()[1])


class Endpoint:
    """An endpoint below a home, and its daemon."""

    def __init__(
        self, binary: Path, home: Path, name: str = "site-a", *options: str, run: Run = here
    ) -> None:
        self.binary = binary
        self.home = home
        self.name = name
        self._run = run
        self._daemon: Daemon | None = None
        self.id = self.command("configure", name, *options).stdout.strip()
        (card,) = (card for card in home.rglob("address.toml") if _read(card)["name"] == name)
        self.directory = card.parent

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """What `proxystore endpoint ...` says."""
        done = subprocess.run(
            self._run(self.binary, "endpoint", *words),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return done

    def doctor(self) -> str:
        """What `proxystore doctor` finds."""
        command = self._run(self.binary, "doctor", self.name)
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=2 * PATIENCE
        )
        return done.stdout

    def configure(self, **sections: Mapping[str, Any]) -> None:
        """Set options in sections of its config.toml; they count from its next start on."""
        file = self.directory / "config.toml"
        config = tomllib.loads(file.read_text())
        for section, options in sections.items():
            config[section] = {**config.get(section, {}), **options}
        text = "".join(f"{name} = {_toml(value)}\n" for name, value in config.items())
        assert tomllib.loads(text) == config
        file.write_text(text)

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

    @property
    def daemon(self) -> Daemon:
        """The daemon that was started."""
        assert self._daemon is not None
        return self._daemon

    def status(self) -> dict[str, Any]:
        """The whole picture, as the daemon tells it."""
        with self.raw() as client:
            status: dict[str, Any] = json.loads(client.ask(STATUS, None).body)
        return status

    @property
    def raw_id(self) -> bytes:
        """Its public key, of which the id is the text."""
        return unbase32(self.id)

    def raw(self, **options: bool) -> RawClient:
        """A client that can misbehave."""
        return RawClient(self.directory, **options)

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        command = self._run(self.binary, "endpoint", "start", "--no-detach", self.name)
        self._daemon = Daemon(command, self.environment, self.home / f"{self.name}.log")
        self._daemon.wait_until(self._answers, "no daemon starts")

    def _answers(self) -> bool:
        try:
            self.raw().close()
        except OSError:
            return False
        return True

    def log(self) -> str:
        """What the daemon logged so far."""
        return (self.home / f"{self.name}.log").read_text()

    def stop(self) -> None:
        """End it, as a user would."""
        self.daemon.stop()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._daemon is not None:
            self._daemon.kill()

    def restart(self) -> None:
        """End it as a crash would, and start it again."""
        self.kill()
        self.start()


def _read(card: Path) -> dict[str, Any]:
    return tomllib.loads(card.read_text())


def _toml(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case _:
            return json.dumps(value)
