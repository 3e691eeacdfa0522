"""Objects go from site to site whatever is between them, and what goes wrong on the way is told or mended."""

from __future__ import annotations

import random
import threading
import time

import pytest
from endpoint_daemon import PATIENCE
from natlab import Nat
from raw_client import ABSENT, DONE, FAILED, OBJECT, RawAnswer
from sites import Sites, wait_until

MIB = 1 << 20
PERMISSION = 8
"""The kind of error that says so."""
BOUND = 60.0
"""Seconds in which who asks is told that there is no answer."""


def put(sites: Sites, name: str, size: int) -> bytes:
    body = random.randbytes(size)
    with sites.a.raw() as client:
        assert client.put(name, body).kind == DONE
    return body


@pytest.mark.parametrize(
    ("a", "b", "path"),
    [
        ("independent", "independent", "direct"),
        ("symmetric", "cone", "direct"),
        ("symmetric", "symmetric", "relayed"),
        ("no-udp", "independent", "relayed"),
    ],
)
def test_objects_pass_nats(sites: Sites, a: Nat, b: Nat, path: str) -> None:
    sites.lab.nat("A", a)
    sites.lab.nat("B", b)
    sites.start()
    small, large = put(sites, "x.small", 100), put(sites, "x.large", 5 * MIB)
    assert sites.fetch("x.small").body == small
    wait_until(lambda: sites.path() == path)
    assert sites.fetch("x.large").body == large
    assert sites.fetch("x.none").kind == ABSENT
    assert sites.path() == path
    (peer,) = sites.b.status()["peers"]
    assert (peer["name"], peer["state"], peer["path"]) == ("site-a", "connected", path)


@pytest.mark.parametrize(
    ("nat", "found"),
    [
        ("independent", "by a NAT that lets peers through"),
        ("symmetric", "by a symmetric NAT"),
        ("no-udp", "7842 of the relay does not answer"),
    ],
)
def test_the_doctor_tells_the_kind_of_nat(sites: Sites, nat: Nat, found: str) -> None:
    sites.lab.nat("A", nat)
    assert found in sites.a.doctor()


class Fetch:
    """An object on its way from A to B."""

    def __init__(self, sites: Sites, name: str) -> None:
        self.answer: RawAnswer | OSError | None = None
        before = sites.b.status()["peer_bytes_in"]

        def fetch() -> None:
            try:
                self.answer = sites.fetch(name)
            except OSError as error:
                self.answer = error

        self._thread = threading.Thread(target=fetch)
        self._thread.start()
        wait_until(lambda: sites.b.status()["peer_bytes_in"] > before + 4 * MIB)
        assert self.answer is None, "it came too fast to be disturbed"

    def join(self) -> RawAnswer | OSError:
        self._thread.join(4 * PATIENCE)
        assert self.answer is not None, "it never ends"
        return self.answer


def test_a_transfer_goes_on_by_the_relay_when_the_direct_path_dies(sites: Sites) -> None:
    sites.start()
    body = put(sites, "x.huge", 112 * MIB)
    wait_until(lambda: sites.path() == "direct")
    fetch = Fetch(sites, "x.huge")
    sites.lab.block()
    answer = fetch.join()
    assert isinstance(answer, RawAnswer) and answer.kind == OBJECT, answer
    assert answer.body == body
    assert sites.path() == "relayed"


def test_a_far_daemon_that_dies_in_the_middle_is_told_and_comes_back(sites: Sites) -> None:
    sites.a.configure(storage={"persist": True})
    sites.start()
    body = put(sites, "x.huge", 112 * MIB)
    wait_until(lambda: sites.path() == "direct")
    near = sites.b.daemon.process.pid
    fetch = Fetch(sites, "x.huge")
    sites.a.kill()
    started = time.monotonic()
    answer = fetch.join()
    assert time.monotonic() - started < BOUND
    if isinstance(
        answer, RawAnswer
    ):  # a daemon may also have to hang up in the middle of an object
        assert answer.kind == FAILED, answer.kind
        assert all(answer.head)
    assert sites.b.status()["pid"] == near
    sites.a.start()
    found = wait_until(lambda: answer if (answer := sites.fetch("x.huge")).kind == OBJECT else None)
    assert found.body == body


def test_a_relay_that_dies_is_missed_by_those_who_need_it_alone(sites: Sites) -> None:
    sites.start()
    body = put(sites, "x.y", MIB)
    wait_until(lambda: sites.path() == "direct")
    try:
        sites.relay.kill()
        for _ in range(3):
            assert sites.fetch("x.y").body == body
        assert sites.path() == "direct"

        sites.lab.block()
        started = time.monotonic()
        assert sites.fetch("x.y").kind == FAILED
        assert time.monotonic() - started < BOUND
    finally:
        sites.relay.start()
    found = wait_until(lambda: answer if (answer := sites.fetch("x.y")).kind == OBJECT else None)
    assert found.body == body
    assert sites.path() == "relayed"


def test_strangers_are_refused_in_words_on_both_sides(sites: Sites) -> None:
    sites.a.configure(peers={"allow": []})
    sites.start()
    put(sites, "x.y", 100)
    answer = sites.fetch("x.y")
    assert answer.kind == FAILED
    kind, message, remedy = answer.head
    assert kind == PERMISSION
    assert "admit" in message or "refuse" in message or "peer" in message
    assert "proxystore endpoint trust" in remedy
    assert sites.b.id in remedy or sites.b.id in message
    assert sites.a.status()["refused_peers"] >= 1
    assert f"proxystore endpoint trust site-a {sites.b.id}" in sites.a.log()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("token", "another-token", ("refuse", "token")),
        ("fingerprint", "ab" * 32, ("fingerprint",)),
    ],
)
def test_what_is_wrong_with_the_relay_is_said(
    sites: Sites, option: str, value: str, words: tuple[str, ...]
) -> None:
    sites.b.configure(relay={option: value})
    sites.a.start()
    sites.b.start()
    put(sites, "x.y", 100)
    relay = wait_until(lambda: r if (r := sites.b.status()["relay"])["problem"] else None)
    assert relay["connected"] is False
    text = wait_until(
        lambda: (
            text
            if all(word in (text := sites.b.status()["relay"]["problem"]) for word in words)
            else None
        )
    )
    assert text
    started = time.monotonic()
    answer = sites.fetch("x.y")
    assert answer.kind == FAILED and all(answer.head)
    assert time.monotonic() - started < BOUND


def test_lossy_paths_damage_nothing(sites: Sites) -> None:
    sites.start()
    body = put(sites, "x.y", 3 * MIB)
    sites.lab.lose(20)
    try:
        assert sites.fetch("x.y").body == body
    finally:
        sites.lab.lose(0)
