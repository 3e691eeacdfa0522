"""The endpoint connector: its arguments, keys and configuration, and what it says when nobody answers."""

from __future__ import annotations

import pickle
import threading
import uuid
from collections.abc import Callable

import pytest
from endpoint_daemon import Endpoint

from proxystore_rs.connectors.endpoint import (
    EndpointConnector,
    EndpointConnectorError,
    EndpointKey,
)
from proxystore_rs.exceptions import (
    ChannelError,
    EndpointConfigError,
    EndpointPermissionError,
    StoreClosedError,
)
from proxystore_rs.store.config import ConnectorConfig


def test_an_endpoint_goes_by_name_uuid_and_id(site: Endpoint) -> None:
    card = site.card
    for name in (site.name, card["uuid"], uuid.UUID(card["uuid"]), card["id"]):
        with EndpointConnector([name]) as connector:
            assert connector.endpoints == [card["id"]]
            key = connector.put(b"hello")
            assert bytes(connector.get(key)) == b"hello"
            connector.close(clear=True)


def test_keys_name_object_and_endpoint(site: Endpoint) -> None:
    with EndpointConnector([site.name]) as connector:
        key = connector.put(b"hello")
        assert isinstance(key, EndpointKey)
        assert key.object_id.startswith(f"{connector.namespace}.")
        assert key.endpoint_id == site.card["id"] and key.size == 5
        assert pickle.loads(pickle.dumps(key)) == key and hash(key) == hash(EndpointKey(*key))
        assert bytes(connector.get(EndpointKey(key.object_id, key.endpoint_id))) == b"hello"
        connector.evict(key)
        assert connector.get(key) is None and not connector.exists(key)
        connector.evict(key)
        with pytest.raises(TypeError, match="not a key of this connector"):
            connector.get(("one part",))


def test_an_empty_object_is_one(site: Endpoint) -> None:
    with EndpointConnector([site.name]) as connector:
        key = connector.put(b"")
        assert connector.exists(key) and bytes(connector.get(key)) == b""


def test_batches(site: Endpoint) -> None:
    with EndpointConnector([site.name]) as connector:
        assert connector.put_batch([]) == [] and connector.get_batch([]) == []
        objects = [str(number).encode() * (number % 50) for number in range(1000)]
        keys = connector.put_batch(objects)
        assert [bytes(found) for found in connector.get_batch(keys)] == objects
        never = EndpointKey("never.stored", keys[0].endpoint_id)
        found = connector.get_batch([keys[5], never, keys[7]])
        assert found[1] is None and bytes(found[2]) == objects[7]


def test_clear_removes_the_namespace_and_nothing_else(site: Endpoint) -> None:
    other = EndpointConnector([site.name], namespace="other")
    kept = other.put(b"kept")
    connector = EndpointConnector([site.name], namespace="mine", clear=True)
    key = connector.put(b"gone")
    assert bytes(other.get(key)) == b"gone"
    connector.close()
    assert other.get(key) is None and bytes(other.get(kept)) == b"kept"
    other.close()
    with pytest.raises(StoreClosedError):
        connector.put(b"late")


def test_times_to_live(site: Endpoint) -> None:
    with EndpointConnector([site.name]) as connector:
        key = connector.put(b"x", ttl=0.001)
        while connector.exists(key):
            pass
        key = connector.put(b"x", ttl=1000)
        connector.expire([key], 0.001)
        while connector.exists(key):
            pass
        key = connector.put(b"x", ttl=1000)
        connector.expire([key], None)
        assert connector.exists(key)


def test_a_filled_key_wakes_a_waiter(site: Endpoint) -> None:
    with EndpointConnector([site.name]) as connector:
        key = connector.new_key()
        assert not connector.wait(key, timeout=0.01)
        woken: list[bool] = []
        waiter = threading.Thread(target=lambda: woken.append(connector.wait(key, timeout=60)))
        waiter.start()
        EndpointConnector.from_config(connector.config()).set(key, b"there")
        waiter.join()
        assert woken == [True] and bytes(connector.get(key)) == b"there"


def test_a_configuration_opens_an_equal_connector(site: Endpoint) -> None:
    with EndpointConnector([site.name], timeout=20, namespace="same") as connector:
        config = connector.config()
        assert config["endpoints"] == [site.card["id"]] and config["namespace"] == "same"
        assert config["timeout"] == 20
        again = EndpointConnector.from_config(config)
        assert again.config() == config and again.url == connector.url
        key = connector.put(b"x")
        assert bytes(again.get(key)) == b"x"
        by_name = ConnectorConfig(kind="endpoint", options=config).get_connector()
        assert isinstance(by_name, EndpointConnector)
        native = ConnectorConfig(kind="endpoint", options=config)._native()
        assert ConnectorConfig._from_native(*native).options == config


def test_a_directory_may_be_given(endpoint: Endpoint) -> None:
    connector = EndpointConnector([endpoint.name], str(endpoint.home))
    assert connector.proxystore_dir == str(endpoint.home)
    assert connector.config()["proxystore_dir"] == str(endpoint.home)
    again = EndpointConnector.from_config(connector.config())
    assert bytes(again.get(connector.put(b"x"))) == b"x"


def test_the_token_is_nowhere(site: Endpoint) -> None:
    token = (site.directory / "token").read_text().strip()
    assert len(token) > 16
    with EndpointConnector([site.name]) as connector:
        shown = repr(connector), repr(connector.config()), connector.url, repr(connector.put(b"x"))
        assert token not in "".join(shown)
        assert site.card["id"] in repr(connector)


def test_the_next_endpoint_is_asked_when_one_is_down(
    make_endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_endpoint("first")
    second = make_endpoint("second")
    monkeypatch.setenv("PROXYSTORE_HOME", str(first.home))
    first.stop()
    with EndpointConnector(["first", "second"]) as connector:
        key = connector.put(b"x")
        assert key.endpoint_id == second.card["id"]
        assert bytes(connector.get(key)) == b"x"


def test_when_none_runs_the_error_says_how_to_start_one(site: Endpoint) -> None:
    site.stop()
    with pytest.raises(EndpointConnectorError, match="proxystore endpoint start") as raised:
        EndpointConnector([site.name]).put(b"x")
    assert isinstance(raised.value, ChannelError) and isinstance(raised.value, OSError)
    assert site.name in str(raised.value)
    assert type(pickle.loads(pickle.dumps(raised.value))) is type(raised.value)


def test_one_that_is_killed_is_an_error_and_no_hang(site: Endpoint) -> None:
    with EndpointConnector([site.name], timeout=10) as connector:
        key = connector.put(b"x")
        site.kill()
        with pytest.raises(EndpointConnectorError):
            connector.get(key)
        site.start()
        assert connector.get(key) is None  # it was in memory
        assert bytes(connector.get(connector.put(b"y"))) == b"y"


def test_a_wrong_token_is_refused(site: Endpoint) -> None:
    token = site.directory / "token"
    text = token.read_text()
    token.write_text("a" * 52 if text.strip() != "a" * 52 else "b" * 52)
    with pytest.raises(EndpointConnectorError) as raised:
        EndpointConnector([site.name]).put(b"x")
    assert isinstance(raised.value, EndpointPermissionError), raised.value


def test_what_names_no_endpoint_is_refused(site: Endpoint) -> None:
    with pytest.raises(EndpointConfigError, match="nobody-of-this-name") as raised:
        EndpointConnector(["nobody-of-this-name"])
    assert isinstance(raised.value, ValueError)
    with pytest.raises(ValueError, match="namespace"):
        EndpointConnector([site.name], namespace="a.b")
