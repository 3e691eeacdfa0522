"""Daemons that are killed or hang, and disks that are full: what was acknowledged is there, and nobody waits for ever."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from endpoint_daemon import PATIENCE, REPOSITORY, Endpoint
from raw_client import DONE, EVICT, FAILED, OBJECT

from proxystore_rs.connectors.endpoint import EndpointConnector
from proxystore_rs.exceptions import EndpointConnectorError, EndpointTimeoutError

WRITERS = 6
FULL = 7
"""The kind of error that says so."""


def record(file: Path) -> dict[str, str]:
    """What a writer knows to be stored; a line that it was writing does not count."""
    lines = file.read_text().rpartition("\n")[0].splitlines()
    return dict(line.split() for line in lines)


def test_what_was_acknowledged_is_there_however_often_the_daemon_is_killed(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.configure(storage={"persist": True, "memory": "4 MiB"})
    endpoint.restart()
    script = Path(__file__).with_name("load_writer.py")
    environment = os.environ | {"PYTHONPATH": str(script.parents[1])}
    files = [tmp_path / f"writer-{number}" for number in range(WRITERS)]
    with ExitStack() as cleanup:
        for number, file in enumerate(files):
            command = [sys.executable, script, endpoint.directory, str(number)]
            output = cleanup.enter_context(file.open("wb"))
            writer = subprocess.Popen(command, env=environment, stdout=output)
            cleanup.callback(writer.wait)
            cleanup.callback(writer.kill)

        def stored() -> int:
            return sum(len(record(file)) for file in files)

        for _ in range(6):
            wanted = stored() + 50
            endpoint.daemon.wait_until(lambda wanted=wanted: stored() >= wanted, "too few objects")
            endpoint.restart()
    with endpoint.raw() as reader:
        for file in files:
            known = record(file)
            assert known, f"{file} is empty"
            for name, digest in known.items():
                found = reader.get(name)
                assert found.kind == OBJECT, (name, found)
                assert hashlib.sha256(found.body).hexdigest() == digest, name


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 16 MiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        reason = "only root can mount a small disk"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("persist", [False, True])
def test_a_full_disk_is_said_and_harms_nothing(
    endpoint: Endpoint, small_disk: Path, persist: bool
) -> None:
    disk = {"dir": str(small_disk), "disk": "1 GiB", "memory": "2 MiB", "persist": persist}
    endpoint.configure(storage=disk)
    endpoint.restart()
    stored: dict[str, bytes] = {}
    names = (f"fill.{number}" for number in itertools.count())
    with endpoint.raw() as client:

        def fill() -> None:
            """Store megabytes until there is no more room."""
            for name in itertools.islice(names, 40):
                body = random.randbytes(1_000_000)
                answer = client.put(name, body)
                if answer.kind == FAILED:
                    kind, message, _ = answer.head
                    assert kind == FULL, answer.head
                    assert message
                    return
                assert answer.kind == DONE
                stored[name] = body
            pytest.fail("the disk is never full")

        fill()
        assert len(stored) >= 10
        for name, body in stored.items():
            assert client.get(name).body == body
        # What was begun and failed takes no room, and freed room is used again.
        for name in list(stored)[:5]:
            client.ask(EVICT, [client.name(name, 0)])
            del stored[name]
        before = len(stored)
        fill()
        assert len(stored) - before in range(3, 8)
    if persist:
        endpoint.restart()
        with endpoint.raw() as client:
            for name, body in stored.items():
                assert client.get(name).body == body


def test_a_daemon_that_is_stopped_finishes_what_was_begun(endpoint: Endpoint) -> None:
    body = random.randbytes(30_000_000)
    with endpoint.raw() as client:
        client.put("x.y", body)
        endpoint.stop()
        with pytest.raises(OSError):
            client.get("x.y")
    assert not endpoint.card.get("host")
    started = time.monotonic()
    with pytest.raises(OSError):
        endpoint.raw()
    assert time.monotonic() - started < PATIENCE


def test_clients_are_told_of_kills_and_go_on(endpoint: Endpoint, tmp_path: Path) -> None:
    board, script = tmp_path / "board", REPOSITORY / "bench" / "soak" / "client.py"
    board.mkdir()
    files = [tmp_path / f"client-{number}" for number in range(WRITERS)]
    with ExitStack() as cleanup:
        for number, file in enumerate(files):
            command = [sys.executable, script, endpoint.name, board, str(number), "2000000"]
            output = cleanup.enter_context(file.open("wb"))
            client = subprocess.Popen(
                command, env=endpoint.environment, stdout=output, stderr=output
            )
            cleanup.callback(client.wait)
            cleanup.callback(client.kill)

        def have(begin: str, count: int) -> bool:
            """Whether each client said so often that it did something."""
            return all(
                sum(line.startswith(begin) for line in file.read_text().splitlines()) >= count
                for file in files
            )

        daemon = endpoint.daemon
        for kills in range(1, 3):
            daemon.wait_until(lambda kills=kills: have("put", 5 * kills), "clients do not go on")
            endpoint.kill()
            end = time.monotonic() + PATIENCE
            while not have("error", kills):
                assert time.monotonic() < end, "not everybody is told"
                time.sleep(0.05)
            endpoint.start()
            daemon = endpoint.daemon
            told = {file: file.read_text().count("\n") for file in files}
            daemon.wait_until(
                lambda told=told: all(
                    any("put" in line for line in file.read_text().splitlines()[count:])
                    for file, count in told.items()
                ),
                "clients do not go on",
            )
    for file in files:
        said = {line.split()[0] for line in file.read_text().splitlines()}
        assert said <= {"put", "get", "error", "lost"}, file.read_text()[-2000:]


def test_a_daemon_that_hangs_is_an_error_in_time(endpoint: Endpoint) -> None:
    with EndpointConnector([endpoint.name], str(endpoint.home), timeout=2) as connector:
        key = connector.put(b"x")
        endpoint.daemon.signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            with pytest.raises(EndpointTimeoutError):
                connector.get(key)
            with pytest.raises(EndpointConnectorError):
                EndpointConnector([endpoint.name], str(endpoint.home), timeout=2).put(b"y")
            assert time.monotonic() - started < PATIENCE
        finally:
            endpoint.daemon.signal(signal.SIGCONT)
        assert bytes(connector.get(key)) == b"x"
