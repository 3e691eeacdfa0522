"""The lab is what it says: its NATs do to plain sockets what NATs of their kind do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from natlab import OUTER, PUBLIC, Nat, NatLab, Place, Site, need_lab


def command(what: str) -> list[object]:
    return [sys.executable, Path(__file__).with_name("natlab_probe.py"), what, *PUBLIC]


@pytest.fixture
def lab() -> Iterator[NatLab]:
    need_lab()
    with NatLab() as lab:
        reflector = lab.start("public", *command("reflect"), stdout=subprocess.PIPE)
        assert reflector.stdout is not None
        with reflector.stdout as output:
            assert output.readline() == "ready\n"
            yield lab
            reflector.kill()
            reflector.wait()


def probe(lab: NatLab, place: Place, what: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(lab.run(place, *command(what)))
    return answer


def punch(lab: NatLab) -> list[bool]:
    """Whether each site hears the other, when both send to where the other was seen."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    sites: tuple[Site, Site] = ("A", "B")
    both = [lab.start(site, *command("punch"), **pipes) for site in sites]
    seen = []
    for one in both:
        assert one.stdout is not None
        seen.append(json.loads(one.stdout.readline()))
    for one, (host, port) in zip(both, reversed(seen), strict=True):
        assert one.stdin is not None
        one.stdin.write(f"{host} {port}\n")
        one.stdin.flush()
    return [json.loads(one.communicate(timeout=60)[0]) is not None for one in both]


def test_nats_map_ports_and_let_in_as_their_kind_does(lab: NatLab) -> None:
    first, second = probe(lab, "A", "ask")["seen"]
    assert first == second
    assert first[0] == OUTER["A"]
    assert probe(lab, "A", "ask")["unasked"] is False

    lab.nat("A", "symmetric")
    first, second = probe(lab, "A", "ask")["seen"]
    assert first[0] == second[0] == OUTER["A"]
    assert first[1] != second[1]

    lab.nat("A", "cone")
    answer = probe(lab, "A", "ask")
    assert answer["seen"][0] == answer["seen"][1]
    assert answer["unasked"] is True

    lab.nat("A", "no-udp")
    assert probe(lab, "A", "ask")["seen"] == [None, None]
    assert OUTER["A"] in lab.run("A", *command("tcp"))


@pytest.mark.parametrize(
    ("a", "b", "meet"),
    [
        ("independent", "independent", True),
        ("symmetric", "cone", True),
        ("symmetric", "symmetric", False),
        ("symmetric", "independent", False),
    ],
)
def test_holes_can_be_punched_where_theory_says_so(lab: NatLab, a: Nat, b: Nat, meet: bool) -> None:
    lab.nat("A", a)
    lab.nat("B", b)
    heard = punch(lab)
    assert any(heard) is meet  # one direction is enough: the answer goes back the same way
    assert lab.leaks() == 0


def test_the_path_between_sites_is_blocked_and_unblocked(lab: NatLab) -> None:
    lab.block()
    assert punch(lab) == [False, False]
    assert probe(lab, "A", "ask")["seen"][0] is not None
    lab.unblock()
    assert punch(lab) == [True, True]


def test_a_site_is_cut_off_and_found_again(lab: NatLab) -> None:
    lab.cut("A")
    assert probe(lab, "A", "ask")["seen"] == [None, None]
    assert probe(lab, "B", "ask")["seen"][0] is not None
    lab.mend()
    assert probe(lab, "A", "ask")["seen"][0] is not None


@pytest.mark.parametrize("place", ["A", "B", "public"])
def test_what_would_leave_the_lab_is_counted(lab: NatLab, place: Place) -> None:
    assert lab.leaks() == 0
    send = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('{}', {}))"
    for leaks, (host, port) in enumerate(
        [("192.0.2.1", 9), ("239.255.255.250", 1900), ("127.0.0.53", 53)], 1
    ):
        # Where nothing takes the packet, the sender is told so.
        script = f"import contextlib\nwith contextlib.suppress(PermissionError): {send}"
        lab.run(place, sys.executable, "-c", script.format(host, port))
        assert lab.leaks() == leaks


def test_packets_are_lost_as_often_as_said(lab: NatLab) -> None:
    lab.lose(1000)
    assert probe(lab, "A", "ask")["seen"] == [None, None]
    lab.lose(100)
    assert probe(lab, "A", "ask")["seen"] != [None, None]
    lab.lose(0)
    assert None not in probe(lab, "A", "ask")["seen"]


def test_labs_are_apart_and_leave_nothing() -> None:
    need_lab()

    def namespaces() -> str:
        return subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout

    with NatLab() as one, NatLab() as other:
        sleeper = one.start("A", "sleep", "1000")
        namespace = one.command("A")[3]
        other.close()
        assert namespace in namespaces()
        with pytest.raises(RuntimeError, match="failed on purpose"):
            one.run("A", "sh", "-c", "echo failed on purpose; exit 1")
    assert sleeper.wait(timeout=60) < 0
    assert namespace not in namespaces()
