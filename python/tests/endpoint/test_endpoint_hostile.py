"""Clients that say nothing, or nonsense, or that never listen: a daemon bounds what they cost, and answers others."""

from __future__ import annotations

import random
import resource
import secrets
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest
from endpoint_daemon import Endpoint
from raw_client import ABSENT, DONE, EVICT, FAILED, GET, OBJECT, PUT, STATUS, RawClient, frame

MIB = 1 << 20
PERMISSION = 8
"""The kind of error that says so."""


@pytest.fixture
def endpoint(endpoint: Endpoint) -> Endpoint:
    """An endpoint of little patience, with an object."""
    endpoint.configure(clients={"host": "127.0.0.1", "port": 0, "patience": 4})
    endpoint.restart()
    with endpoint.raw() as client:
        client.put("here.before", b"unharmed")
    return endpoint


def assert_unharmed(endpoint: Endpoint, files: int, memory: int) -> None:
    """It answers, gave all descriptors back, and took no more memory than is fair."""
    with endpoint.raw() as client:
        assert client.get("here.before").body == b"unharmed"
    daemon = endpoint.daemon
    daemon.wait_until(lambda: daemon.files() <= files + 2, "descriptors are left open")
    assert daemon.memory() - memory < 64 * MIB


def usage(endpoint: Endpoint) -> tuple[int, int]:
    return endpoint.daemon.files(), endpoint.daemon.memory()


