"""A typed program. It runs, and type checkers agree with it (see test_typing.py)."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, assert_type

from proxystore_rs.connectors.local import LocalConnector
from proxystore_rs.proxy import (
    Facts,
    Proxy,
    ProxyLocker,
    ProxyOr,
    extract,
    facts,
    get_factory,
    is_resolved,
    resolve,
)
from proxystore_rs.store import Store, get_store
from proxystore_rs.store.ref import OwnedProxy, RefProxy, borrow


@dataclass
class Sample:
    name: str
    values: list[float]

    def mean(self) -> float:
        return sum(self.values) / len(self.values)


def total(values: list[float]) -> float:
    return sum(values)


def mean(sample: Sample) -> float:
    return sample.mean()


def either(values: ProxyOr[list[float]]) -> float:
    return sum(values)


def double(number: int, times: int = 1) -> str:
    return str(number * 2**times)


def main() -> None:
    with Store("typed-sample", LocalConnector(), register=True) as store:
        sample = Sample("a", [1.0, 2.0])
        assert_type(store, Store[LocalConnector])

        # A proxy says what it is a proxy of, and goes wherever that goes.
        proxy = store.proxy(sample)
        assert_type(proxy, Proxy[Sample])
        assert mean(proxy) == 1.5
        plain: Sample = proxy
        assert plain.name == "a"
        assert_type(extract(proxy), Sample)
        assert_type(Proxy.to_text(proxy, secret=True), str)
        assert_type(Proxy.from_text(Proxy.to_text(proxy)), Proxy[Any])
        assert_type(is_resolved(proxy), bool)
        assert_type(facts(proxy), Facts)
        assert_type(facts(proxy).shape, tuple[int, ...] | None)
        resolve(proxy)
        assert get_store(proxy) is store

        values = store.proxy([1.0, 2.0])
        assert_type(values, Proxy[list[float]])
        assert total(values) == either(values) == either([3.0]) == 3.0

        # Task engines are given proxies where the function wants their targets.
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(total, values)
            assert_type(future, Future[float])
            assert future.result() == 3.0

        # What one does to a proxy has the type that it has on the target.
        for value in values:
            assert_type(value, float)
        assert_type(len(values), int)

        function = store.proxy(double)
        assert_type(function(1, times=2), str)

        assert_type(1 + Proxy(lambda: 2), int)
        assert_type(get_factory(Proxy(lambda: 2))(), int)
        assert_type(store.proxy_batch([1, 2]), list[Proxy[int]])

        # Owners and borrows are proxies.
        owner = store.owned_proxy([1.0, 2.0])
        assert_type(owner, OwnedProxy[list[float]])
        shared = borrow(owner)
        assert_type(shared, RefProxy[list[float]])
        assert total(owner) == total(shared) == 3.0
        del shared
        locked = store.locked_proxy([1.0])
        assert_type(locked, ProxyLocker[list[float]])
        assert_type(locked.unlock(), Proxy[list[float]])
        assert_type(store.locked_proxy(None), None)

        # A proxy of a bool will do where one of an int is wanted.
        number: Proxy[int] = Proxy(lambda: True)
        assert number


if __name__ == "__main__":
    main()
