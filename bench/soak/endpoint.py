"""Two endpoints for long under clients that come and go: no wrong byte, no lost object, nothing that grows.

Clients of both sites store objects of 1 byte to 64 MB, read each other's, and remove theirs. Clients are killed at random, and so is
the daemon of the second site, which keeps its objects over that. Every byte that is read is checked.
"""

from __future__ import annotations

import argparse
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python" / "tests"))

from endpoint_daemon import Endpoint  # noqa: E402
from rust_programs import rust_command  # noqa: E402

CLIENTS = 16
MB = 1_000_000
PAUSE = 3.0
"""Seconds between two samples."""
GROWTH = 96 * MB
"""By how much the memory of a daemon may be larger at the end than in the middle: what is under way differs."""


def free_port() -> int:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Sample:
    """A daemon at one moment."""

    memory: int
    files: int
    threads: int


@dataclass
class Site:
    """An endpoint and its clients."""

    endpoint: Endpoint
    logs: Path
    board: Path
    largest: int
    clients: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    def start(self, number: int) -> None:
        """Start a client, in place of one that was killed if there was one."""
        script = Path(__file__).with_name("client.py")
        words = [self.endpoint.name, self.board, number, self.largest]
        with (self.logs / str(number)).open("ab") as log:
            self.clients[number] = subprocess.Popen(
                [sys.executable, script, *map(str, words)],
                env=self.endpoint.environment,
                stdout=log,
                stderr=log,
            )

    def kill_client(self) -> None:
        """Kill a client at random, and start it again."""
        number = random.choice(list(self.clients))
        self.clients[number].kill()
        self.clients[number].wait()
        self.start(number)

    def sample(self) -> Sample:
        daemon = self.endpoint.daemon
        self.samples.append(Sample(daemon.memory(), daemon.files(), daemon.threads()))
        return self.samples[-1]

    def close(self) -> None:
        for client in self.clients.values():
            client.kill()
            client.wait()
        self.endpoint.kill()


def make_sites(binary: Path, folder: Path, largest: int) -> list[Site]:
    """Two sites, each the other's peer, on this host."""
    board, logs = folder / "board", folder / "logs"
    board.mkdir()
    logs.mkdir()
    ports = [free_port(), free_port()]
    sites = []
    for name in ("near", "far"):
        (folder / name).mkdir()
        endpoint = Endpoint(binary, folder / name, name, "--web", "", "--persist")
        sites.append(Site(endpoint, logs, board, largest))
    for site, other, own, port in zip(sites, sites[::-1], ports, ports[::-1], strict=True):
        peer = {"id": other.endpoint.id, "name": other.endpoint.name}
        allow = [{**peer, "addresses": [f"127.0.0.1:{port}"]}]
        storage = {"memory": "128 MiB", "disk": "4 GiB"}
        site.endpoint.configure(peers={"port": own, "allow": allow}, storage=storage)
        site.endpoint.start()
    return sites


class Tally:
    """What the clients said so far."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.done: Counter[str] = Counter()
        self.bytes = 0
        self.errors: Counter[str] = Counter()
        self.bad: list[str] = []
        self._read: dict[Path, int] = {}

    def update(self) -> None:
        """Read what is new, whole lines only: the last may be half a line for ever, of one who was killed."""
        for log in self.logs.iterdir():
            text = log.read_bytes()[self._read.get(log, 0) :]
            lines = text[: text.rfind(b"\n") + 1]
            self._read[log] = self._read.get(log, 0) + len(lines)
            for line in lines.decode(errors="replace").splitlines():
                self._count(line)

    def _count(self, line: str) -> None:
        match line.split(" ", 2):
            case ["put" | "get" as what, size]:
                self.done[what] += 1
                self.bytes += int(size)
            case ["error", kind, _]:
                self.errors[kind] += 1
            case _:
                self.bad.append(line)


def soak(sites: list[Site], tally: Tally, seconds: float) -> int:
    """Let it run, and disturb it; how often the second daemon was killed."""
    for number in range(CLIENTS):
        sites[number % 2].start(number)
    kills, started = 0, time.monotonic()
    next_kill = 10.0
    while (now := time.monotonic() - started) < seconds:
        time.sleep(PAUSE)
        random.choice(sites).kill_client()
        if now > next_kill and now < seconds - 10:
            sites[1].endpoint.restart()
            kills += 1
            next_kill = now + random.uniform(15, 45)
        tally.update()
        states = " | ".join(
            f"{s.memory // MB:4} MB {s.files:3} files {s.threads:2} threads"
            for s in (site.sample() for site in sites)
        )
        done, errors = tally.done, sum(tally.errors.values())
        print(
            f"{now:5.0f} s  {done['put']:6} put {done['get']:6} got {tally.bytes / 1e9:6.1f} GB "
            f"{errors:4} errors {len(tally.bad):2} BAD  {states}",
            flush=True,
        )
    return kills


def verdict(sites: list[Site], tally: Tally) -> list[str]:
    """What is not as it should be."""
    problems = [f"a client said: {line}" for line in tally.bad[:10]]
    if not tally.done["put"] or not tally.done["get"]:
        problems.append("nothing was stored or nothing was read")
    for site in sites:
        third = max(1, len(site.samples) // 3)
        middle, end = site.samples[third : 2 * third], site.samples[2 * third :]

        def median(samples: list[Sample], what: str) -> float:
            return statistics.median(getattr(sample, what) for sample in samples)

        for what, bound in (("memory", GROWTH), ("files", 64), ("threads", 64)):
            grown = median(end, what) - median(middle or end, what)
            if grown > bound:
                problems.append(f"{what} of {site.endpoint.name} grew by {grown:.0f}")
    return problems


def report(sites: list[Site], tally: Tally, kills: int, minutes: float, bad: list[str]) -> str:
    def row(site: Site, what: str, unit: int) -> str:
        values = [getattr(sample, what) // unit for sample in site.samples]
        third = max(1, len(values) // 3)
        parts = values[:third], values[third : 2 * third] or values, values[2 * third :]
        return " | ".join(f"{statistics.median(part):.0f}" for part in parts)

    lines = [
        "# Two endpoints under clients that come and go",
        "",
        f"`make soak`, {minutes:g} minutes, {CLIENTS} clients at two sites. The daemon of the second was killed {kills} times.",
        "",
        f"{tally.done['put']} objects stored, {tally.done['get']} read and checked, {tally.bytes / 1e9:.1f} GB in all. Errors that",
        f"clients were told, most while a daemon was down: {dict(tally.errors)}.",
        "",
        "| daemon | | first third | second | last |",
        "| --- | --- | --- | --- | --- |",
    ]
    for site in sites:
        for what, unit in (("memory", MB), ("files", 1), ("threads", 1)):
            name = "memory, MB" if what == "memory" else what
            lines.append(f"| {site.endpoint.name} | {name} | {row(site, what, unit)} |")
    lines += [
        "",
        "Verdict: " + ("; ".join(bad) if bad else "no wrong byte, nothing lost, nothing grew."),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Soak; 0 when all is well."""
    parser: Any = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--largest", type=int, default=64 * MB, help="bytes of the largest object")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results" / "soak.md")
    given = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        sites = make_sites(rust_command("proxystore"), folder, given.largest)
        for site in sites:
            cleanup.callback(site.close)
        tally = Tally(folder / "logs")
        kills = soak(sites, tally, given.minutes * 60)
        tally.update()
        bad = verdict(sites, tally)
        text = report(sites, tally, kills, given.minutes, bad)
    given.output.write_text(text)
    print(text)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
