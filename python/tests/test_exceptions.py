"""Every exception can be caught by its base, travels between processes, and says what to do."""

from __future__ import annotations

import copy
import pickle

import pytest

from proxystore_rs import exceptions
from proxystore_rs.connectors.local import LocalConnector, LocalKey

ALL = [getattr(exceptions, name) for name in exceptions.__all__]
PLAIN = [kind for kind in ALL if not issubclass(kind, exceptions.ProxyResolveMissingKeyError)]


@pytest.mark.parametrize("kind", ALL)
def test_share_one_base_and_say_how_to_go_on(kind: type[Exception]) -> None:
    assert issubclass(kind, exceptions.ProxyStoreError)
    assert kind.__doc__


@pytest.mark.parametrize("kind", PLAIN)
def test_take_one_message_and_survive_pickling(kind: type[Exception]) -> None:
    error = kind("failed to put object: no space left")
    error.add_note("on the third attempt")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is kind
        assert str(again) == "failed to put object: no space left"
        assert again.args == error.args
        assert again.__notes__ == ["on the third attempt"]


@pytest.mark.parametrize(
    ("kind", "natural"),
    [
        (exceptions.ObjectNotFoundError, KeyError),
        (exceptions.StoreConfigError, ValueError),
        (exceptions.UnsupportedOperationError, NotImplementedError),
        (exceptions.ChannelError, OSError),
        (exceptions.ChannelFullError, exceptions.ChannelError),
        (exceptions.ChannelPermissionError, PermissionError),
        (exceptions.ChannelTimeoutError, TimeoutError),
        (exceptions.CorruptObjectError, exceptions.SerializationError),
        (exceptions.StoreClosedError, exceptions.StoreError),
    ],
)
def test_are_also_the_natural_exception(kind: type, natural: type) -> None:
    assert issubclass(kind, natural)


def test_missing_key_is_none_that_hasattr_and_loops_swallow() -> None:
    swallowed = (AttributeError, LookupError, TypeError, StopIteration)
    assert not issubclass(exceptions.ProxyResolveMissingKeyError, swallowed)
    assert not issubclass(exceptions.SerializationError, swallowed)
    assert not issubclass(exceptions.StoreClosedError, swallowed)


def test_missing_key_knows_what_it_is_about_and_travels() -> None:
    key = LocalKey("abc")
    error = exceptions.ProxyResolveMissingKeyError(key, LocalConnector, "results")
    error.add_note("in task 7")
    assert "results" in str(error)
    assert "LocalConnector" in str(error)
    assert repr(key) in str(error)
    assert "evict" in str(error)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (again.key, again.store_type, again.store_name) == (key, LocalConnector, "results")
        assert str(again) == str(error)
        assert again.__notes__ == ["in task 7"]


def test_the_same_objects_are_found_at_other_paths() -> None:
    from proxystore_rs import serialize
    from proxystore_rs.store import exceptions as store_exceptions

    assert serialize.SerializationError is exceptions.SerializationError
    for name in store_exceptions.__all__:
        assert getattr(store_exceptions, name) is getattr(exceptions, name)
