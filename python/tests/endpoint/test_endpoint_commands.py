"""Endpoints by the functions of the package: configured, changed, started, asked, stopped and removed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from endpoint_daemon import Endpoint

from proxystore_rs.connectors.endpoint import EndpointConnector
from proxystore_rs.endpoint import client, commands
from proxystore_rs.endpoint.commands import EndpointStatus
from proxystore_rs.endpoint.config import (
    EndpointConfig,
    get_configs,
    get_log_filepath,
    get_pid_filepath,
    read_config,
    write_config,
)
from proxystore_rs.exceptions import EndpointConnectorError


@pytest.fixture
def home(endpoint_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home without endpoints; those that are made there are stopped."""
    monkeypatch.setenv("PROXYSTORE_BINARY", str(endpoint_binary))
    monkeypatch.setenv("PROXYSTORE_HOME", str(tmp_path))
    yield tmp_path
    for config in get_configs(str(tmp_path)):
        commands.stop_endpoint(config.name)


def configured(home: Path, name: str = "site-a") -> EndpointConfig:
    assert commands.configure_endpoint(name, host="127.0.0.1", port=None, relay_server=None) == 0
    (found,) = (config for config in get_configs(str(home)) if config.name == name)
    return found


def directory(home: Path) -> str:
    (card,) = home.rglob("address.toml")
    return str(card.parent)


