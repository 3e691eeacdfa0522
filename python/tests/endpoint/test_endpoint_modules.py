"""The modules around endpoints, where there is no endpoint and no program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proxystore_rs.connectors.endpoint import EndpointConnector, EndpointConnectorError
from proxystore_rs.endpoint import client, commands, config
from proxystore_rs.exceptions import EndpointConfigError, ProxyStoreError


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without endpoints, and a path without programs."""
    monkeypatch.setenv("PROXYSTORE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PROXYSTORE_BINARY", raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return tmp_path


def test_without_the_program_the_error_names_the_extra(nothing: Path) -> None:
    for call in (
        lambda: commands.configure_endpoint("site", port=None, relay_server=None),
        lambda: commands.start_endpoint("site"),
        lambda: commands.stop_endpoint("site"),
        lambda: commands.remove_endpoint("site"),
    ):
        with pytest.raises(FileNotFoundError, match=r"pip install 'proxystore-rs\[endpoints\]'"):
            call()


def test_a_variable_that_names_no_program_is_said(
    nothing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXYSTORE_BINARY", str(nothing / "absent"))
    with pytest.raises(FileNotFoundError, match="PROXYSTORE_BINARY names"):
        commands.start_endpoint("site")


def test_the_command_line_says_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxystore_rs.endpoint.cli", "list"],
        env={"PROXYSTORE_BINARY": str(tmp_path / "absent")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Error: $PROXYSTORE_BINARY names" in done.stderr and "Traceback" not in done.stderr


def test_where_nothing_is_configured(nothing: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert commands.get_status("site") is commands.EndpointStatus.UNKNOWN
    assert commands.list_endpoints() == 0
    assert "No valid endpoint configurations." in caplog.text
    assert config.get_configs(str(nothing)) == []
    with pytest.raises(FileNotFoundError, match="proxystore endpoint configure"):
        config.read_config(str(nothing))
    with pytest.raises(EndpointConfigError, match="no endpoint configured on this site is at"):
        client.get("tcp://127.0.0.1:1", "key")


@pytest.mark.parametrize("endpoints", [[], "site"])
def test_what_names_no_endpoint_is_refused(nothing: Path, endpoints: list[str]) -> None:
    with pytest.raises(EndpointConnectorError, match="proxystore endpoint") as raised:
        EndpointConnector(endpoints)
    assert isinstance(raised.value, ProxyStoreError) and isinstance(raised.value, ValueError)


def test_names_and_fields_are_checked() -> None:
    uuid = "d8a1f2c4-0000-8000-8000-000000000000"
    made = config.EndpointConfig(name="site", uuid=uuid, port=0)
    assert made.relay.address is None and made.storage.persist is False
    with pytest.raises(ValueError, match=r"name must be letters"):
        config.EndpointConfig(name="a site", uuid=uuid, port=0)
    with pytest.raises(ValueError, match=r"port must be a port"):
        config.EndpointConfig(name="site", uuid=uuid, port=65536)
    with pytest.raises(ValueError, match=r"uuid must be a UUID"):
        config.EndpointConfig(name="site", uuid="me", port=0)
    with pytest.raises(ValueError, match=r"memory must be a size such as"):
        config.EndpointStorageConfig(memory="much")
    assert "hush" not in repr(config.EndpointRelayConfig(token="hush"))
