"""Times to live, as Python programs ask for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from proxystore_rs.exceptions import UnsupportedOperationError
from proxystore_rs.store import Store
from proxystore_rs.store.utils import get_key

NATIVE = ("memory", "file", "shm", "multi")
LONG = 3600


@pytest.fixture(params=NATIVE)
def native(request: pytest.FixtureRequest, make_store: Callable[..., Store[Any]]) -> Store[Any]:
    return make_store(request.param, cache_size=0)


def test_objects_have_a_time_to_live(native: Store[Any]) -> None:
    gone = [
        native.put("x", ttl=0),
        *native.put_batch(["x", [1] * 50_000], ttl=0),
        get_key(native.proxy("x", ttl=0)),
        *map(get_key, native.proxy_batch(["x", "y"], ttl=0)),
    ]
    lasting = native.put_batch(["x", [1] * 50_000], ttl=LONG)
    assert not any(map(native.exists, gone))
    assert [native.get(key, default="gone") for key in gone] == ["gone"] * 6
    assert [native.get(key) for key in lasting] == ["x", [1] * 50_000]
    with pytest.raises(ValueError, match="seconds"):
        native.put("x", ttl=-1)
    with pytest.raises(ValueError, match="seconds"):
        native.put("x", ttl=math.nan)


def test_a_time_to_live_can_be_changed(native: Store[Any]) -> None:
    keys = native.put_batch(["x", [1] * 50_000], ttl=LONG)
    native.expire(keys, None)
    native.expire(keys, 2 * LONG)
    assert all(map(native.exists, keys))
    native.connector.expire(keys, ttl=0)
    assert not any(map(native.exists, keys))
    native.expire(keys, None)
    assert not any(map(native.exists, keys)), "what expired stays away"


def test_connectors_take_it_too(native: Store[Any]) -> None:
    connector = native.connector
    assert not connector.exists(connector.put(b"x", ttl=0))
    assert bytes(connector.get(connector.put(b"x", ttl=LONG))) == b"x"
    assert connector.get_batch(connector.put_batch([b"x", b"y"], ttl=0)) == [None, None]


def test_channels_without_times_to_live_say_so(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("local")
    key = store.put("x")
    for ttl in (LONG, None):
        with pytest.raises(UnsupportedOperationError):
            store.expire([key], ttl)
    assert store.get(key) == "x"
