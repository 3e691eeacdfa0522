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
    """A function `(name, **sections of config.toml)` that starts endpoints, each in a home of its own."""
    made: list[Endpoint] = []

    def make(name: str = "site-a", **sections: Any) -> Endpoint:
        made.append(Endpoint(tmp_path_factory.mktemp("home"), name, **sections))
        return made[-1].start()

    yield make
    for endpoint in made:
        endpoint.kill()


@pytest.fixture
def endpoint(make_endpoint: Callable[..., Endpoint]) -> Endpoint:
    """An endpoint that runs."""
    return make_endpoint()
