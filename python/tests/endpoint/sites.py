"""Two sites of a lab with an endpoint each, and the relay where they meet."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from endpoint_daemon import PATIENCE, Daemon, Endpoint, Run
from natlab import PUBLIC, NatLab
from raw_client import GET, PING, PONG, RawAnswer, RawClient

TOKEN = "shown-to-the-relay-of-the-lab"


class Relay:
    """A relay in the public place, with a certificate of its own."""

    def __init__(self, binary: Path, home: Path, lab: NatLab) -> None:
        self._command = lab.command("public", binary, "relay", "--config", home / "config.toml")
        self.home = home
        self._daemon: Daemon | None = None
        (home / "config.toml").write_text(
            f'host = "{PUBLIC[0]}"\nport = 8443\nudp_port = 7842\nnames = ["{PUBLIC[0]}"]\nweb = ""\n'
            f'[access]\ntokens = ["{TOKEN}"]\n'
        )
        self.start()

    def start(self) -> None:
        """Start it, and wait until endpoints can connect."""
        log = self.home / "relay.log"
        log.write_text("")
        self._daemon = Daemon(self._command, os.environ, log)
        self._daemon.wait_until(lambda: "fingerprint" in log.read_text(), "no relay starts")
        found = re.search(r"^fingerprint +(\S+)", log.read_text(), re.MULTILINE)
        assert found is not None
        self.fingerprint = found[1]

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._daemon is not None:
            self._daemon.kill()

    def options(self) -> dict[str, str]:
        """What an endpoint is told of it."""
        url = f"https://{PUBLIC[0]}:8443"
        return {"url": url, "token": TOKEN, "fingerprint": self.fingerprint}


class Sites:
    """An endpoint at either site, each the other's peer, and not started yet."""

    def __init__(self, binary: Path, home: Path, lab: NatLab, relay: Relay) -> None:
        self.lab, self.relay = lab, relay

        def at(place: Any) -> Run:
            return lambda *command: lab.command(place, *command)

        self.a = Endpoint(binary, home / "a", "site-a", "--web", "", run=at("A"))
        self.b = Endpoint(binary, home / "b", "site-b", "--web", "", run=at("B"))
        for one, other in ((self.a, self.b), (self.b, self.a)):
            allow = [{"id": other.id, "name": other.name}]
            one.configure(peers={"allow": allow}, relay=relay.options())

    def start(self) -> None:
        """Start both, and wait until both are connected to the relay."""
        for endpoint in (self.a, self.b):
            endpoint.start()
        for endpoint in (self.a, self.b):
            wait_until(lambda endpoint=endpoint: endpoint.status()["relay"]["connected"])

    def kill(self) -> None:
        """End both at once."""
        self.a.kill()
        self.b.kill()

    def path(self) -> str:
        """How B reaches A now: `direct` or `relayed`; empty where it does not."""
        with self.b.raw() as client:
            answer = client.ask(PING, [self.a.raw_id])
        return str(answer.head[0]) if answer.kind == PONG else ""

    def fetch(self, name: str, client: RawClient | None = None) -> RawAnswer:
        """Read an object of A at B."""
        if client is not None:
            return client.ask(GET, [[self.a.raw_id, name, 0], None, False])
        with self.b.raw() as client:
            return self.fetch(name, client)


def wait_until(so: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Wait until something is so, and return it."""
    end = time.monotonic() + patience
    while not (found := so()):
        assert time.monotonic() < end, "it never is so"
        time.sleep(0.05)
    return found
