"""Endpoints of the tests' own: started here, killed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import Endpoint, program


@pytest.fixture(scope="session")
def endpoint_binary() -> Path:
    """The command `proxystore` of this repository."""
    return program()


@pytest.fixture
def make_endpoint(
    endpoint_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Endpoint]]:
    """A function `(name, **sections of config.toml)` that starts endpoints.

    Each has a home of its own, unless `home` says where it is.
    """
    made: list[Endpoint] = []

    def make(name: str = "site-a", *, home: Path | None = None, **sections: Any) -> Endpoint:
        made.append(Endpoint(home or tmp_path_factory.mktemp("home"), name, **sections))
        return made[-1].start()

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