def test_the_life_of_an_endpoint(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    uuid = configured(home).uuid
    assert commands.get_status("site-a") is EndpointStatus.STOPPED
    assert commands.start_endpoint("site-a", detach=True, log_level="WARNING") == 0
    assert commands.get_status("site-a") is EndpointStatus.RUNNING
    assert commands.get_status(uuid, str(home)) is EndpointStatus.RUNNING
    assert os.path.exists(get_pid_filepath(directory(home)))
    assert os.path.exists(get_log_filepath(directory(home)))
    assert commands.start_endpoint("site-a", detach=True) != 0
    assert "it runs already" in caplog.text
    assert commands.remove_endpoint("site-a") != 0
    caplog.clear()
    assert commands.list_endpoints() == 0
    assert "RUNNING" in caplog.text and uuid in caplog.text
    assert commands.stop_endpoint("site-a") == 0
    assert commands.get_status("site-a") is EndpointStatus.STOPPED
    assert commands.stop_endpoint("site-a") == 0
    assert commands.remove_endpoint("site-a") == 0
    assert commands.get_status("site-a") is EndpointStatus.UNKNOWN
    assert get_configs(str(home)) == []


def test_one_that_was_killed_hangs(endpoint: Endpoint) -> None:
    assert commands.get_status(endpoint.name, str(endpoint.home)) is EndpointStatus.RUNNING
    endpoint.kill()
    assert commands.get_status(endpoint.name, str(endpoint.home)) is EndpointStatus.HANGING


def test_a_second_endpoint_of_one_name_is_refused(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configured(home)
    assert commands.configure_endpoint("site-a", port=None, relay_server=None) != 0
    assert "error: failed to configure an endpoint" in caplog.text
    assert commands.configure_endpoint("no name", port=None, relay_server=None) != 0


def test_arguments_come_into_the_file(home: Path) -> None:
    status = commands.configure_endpoint(
        "site-b",
        host="ip",
        peer_channels=7,
        persist_data=True,
        port=4711,
        proxystore_dir=str(home / "elsewhere"),
        relay_server="wss://relay.example.org:8443",
        relay_fingerprint="ab" * 32,
    )
    assert status == 0
    (config,) = get_configs(str(home / "elsewhere"))
    assert (config.host_type, config.host, config.port) == ("ip", None, 4711)
    assert config.relay.address == "https://relay.example.org:8443"
    assert config.relay.fingerprint == "ab" * 32 and config.relay.peer_channels == 7
    assert config.storage.persist


def test_an_invitation_tells_relay_and_group(
    home: Path, endpoint_binary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    relay = [endpoint_binary, "relay", "--name", "relay.example.org", "--invite"]
    done = subprocess.run(relay, capture_output=True, text=True, check=True, timeout=60)
    assert commands.configure_endpoint("site-a", host="", invitation=done.stdout) == 0
    (config,) = get_configs(str(home))
    assert config.relay.address == "https://relay.example.org:8443" and config.relay.fingerprint
    assert commands.configure_endpoint("site-b", host="", invitation="nonsense") != 0
    assert "error: failed to read an invitation" in caplog.text
    assert len(get_configs(str(home))) == 1


FOREGROUND = """
import logging
from proxystore_rs.endpoint.commands import start_endpoint

logging.basicConfig(level="INFO")
raise SystemExit(start_endpoint("site-a"))
"""


def test_an_interrupt_ends_a_daemon_in_the_foreground_in_order(home: Path) -> None:
    configured(home)
    program = [sys.executable, "-c", FOREGROUND]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        # What it says is told at once.
        assert any("the endpoint runs" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        assert "the endpoint stopped" in process.stderr.read()
        assert process.wait(60) == 0
    assert commands.get_status("site-a") is EndpointStatus.STOPPED


def test_configurations_are_read_and_written(home: Path) -> None:
    made = configured(home)
    assert (made.host_type, made.host) == ("static", "127.0.0.1")
    assert made.storage.memory == 1 << 30
    path = Path(directory(home))
    assert read_config(str(path)) == made
    write_config(made, str(path))
    assert read_config(str(path)) == made

    made.storage = made.storage.model_copy(update={"memory": "2 GB", "persist": True})
    made.relay.address = "https://relay.example.org"
    made.host_type, made.host = "static", None
    write_config(made, str(path))
    again = read_config(str(path))
    assert (again.storage.memory, again.storage.persist) == (2_000_000_000, True)
    assert again.relay.address == "https://relay.example.org" and again.host is None
    assert stat.S_IMODE((path / "config.toml").stat().st_mode) == 0o600
    made.relay.address = None
    write_config(made, str(path))
    assert commands.start_endpoint("site-a", detach=True) == 0, "the daemon takes what was written"

    other = made.model_copy(update={"uuid": "00000000-0000-8000-8000-000000000000"})
    with pytest.raises(ValueError, match="is that of the endpoint's key"):
        write_config(other, str(path))
    (path / "config.toml").write_text("name = ")
    with pytest.raises(ValueError, match=r"config\.toml cannot be read"):
        read_config(str(path))
    assert get_configs(str(home)) == []
    (path / "config.toml").write_text('name = "site-a"\n')


def test_the_command_line_is_the_program(home: Path) -> None:
    configured(home)
    program = [sys.executable, "-m", "proxystore_rs.endpoint.cli", "list"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "site-a" in done.stdout


def test_objects_by_the_address_of_the_daemon(home: Path) -> None:
    config = configured(home)
    assert commands.start_endpoint("site-a", detach=True) == 0
    tcp = next(
        line.partition('"')[2].rstrip('"')
        for line in (Path(directory(home)) / "address.toml").read_text().splitlines()
        if line.startswith("tcp")
    )
    for address in (f"tcp://{tcp}", f"http://{tcp}"):
        assert client.get(address, "some-key") is None
        client.put(address, "some-key", b"data")
        assert client.exists(address, "some-key", config.uuid)
        assert client.get(address, "some-key", config.uuid, None) == b"data"
        client.put(address, "some-key", b"")
        assert client.get(address, "some-key") == b""
        client.evict(address, "some-key")
        assert not client.exists(address, "some-key")
    commands.stop_endpoint("site-a")
    with pytest.raises(EndpointConnectorError):
        client.get(f"tcp://{tcp}", "some-key")


def test_a_daemon_that_the_environment_names(
    make_endpoint: Callable[..., Endpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = make_endpoint("site-a", "--host", "127.0.0.1")
    tcp = endpoint.card["tcp"]
    monkeypatch.setenv("PROXYSTORE_HOME", str(tmp_path / "of another host"))
    with pytest.raises(EndpointConnectorError, match="set PROXYSTORE_ENDPOINT_ADDRESS"):
        client.get(f"tcp://{tcp}", "some-key")
    monkeypatch.setenv("PROXYSTORE_ENDPOINT_ADDRESS", tcp)
    monkeypatch.setenv("PROXYSTORE_ENDPOINT_TOKEN", (endpoint.directory / "token").read_text())
    client.put(f"tcp://{tcp}", "some-key", b"data")
    assert client.get(f"http://{tcp}/", "some-key") == b"data"
    assert client.exists(f"tcp://{tcp}", "some-key", endpoint.id)
    for name in (endpoint.name, endpoint.card["uuid"], endpoint.id):
        with EndpointConnector([name]) as connector:
            assert connector.endpoints == [endpoint.id]
    with pytest.raises(EndpointConnectorError, match="no endpoint of this name"):
        EndpointConnector(["site-b"])
    client.evict(f"tcp://{tcp}", "some-key")
    assert client.get(f"tcp://{tcp}", "some-key") is None
    monkeypatch.setenv("PROXYSTORE_ENDPOINT_TOKEN", "not a token")
    with pytest.raises(EndpointConnectorError, match="variable=PROXYSTORE_ENDPOINT_TOKEN"):
        client.get(f"tcp://{tcp}", "some-key")
    monkeypatch.setenv("PROXYSTORE_ENDPOINT_TOKEN", (endpoint.directory / "token").read_text())
    endpoint.stop()
    with pytest.raises(EndpointConnectorError, match="correct PROXYSTORE_ENDPOINT_ADDRESS"):
        client.get(f"tcp://{tcp}", "some-key")
    with pytest.raises(EndpointConnectorError, match="no endpoint configured on this site"):
        client.get("tcp://127.0.0.1:1", "some-key")
