"""Which objects go by proxy, and what that costs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from proxystore_rs.proxy import Proxy, is_resolved
from proxystore_rs.store import Store
from proxystore_rs.store.executor import (
    ProxyAlways,
    ProxyNever,
    ProxyRule,
    ProxySize,
    ProxyType,
    StoreExecutor,
    estimate_size,
)
from proxystore_rs.store.executor._carrier import Carrier, replace_items


@dataclass
class Holder:
    data: Any


MB = 1_000_000


@pytest.mark.parametrize(
    ("item", "size"),
    [
        (bytes(MB), MB),
        (bytearray(MB), MB),
        (memoryview(bytes(MB)), MB),
        ("x" * MB, MB),
        (np.zeros(MB // 8), MB),
        ([np.zeros(MB // 16)] * 2, MB),
        ({"a": {"b": [bytes(MB)]}}, MB),
        (Holder(bytes(MB)), MB),
        ([bytes(100)] * (MB // 100), MB),
        ([b""] * 5000 + [bytes(200)] * 5000, MB),
        ({str(number): bytes(1000) for number in range(1000)}, MB),
        ([], 0),
        ({}, 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_sizes_are_estimated(item: Any, size: int) -> None:
    assert size * 0.95 <= estimate_size(item) <= size * 1.1


def test_tables_are_asked() -> None:
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    column = np.arange(MB // 8)
    assert MB <= estimate_size(pandas.DataFrame({"a": column})) < 1.1 * MB
    assert MB <= estimate_size(pandas.Series(column)) < 1.1 * MB
    assert MB <= estimate_size(polars.DataFrame({"a": column})) < 1.1 * MB


def test_estimates_serialize_nothing_and_end() -> None:
    class Refuses:
        def __reduce__(self) -> Any:
            raise AssertionError("was pickled")

    endless: list[Any] = [Refuses()]
    endless.append(endless)
    assert estimate_size(endless) < 10_000


def test_rules_combine_and_travel() -> None:
    rule = ProxySize(1000) & (ProxyType(bytes, str) | ProxyType(list))
    arrived: ProxyRule = pickle.loads(pickle.dumps(rule))
    assert repr(arrived) == "(ProxySize(1000) & (ProxyType(bytes, str) | ProxyType(list)))"
    for one in (rule, arrived):
        assert one(bytes(2000)) and one([bytes(2000)])
        assert not one(bytes(10)) and not one(np.zeros(1000))
    assert ProxyAlways()(1) and not ProxyNever()(1)
    assert (ProxyNever() | (lambda item: item == 1))(1)
    with pytest.raises(NotImplementedError, match="ProxyRule"):
        ProxyRule()(1)


class Counting(Executor):
    """Runs tasks at once, here, and counts the bytes an engine would move for them."""

    def __init__(self) -> None:
        self.bytes = 0

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        function, args, kwargs = self.moved((function, args, kwargs))
        future.set_result(self.moved(function(*args, **kwargs)))
        return future

    def moved(self, thing: Any) -> Any:
        data = pickle.dumps(thing)
        self.bytes += len(data)
        return pickle.loads(data)


@pytest.mark.parametrize("inline", [0, 10_000])
def test_large_objects_do_not_go_through_the_engine(
    make_store: Callable[..., Store[Any]], inline: int
) -> None:
    counting = Counting()
    store = make_store("memory", inline_bytes=inline)
    with StoreExecutor(counting, store, ProxySize(1000), ownership=False) as pool:
        result = pool.submit(np.add, np.ones(MB), np.ones(MB)).result()
        assert counting.bytes < 2500
        assert float(result.sum()) == 2 * MB
        counting.bytes = 0
        small = pool.submit(np.add, np.ones(500), np.ones(500)).result()
        # Where the store has small objects inside references, they are in what travels.
        assert (counting.bytes > 3 * 4000) == bool(inline)
        assert float(small.sum()) == 1000


def test_a_rule_can_be_kept_from_small_objects(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory")
    with StoreExecutor(ThreadPoolExecutor(1), store, ProxyAlways(), inline_below=4000) as pool:
        assert type(pool.submit(bytes, 10).result()) is bytes
        assert issubclass(type(pool.submit(bytes, 10_000).result()), Proxy)


def test_the_default_rule_proxies_nothing(make_store: Callable[..., Store[Any]]) -> None:
    with StoreExecutor(ThreadPoolExecutor(1), make_store("memory")) as pool:
        assert type(pool.submit(bytes, MB).result()) is bytes
        assert pool.should_proxy(bytes(MB)) is False


def test_a_carrier_hides_its_proxy(make_store: Callable[..., Store[Any]]) -> None:
    proxy = make_store("memory").proxy(list(range(100)), populate_target=False)
    carrier = Carrier(proxy)
    assert not hasattr(carrier, "__dict__") and not isinstance(carrier, (list, Proxy))
    arrived = pickle.loads(pickle.dumps(carrier))
    assert type(arrived) is Carrier and repr(arrived) == "<Carrier of a proxy>"
    assert arrived.__dask_tokenize__() == carrier.__dask_tokenize__()
    assert carrier.open() is proxy and arrived.open() == list(range(100))
    assert not is_resolved(proxy)


def test_containers_are_rebuilt_only_where_something_changes() -> None:
    def replace(item: Any) -> Any:
        return "new" if item is old else item

    old = object()
    same = [1, (2, {"a": 3}), {4}, b"x"]
    assert replace_items(same, replace) is same
    assert replace_items([1, (old, {"a": old}), same], replace) == [1, ("new", {"a": "new"}), same]
    assert replace_items({old, 1}, replace) == {"new", 1}
    assert replace_items({"k": [old]}, replace) == {"k": ["new"]}
