"""The connector on a dictionary keeps the connector contract."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from proxystore_rs.connectors.local import LocalConnector, LocalKey
from proxystore_rs.connectors.protocols import Connector, DeferrableConnector


def test_is_a_connector_that_can_defer() -> None:
    assert isinstance(LocalConnector(), Connector)
    assert isinstance(LocalConnector(), DeferrableConnector)
    assert not isinstance({}, Connector)


def test_put_get_exists_evict() -> None:
    with LocalConnector() as connector:
        key = connector.put(b"data")
        assert connector.exists(key)
        assert connector.get(key) == b"data"
        connector.evict(key)
        connector.evict(key)
        assert not connector.exists(key)
        assert connector.get(key) is None


def test_batches_keep_their_order() -> None:
    connector = LocalConnector()
    keys = connector.put_batch([b"a", b"", b"c"])
    assert connector.get_batch([*keys, LocalKey("absent")]) == [b"a", b"", b"c", None]
    assert connector.put_batch([]) == []


def test_deferred_keys_are_filled_later_and_again() -> None:
    connector = LocalConnector()
    key = connector.new_key()
    assert not connector.exists(key)
    connector.set(key, b"1")
    connector.set(key, b"2")
    assert connector.get(key) == b"2"


@pytest.mark.parametrize("wrap", [bytearray, memoryview])
def test_what_is_stored_does_not_change_with_the_buffer(wrap: Any) -> None:
    connector = LocalConnector()
    buffer = bytearray(b"data")
    key = connector.put(wrap(buffer))
    buffer[:] = b"atad"
    assert connector.get(key) == b"data"


def test_refuses_what_is_not_bytes() -> None:
    with pytest.raises(TypeError, match="stores bytes, not str"):
        LocalConnector().put("text")  # type: ignore[arg-type]


def test_uses_the_dictionary_it_is_given() -> None:
    shared: dict[LocalKey, Any] = {}
    key = LocalConnector(shared).put(b"data")
    assert shared == {key: b"data"}
    assert LocalConnector(shared).get(key) == b"data"


def test_config_has_the_data_only_when_asked() -> None:
    connector = LocalConnector(include_data_in_config=True)
    key = connector.put(b"data")
    config = pickle.loads(pickle.dumps(connector.config()))
    assert LocalConnector.from_config(config).get(key) == b"data"
    assert LocalConnector().config() == {"include_data_in_config": False}


def test_keys_are_picklable_named_tuples() -> None:
    key = LocalKey("abc")
    assert pickle.loads(pickle.dumps(key)) == key == ("abc",)
    assert key._replace(id="d") == LocalKey("d")


def test_attributes_can_be_set() -> None:
    connector = LocalConnector()
    connector.close = lambda: None  # type: ignore[method-assign]
    connector.close()
