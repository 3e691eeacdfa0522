"""The Redis connector: its arguments, keys and configuration."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest

from proxystore_rs.connectors.redis import RedisConnector, RedisKey
from proxystore_rs.exceptions import (
    ChannelError,
    ChannelPermissionError,
    StoreClosedError,
    StoreConfigError,
)
from proxystore_rs.store.config import ConnectorConfig


def test_the_positional_arguments_and_attributes(redis: Any) -> None:
    connector = RedisConnector("127.0.0.1", redis.port, True)
    assert (connector.hostname, connector.port, connector.clear) == ("127.0.0.1", redis.port, True)
    assert connector.url == redis.url
    key = connector.put(b"hello")
    assert isinstance(key, RedisKey) and key.redis_key.startswith(connector.namespace + ".")
    assert pickle.loads(pickle.dumps(key)) == key and hash(key) == hash(RedisKey(*key))
    assert bytes(connector.get(key)) == b"hello"
    assert bytes(connector.get(RedisKey(key.redis_key))) == b"hello"
    assert connector.exists(key) and redis.keys() == 1
    connector.evict(key)
    assert connector.get(key) is None and not connector.exists(key)
    connector.put(b"cleared")
    connector.close()
    assert redis.keys() == 0
    with pytest.raises(StoreClosedError):
        connector.put(b"late")


def test_batches(redis: Any) -> None:
    with RedisConnector("127.0.0.1", redis.port) as connector:
        assert connector.put_batch([]) == [] and connector.get_batch([]) == []
        objects = [str(number).encode() * (number % 50) for number in range(3000)]
        keys = connector.put_batch(objects)
        assert [bytes(found) for found in connector.get_batch(keys)] == objects
        found = connector.get_batch([keys[5], RedisKey("never"), keys[7]])
        assert found[1] is None and bytes(found[2]) == objects[7]
        connector.close(clear=True)
    assert redis.keys() == 0


def test_times_to_live(redis: Any) -> None:
    with RedisConnector("127.0.0.1", redis.port, ttl=1000) as connector:
        name = f"proxystore:{{{connector.put(b'x').redis_key}}}"
        assert 900 < int(redis.ask(f"TTL {name}").removeprefix(":")) <= 1000
        key = connector.put(b"x", ttl=0.001)
        while connector.exists(key):
            pass
        key = connector.put(b"x")
        connector.expire([key], None)
        assert redis.ask(f"TTL proxystore:{{{key.redis_key}}}") == ":-1"


def test_a_filled_key_wakes_a_waiter(redis: Any) -> None:
    with RedisConnector("127.0.0.1", redis.port) as connector:
        key = connector.new_key()
        assert not connector.wait(key, timeout=0.01)
        woken: list[bool] = []
        waiter = threading.Thread(target=lambda: woken.append(connector.wait(key, timeout=60)))
        waiter.start()
        RedisConnector.from_config(connector.config()).set(key, b"there")
        waiter.join()
        assert woken == [True] and bytes(connector.get(key)) == b"there"


def test_other_ways_to_the_server(redis: Any, tls_redis: Any, locked_redis: Any) -> None:
    login = {"username": "default", "password": "hush-hush"}
    ca = {"ca_file": tls_redis.ca_file}
    url = tls_redis.url.replace("://", "://default:hush-hush@")
    for connector in (
        RedisConnector(unix_socket=str(redis.socket), database=3),
        RedisConnector.from_url(f"redis+unix://{redis.socket}?db=3"),
        RedisConnector("127.0.0.1", tls_redis.port, tls=True, **login, **ca),
        RedisConnector.from_url(url, **ca, share_credentials=True),
        RedisConnector("127.0.0.1", locked_redis.port, share_credentials=True, **login),
    ):
        key = connector.put(b"hello")
        config = connector.config()
        if connector.share_credentials:
            assert config["password"] == "hush-hush"
            assert "hush" not in repr(ConnectorConfig(kind="redis", options=config))
        elif "unix_socket" not in config:
            assert not {"username", "password"} & set(config)
            config |= login
        with RedisConnector.from_config(config) as again:
            assert again.url == connector.url and again.config() == connector.config()
            assert bytes(again.get(key)) == b"hello"
        assert "hush" not in f"{connector!r} {connector.url}"
        connector.close(clear=True)


def test_who_is_not_let_in_is_told_what_to_do(
    locked_redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RedisConnector("127.0.0.1", locked_redis.port, password="hush-hush").config()
    for password in (None, "hush"):
        with pytest.raises(ChannelPermissionError, match="PROXYSTORE_REDIS_PASSWORD") as caught:
            RedisConnector("127.0.0.1", locked_redis.port, password=password)
        assert "hush" not in str(caught.value)
    monkeypatch.setenv("PROXYSTORE_REDIS_PASSWORD", "hush-hush")
    RedisConnector.from_config(config).close()


def test_without_a_server_the_error_says_what_to_do(redis: Any) -> None:
    connector = RedisConnector("127.0.0.1", redis.port, retries=1)
    redis.kill()
    with pytest.raises(ChannelError, match=f"127.0.0.1:{redis.port}.*redis-server"):
        RedisConnector("127.0.0.1", redis.port, retries=0)
    with pytest.raises(ChannelError, match="cannot be reached"):
        connector.put(b"x")
    assert redis.start()
    assert bytes(connector.get(connector.put(b"recovered"))) == b"recovered"


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ({"hostname": "Host", "port": 1, "database": 2, "tls": True}, {}),
        ({"hostname": "::1", "port": 6379}, {"namespace": "n"}),
        ({"unix_socket": "/run/a b.sock"}, {"ttl": 5}),
        ({"cluster": ["b:2", "a:1", "b:2"]}, {}),
        ({"cluster": ["a"], "tls": True}, {}),
    ],
)
def test_arguments_and_urls_say_the_same(arguments: dict[str, Any], options: Any) -> None:
    url, native = RedisConnector._to_url({**arguments, **options, "clear": True})
    assert native == options
    again = RedisConnector._from_url(url, native)
    assert RedisConnector._to_url(again) == (url, native)


@pytest.mark.parametrize(
    "arguments",
    [
        {"cluster": ["a"], "database": 1},
        {"cluster": ["a"], "unix_socket": "/a"},
        {"unix_socket": "/a", "tls": True},
        {"cluster": ["a:b"]},
        {"namespace": "a.b"},
        {"timeout": -1},
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(StoreConfigError):
        RedisConnector(**arguments)


@pytest.mark.parametrize(
    "url", ["redis://", "redis://a:b", "redis://a/x", "redis+cluster://a/1", "http://a"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(StoreConfigError):
        RedisConnector.from_url(url)
