"""Metrics add up by key, from any thread, and are handed out as copies."""

from __future__ import annotations

import threading
import time

import pytest

from proxystore_rs.exceptions import ProxyStoreFactoryError
from proxystore_rs.proxy import Proxy
from proxystore_rs.store.metrics import Metrics, StoreMetrics, TimeStats

KEY = ("a",)
OTHER = ("b",)


def test_times_are_summed_up() -> None:
    stats = TimeStats()
    before = time.time()
    for time_ms in (2, 6, 4):
        stats.add_time(time_ms)
    assert (stats.count, stats.avg_time_ms, stats.last_time_ms) == (3, 4, 4)
    assert (stats.min_time_ms, stats.max_time_ms) == (2, 6)
    assert before <= stats.last_timestamp <= time.time()


def test_sum_weighs_averages_and_takes_the_later_last() -> None:
    early = TimeStats(1, 10, 10, 10, 10, last_timestamp=1)
    late = TimeStats(3, 2, 1, 3, 3, last_timestamp=2)
    expected = TimeStats(4, 4, 1, 10, 3, last_timestamp=2)
    assert early + late == expected
    assert late + early == expected
    assert late + TimeStats() == late
    assert TimeStats() + TimeStats() == TimeStats()
    with pytest.raises(TypeError):
        late + 3  # type: ignore[operator]


def test_everything_is_kept_by_key() -> None:
    metrics = StoreMetrics()
    metrics.add_attribute("size", KEY, 10)
    metrics.add_attribute("size", KEY, 20)
    metrics.add_counter("hits", KEY, 1)
    metrics.add_counter("hits", KEY, 2)
    metrics.add_time("get", KEY, 5)
    found = metrics.get_metrics(KEY)
    assert found is not None
    assert found.attributes == {"size": 20}
    assert found.counters == {"hits": 3}
    assert found.times["get"].count == 1
    assert found.as_dict()["times"]["get"]["avg_time_ms"] == 5
    assert metrics.get_metrics(OTHER) is None


def test_a_batch_is_not_its_members() -> None:
    metrics = StoreMetrics()
    metrics.add_time("put_batch", [KEY, OTHER], 5)
    assert metrics.get_metrics(KEY) is None
    assert metrics.get_metrics([KEY, OTHER]) is not None
    assert metrics.get_metrics((KEY, OTHER)) == metrics.get_metrics([KEY, OTHER])
    assert metrics.get_metrics([OTHER, KEY]) is None


def test_what_is_handed_out_is_a_copy() -> None:
    metrics = StoreMetrics()
    metrics.add_attribute("sizes", KEY, [1])
    found = metrics.get_metrics(KEY)
    assert found is not None
    found.attributes["sizes"].append(2)
    assert metrics.get_metrics(KEY) == Metrics(attributes={"sizes": [1]})


def test_times_of_all_keys_together() -> None:
    metrics = StoreMetrics()
    metrics.add_time("get", KEY, 2)
    metrics.add_time("get", OTHER, 4)
    metrics.add_time("put", OTHER, 1)
    totals = metrics.aggregate_times()
    assert totals["get"].avg_time_ms == 3
    assert totals["put"].count == 1
    assert set(totals) == {"get", "put"}


@pytest.mark.parametrize("many", [False, True])
def test_a_proxy_without_a_store_is_an_error(many: bool) -> None:
    proxy: Proxy[dict[str, int]] = Proxy(dict)
    with pytest.raises(ProxyStoreFactoryError, match="StoreFactory"):
        StoreMetrics().get_metrics([proxy] if many else proxy)
    assert not proxy.__proxy_resolved__


def test_threads_lose_nothing() -> None:
    metrics = StoreMetrics()

    def work() -> None:
        for _ in range(1000):
            metrics.add_counter("n", KEY, 1)
            metrics.add_time("t", KEY, 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = metrics.get_metrics(KEY)
    assert found is not None
    assert found.counters == {"n": 4000}
    assert found.times["t"].count == 4000
