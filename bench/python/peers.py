"""Objects of another site: two endpoints on this host, direct and by a relay, and raw QUIC and TCP.

Each side has two endpoints of its own, and a relay where it needs one. A client of the second gets
objects of the first. Needs what `make bench` builds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import harness
import servers
from endpoints import RawTcp, connect
from harness import ROOT, Report, Side, Worker, ratio_text, size_text, time_text

SIZES = (1_000, 1_000_000, 10_000_000, 100_000_000)
RAW_IROH = ROOT / "target" / "release" / "examples" / "raw_iroh"


class Peers:
    """Two of our endpoints, with a client of each."""

    def __init__(self, kind: str) -> None:
        self.stack = contextlib.ExitStack()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        homes = [folder / "near", folder / "far"]
        udp_port = servers.free_port(socket.SOCK_DGRAM) if kind == "direct" else 0
        os.environ["PROXYSTORE_ENDPOINT_PEERS_DIRECT"] = str(kind == "direct").lower()
        invitation = self.stack.enter_context(servers.relay(folder / "relay", udp_port))
        ids = []
        for home in homes:
            options = ["--join", invitation] + ["--new-group-secret"] * (not ids)
            ids.append(self.stack.enter_context(servers.endpoint(home, home.name, *options)))
            invitation = servers.proxystore(home, "endpoint", "invite", home.name)
        ping = ("endpoint", "ping", homes[1].name, ids[0], "--count", "20", "--interval", "0.2")
        path = servers.proxystore(homes[1], *ping).splitlines()[-1]
        if kind not in path:
            raise AssertionError(f"{kind} is asked for, found is {path}")
        arguments = [([ids[0]], str(home)) for home in homes]
        self.far, self.near = (
            connect("proxystore_rs", "endpoint", "EndpointConnector", given) for given in arguments
        )

    def transfer(self, size: int) -> dict[str, float]:
        """Seconds to get an object of the other site."""
        data = os.urandom(size)
        key = self.far.put(data)
        start = time.perf_counter()
        found = self.near.get(key)
        end = time.perf_counter()
        if bytes(found) != data:
            raise AssertionError("what was got differs from what was put")
        del found
        self.far.evict(key)
        return {"get": end - start}

    def close(self) -> None:
        self.far.close()
        self.near.close()
        self.stack.close()


class Upstream(Peers):
    """Two endpoints of the Python library, which meet at a relay of it and then talk directly."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        relay = self.stack.enter_context(servers.upstream_relay())
        homes = [folder / "near", folder / "far"]
        ids = [
            self.stack.enter_context(servers.upstream_endpoint(home, home.name, relay))
            for home in homes
        ]
        self.far, self.near = (
            connect("proxystore", "endpoint", "EndpointConnector", ([identity], str(home)))
            for home, identity in zip(homes, ids, strict=True)
        )
        # The connection between them is made now.
        for _ in range(3):
            self.transfer(1000)


class RawIroh:
    """The same bytes by the QUIC library alone, from one process to another."""

    def __init__(self, streams: int) -> None:
        self.process = subprocess.Popen(
            [str(RAW_IROH), str(streams)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def transfer(self, size: int) -> dict[str, float]:
        """Seconds to get so many bytes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{size}\n")
        self.process.stdin.flush()
        return {"get": float(self.process.stdout.readline())}

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


DIRECT, RELAYED, UPSTREAM, IROH, TCP = (
    "ours, direct",
    "ours, relayed",
    "upstream",
    "raw iroh",
    "raw TCP",
)
SIDES = {
    DIRECT: Side(Peers, ("direct",), "ours", ("proxystore-rs",)),
    RELAYED: Side(Peers, ("relayed",), "ours", ("proxystore-rs",)),
    UPSTREAM: Side(Upstream, (), "upstream", ("proxystore", "aiortc")),
    IROH: Side(RawIroh, (4,), "ours", ()),
    TCP: Side(RawTcp, (), "ours", ()),
}


def compare(workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    report = Report("peers", "Objects of another site", options)
    report.versions(workers)
    curves: dict[str, dict[int, float]] = {name: {} for name in workers}
    for size in options.sizes:
        answers = harness.interleave(
            workers, options.rounds, lambda worker, size=size: worker.call("transfer", size=size)
        )
        found = {name: harness.medians(samples) for name, samples in answers.items()}
        upstream, raw = (found.get(name, {}).get("get") for name in (UPSTREAM, IROH))
        rows = []
        for name, values in found.items():
            curves[name][size] = size / values["get"] / 1e6
            rows.append(
                (
                    name,
                    time_text(values["get"]),
                    f"{size / values['get'] / 1e6:.3g}",
                    ratio_text(upstream, values["get"]),
                    ratio_text(raw, values["get"]),
                )
            )
        header = ("side", "get", "MB/s", "upstream / side", "raw iroh / side")
        report.table(size_text(size), header, rows, found)
    report.plot("get of another site's object", curves, "MB/s")
    report.write()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    harness.add_quick(parser, rounds=1, sizes=(1_000, 1_000_000))


if __name__ == "__main__":
    harness.main(compare, SIDES, __doc__, add_options, rounds=7)
