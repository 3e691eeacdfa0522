"""Endpoints of the tests' own: started here, killed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from endpoint_daemon import Endpoint
from natlab import NatLab, need_lab
from rust_programs import rust_command
from sites import Relay, Sites


@pytest.fixture(scope="session")
def endpoint_binary() -> Path:
    """The command `proxystore` of this repository."""
    return rust_command("proxystore")


@pytest.fixture
def make_endpoint(endpoint_binary: Path, tmp_path: Path) -> Iterator[Callable[..., Endpoint]]:
    """A function that starts endpoints of one home.

    It takes a name, options of `configure`, and by keyword what sections of config.toml are to say.
    """
    made: list[Endpoint] = []
    home = tmp_path / "home"
    home.mkdir()

    def make(name: str = "site-a", *options: str, **sections: Mapping[str, Any]) -> Endpoint:
        made.append(Endpoint(endpoint_binary, home, name, *options))
        made[-1].configure(**sections)
        made[-1].start()
        return made[-1]

    yield make
    for endpoint in made:
        endpoint.kill()


@pytest.fixture
def endpoint(make_endpoint: Callable[..., Endpoint]) -> Endpoint:
    """An endpoint that runs."""
    return make_endpoint()


@pytest.fixture
def site(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """An endpoint that runs, at the home of this process."""
    monkeypatch.setenv("PROXYSTORE_HOME", str(endpoint.home))
    return endpoint


@pytest.fixture(scope="module")
def lab() -> Iterator[NatLab]:
    """A lab that a module builds once; nothing leaves it."""
    need_lab()
    with NatLab() as lab:
        yield lab
        assert lab.leaks() == 0


@pytest.fixture(scope="module")
def relay(
    lab: NatLab, endpoint_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Relay]:
    """The relay of the lab."""
    relay = Relay(endpoint_binary, tmp_path_factory.mktemp("relay"), lab)
    yield relay
    relay.kill()


@pytest.fixture
def sites(
    lab: NatLab, relay: Relay, endpoint_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sites]:
    """Endpoints behind NATs, each the other's peer, to be started."""
    lab.nat("A", "independent")
    lab.nat("B", "independent")
    sites = Sites(endpoint_binary, tmp_path_factory.mktemp("sites"), lab, relay)
    yield sites
    sites.kill()
    lab.unblock()
