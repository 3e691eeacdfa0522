"""Opening stores by name from many threads, some of them slowly."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from proxystore_rs.connectors.local import LocalConnector
from proxystore_rs.store import get_or_create_store, get_store, open_store
from proxystore_rs.store.config import ConnectorConfig, StoreConfig

PATIENCE = 60


class SlowConnector(LocalConnector):
    """Waits in its constructor, as for a server far away."""

    entered = threading.Semaphore(0)
    may_go_on = threading.Event()
    failures = 0
    opened = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).entered.release()
        assert self.may_go_on.wait(PATIENCE)
        if type(self).failures:
            type(self).failures -= 1
            raise OSError("the server hangs up")
        type(self).opened += 1

    def config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SlowConnector:
        return cls()


@pytest.fixture(autouse=True)
def _reset() -> None:
    SlowConnector.entered = threading.Semaphore(0)
    SlowConnector.may_go_on = threading.Event()
    SlowConnector.failures = SlowConnector.opened = 0


def slow(name: str) -> StoreConfig:
    path = f"{SlowConnector.__module__}.SlowConnector"
    return StoreConfig(name=name, connector=ConnectorConfig(kind=path), auto_register=True)


def test_a_name_is_opened_once_and_others_do_not_wait() -> None:
    with ThreadPoolExecutor(4) as pool:
        opening = [pool.submit(get_or_create_store, slow("slow")) for _ in range(4)]
        assert SlowConnector.entered.acquire(timeout=PATIENCE)
        with open_store("memory://quick") as quick:
            assert open_store("memory://quick") is quick
        with get_or_create_store(quick.config()):
            assert get_store("slow") is None
        SlowConnector.may_go_on.set()
        stores = {id(future.result(PATIENCE)) for future in opening}
    assert len(stores) == 1 and SlowConnector.opened == 1
    store = get_store("slow")
    assert store is not None
    store.close()


def test_when_opening_fails_the_next_thread_tries() -> None:
    SlowConnector.failures = 2
    SlowConnector.may_go_on.set()
    with ThreadPoolExecutor(4) as pool:
        opening = [pool.submit(get_or_create_store, slow("flaky")) for _ in range(4)]
        failures = [future.exception(PATIENCE) for future in opening]
    assert sum(isinstance(failure, OSError) for failure in failures) == 2
    assert SlowConnector.opened == 1
    store = get_store("flaky")
    assert store is not None
    store.close()


def test_without_registering_each_call_opens_a_store() -> None:
    SlowConnector.may_go_on.set()
    config = StoreConfig(name="unregistered", connector=slow("x").connector)
    stores = [get_or_create_store(config, register=False) for _ in range(2)]
    assert stores[0] is not stores[1] and get_store("unregistered") is None
    for store in stores:
        store.close()
