"""Endpoints of the tests' own: started here, killed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from endpoint_daemon import Endpoint, build


@pytest.fixture(scope="session")
def endpoint_binary() -> Path:
    """The command `proxystore` of this repository."""
    return build()


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
