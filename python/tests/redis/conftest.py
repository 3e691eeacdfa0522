"""Redis servers of the tests' own: started here, killed at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis_server import RedisServer, need_redis


@pytest.fixture(scope="session")
def _has_redis() -> None:
    need_redis()


@pytest.fixture
def redis(_has_redis: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that lets everybody in."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def locked_redis(
    _has_redis: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    """A server that wants a password, which no test may show."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), password="hush-hush")
    yield server
    server.kill()


@pytest.fixture
def tls_redis(_has_redis: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that wants a password over an encrypted connection."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), password="hush-hush", tls=True)
    yield server
    server.kill()