def is_closed(connection: socket.socket) -> bool:
    """Whether the daemon hangs up, before long."""
    connection.settimeout(60)
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("tcp", [False, True])
def test_a_thousand_that_never_greet(endpoint: Endpoint, tcp: bool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("the system gives too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    files, memory = usage(endpoint)
    with ExitStack() as open_ones:
        silent = [open_ones.enter_context(endpoint.raw(greet=False, tcp=tcp)) for _ in range(1000)]
        with endpoint.raw(tcp=tcp) as client:
            assert client.get("here.before").body == b"unharmed"
        assert all(is_closed(one.socket) for one in silent)
    assert_unharmed(endpoint, files, memory)


def test_greetings_that_are_none(endpoint: Endpoint) -> None:
    files, memory = usage(endpoint)
    chance = random.Random(1)
    texts = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 40, b"PSEP" + bytes(10), b""]
    for text in [*texts, *(chance.randbytes(chance.randint(1, 500)) for _ in range(50))]:
        with endpoint.raw(greet=False) as client:
            client.socket.sendall(text)
            client.socket.shutdown(socket.SHUT_WR)
            assert is_closed(client.socket)
    assert_unharmed(endpoint, files, memory)


def test_a_wrong_token_is_refused_in_words(endpoint: Endpoint) -> None:
    with endpoint.raw(greet=False) as client:
        answer = client.greet(secrets.token_bytes(32))
        assert answer.kind == FAILED
        kind, message, remedy = answer.head
        assert kind == PERMISSION
        assert "token" in message and remedy
        assert is_closed(client.socket)
    assert endpoint.status()["refused_clients"] == 1


def test_frames_that_are_none(endpoint: Endpoint) -> None:
    files, memory = usage(endpoint)
    chance = random.Random(2)
    good = frame(GET, [bytes(32), "a.b", 0])
    for number in range(150):
        if number % 3:  # damaged in one place
            place = chance.randrange(len(good))
            text = good[:place] + chance.randbytes(1) + good[place + 1 :]
        else:
            text = chance.randbytes(chance.randint(1, 2000))
        with endpoint.raw() as client, suppress(BrokenPipeError, ConnectionResetError):
            client.socket.sendall(text)
            client.socket.shutdown(socket.SHUT_WR)
            assert is_closed(client.socket)
    assert_unharmed(endpoint, files, memory)


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("kind", [PUT, GET, STATUS])
def test_a_body_of_an_exbibyte_that_does_not_come(
    endpoint: Endpoint, kind: int, pieces: bool
) -> None:
    files, memory = usage(endpoint)
    with ExitStack() as open_ones:
        for number in range(20):
            client = open_ones.enter_context(endpoint.raw())
            name = client.name(f"huge.{number}")
            head = {PUT: [name, None, None], GET: [name, None, False], STATUS: None}[kind]
            client.socket.sendall(frame(kind, head, 1 << 60, pieces=pieces))
        assert_unharmed(endpoint, files + 20, memory)
    assert_unharmed(endpoint, files, memory)


def test_an_object_that_is_longer_than_all_room_is_not_awaited(endpoint: Endpoint) -> None:
    files, memory = usage(endpoint)
    with endpoint.raw() as client:
        head = [client.name("huge.0"), None, None]
        client.socket.sendall(frame(PUT, head, 1 << 60))
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(64):
                client.socket.sendall(bytes(MIB))
    assert_unharmed(endpoint, files, memory)


def test_those_who_stop_in_the_middle_of_a_body(endpoint: Endpoint) -> None:
    files, memory = usage(endpoint)
    with ExitStack() as open_ones:
        halves = []
        for number in range(30):
            client = open_ones.enter_context(endpoint.raw())
            head = [client.name(f"half.{number}"), None, None]
            client.socket.sendall(frame(PUT, head, 8 * MIB) + bytes(MIB))
            halves.append(client)
        assert_unharmed(endpoint, files + 30, memory)
        assert all(is_closed(one.socket) for one in halves)  # the daemon lost its patience
    with endpoint.raw() as client:
        assert all(client.get(f"half.{number}").kind == ABSENT for number in range(30))
    assert_unharmed(endpoint, files, memory)


def test_those_who_ask_and_never_listen(endpoint: Endpoint) -> None:
    body = random.randbytes(4 * MIB)
    with endpoint.raw() as client:
        assert client.put("big.one", body).kind == DONE
    files, memory = usage(endpoint)
    with ExitStack() as open_ones:
        for _ in range(20):
            client = open_ones.enter_context(endpoint.raw())
            ask = frame(GET, [client.name("big.one", 0), None, False])
            client.socket.setblocking(False)
            with suppress(BlockingIOError):
                for _ in range(100_000):
                    client.socket.send(ask)
        assert_unharmed(endpoint, files + 20, memory)
        daemon = endpoint.daemon  # it loses patience with them while they still do not listen
        daemon.wait_until(lambda: daemon.files() <= files + 2, "who does not listen is kept")
    assert_unharmed(endpoint, files, memory)


def test_a_slow_writer_and_a_slow_reader_are_served(endpoint: Endpoint) -> None:
    endpoint.configure(clients={"patience": 60})  # this machine may be slow as well
    endpoint.restart()
    with endpoint.raw() as client:
        client.put("here.before", b"unharmed")
    body = random.randbytes(300_000)
    with endpoint.raw() as client:
        head = [client.name("slow.one"), None, None]
        for start in range(0, len(body), 30_000):
            if start == 0:
                client.socket.sendall(frame(PUT, head, len(body)))
            client.socket.sendall(body[start : start + 30_000])
            assert endpoint_answers(endpoint)
        assert client.answer().kind == DONE
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        found = client.get("slow.one")
        assert (found.kind, found.body) == (OBJECT, body)


def endpoint_answers(endpoint: Endpoint) -> bool:
    with endpoint.raw() as other:
        return other.get("here.before").body == b"unharmed"


def test_pieces_that_lie(endpoint: Endpoint) -> None:
    files, memory = usage(endpoint)
    too_long, more_than_left, aborted = (1 << 30, b""), (2000, bytes(2000)), (0, b"")
    for length, sent in (too_long, more_than_left, aborted):
        with endpoint.raw() as client:
            head = [client.name("lie.0"), None, None]
            client.socket.sendall(frame(PUT, head, 1000, pieces=True))
            client.socket.sendall(struct.pack("<I", length) + sent)
            client.socket.shutdown(socket.SHUT_WR)
            assert is_closed(client.socket)
    with endpoint.raw() as client:
        assert client.get("lie.0").kind == ABSENT
    assert_unharmed(endpoint, files, memory)


def test_names_that_lead_elsewhere(endpoint: Endpoint) -> None:
    with endpoint.raw() as client:
        for name in ("../x", "/etc/passwd", ".hidden", "", "a" * 5000, "a\0b", "a/b", "é"):
            assert client.put(name, b"x").kind == FAILED, name
    with RawClient(endpoint.directory) as client:
        assert client.get("here.before").body == b"unharmed"


def test_memory_that_objects_have_left_is_given_back(
    make_endpoint: Callable[..., Endpoint],
) -> None:
    endpoint = make_endpoint(storage={"memory": "256 MiB", "disk": 0, "shared_from": 0})
    with endpoint.raw() as client:
        for number in range(800):
            client.put(f"here.{number}", bytes(240 << 10))
        assert endpoint.daemon.memory() > 180 * MIB
        # What stays lies between what goes.
        for number in range(800):
            if number % 50:
                assert client.ask(EVICT, [client.name(f"here.{number}")]).kind == DONE
    daemon = endpoint.daemon
    daemon.wait_until(lambda: daemon.memory() < 40 * MIB, "it keeps memory")
