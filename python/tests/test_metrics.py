"""Metrics add up by key, from any thread, and are handed out as copies."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxystore_rs.connectors.local import LocalConnector
from proxystore_rs.connectors.memory import MemoryConnector
from proxystore_rs.exceptions import ProxyStoreFactoryError
from proxystore_rs.proxy import Proxy
from proxystore_rs.store import Store
from proxystore_rs.store.metrics import (
    Metrics,
    StoreMetrics,
    TimeStats,
    instruments,
    observations,
    to_prometheus,
)

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


PUT = {"store.put", "store.put.connector", "store.put.serialize"}
GET = {"store.get", "store.get.connector", "store.get.deserialize"}
FACTORY = {"factory.call", "factory.resolve"}
EVICT = {"store.evict", "store.evict.connector"}


def test_every_operation_is_recorded_by_its_name() -> None:
    store = Store("named-metrics", LocalConnector(), metrics=True)
    metrics = store.metrics
    assert metrics is not None

    def found(key: Any) -> set[str]:
        known = metrics.get_metrics(key)
        return set() if known is None else set(known.times)

    key = store.put([1])
    assert found(key) == PUT
    store.exists(key)
    assert found(key) == PUT | {"store.exists", "store.exists.connector"}
    for _ in range(2):
        store.get(key)
    known = metrics.get_metrics(key)
    assert known is not None
    assert known.counters == {"store.get.cache_misses": 1, "store.get.cache_hits": 1}
    assert set(known.attributes) == {"store.put.object_size", "store.get.object_size"}
    assert known.times["store.get"].count == 2
    assert known.times["store.get.connector"].count == 1
    store.evict(key)
    assert found(key) >= PUT | GET | EVICT

    absent = store.put([2])
    store.connector.evict(absent)
    assert store.get(absent) is None
    assert found(absent) == PUT | GET - {"store.get.deserialize"}

    proxy = store.proxy([3], populate_target=False, evict=True)
    assert found(proxy) == PUT | {"store.proxy"}
    assert proxy == [3]
    assert found(proxy) == PUT | {"store.proxy"} | GET | FACTORY | EVICT

    batch = {"store.put_batch", "store.put_batch.connector", "store.put_batch.serialize"}
    keys = store.put_batch([1, 2])
    assert found(keys) == batch
    assert found(store.proxy_batch([[1], [2]])) == batch | {"store.proxy_batch"}
    store.close()


def test_times_are_milliseconds() -> None:
    def slowly(data: Any) -> bytes:
        time.sleep(0.05)
        return bytes(data)

    store = Store("ms", LocalConnector(), metrics=True, serializer=slowly, deserializer=slowly)
    proxy: Any = store.proxy(b"x", populate_target=False)
    len(proxy)
    times = store.metrics.aggregate_times()  # type: ignore[union-attr]
    for name in ("store.put.serialize", "store.get.deserialize", "factory.call"):
        assert 50 <= times[name].avg_time_ms < 50_000, name
    seconds = {
        attributes["operation"]: value
        for name, unit, attributes, value in observations(store)
        if name == "proxystore.store.operation.time" and unit == "s"
    }
    assert 0.05 <= seconds["encode"] < 50
    assert 0.05 <= seconds["decode"] < 50


def test_the_text_is_what_prometheus_reads() -> None:
    odd = 'a "b" \\ \n c'
    first = Store(odd, MemoryConnector("prometheus"), metrics=True, register=True)
    second = Store("redis://user:secret@host/0", LocalConnector(), metrics=True, register=True)
    plain = Store("plain", LocalConnector(), register=True)
    try:
        key = first.put(b"x" * 1000)
        assert [first.get(key) for _ in range(3)] == [b"x" * 1000] * 3
        first.evict(key)
        assert first.get(key) is None
        second.put_batch([1, 2, 3])
        plain.put(1)
        text = to_prometheus()
        assert "secret" not in text
        assert str(key[0]) not in text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert all(family.type in ("counter", "summary") for family in families.values())
        samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in families.values()
            for sample in family.samples
        }
        assert len(samples) == sum(len(family.samples) for family in families.values())
        name = "proxystore_store_operations_total"
        assert samples[name, *sorted([odd, "put"])] == 1
        assert samples[name, *sorted([odd, "get"])] == 2
        assert samples[name, *sorted([odd, "evict"])] == 1
        assert samples[name, "put", "redis://host/0"] == 1
        assert samples["proxystore_store_operation_seconds_count", *sorted([odd, "get"])] == 2
        assert samples["proxystore_store_operation_seconds_sum", *sorted([odd, "get"])] > 0
        assert samples["proxystore_store_bytes_total", *sorted([odd, "get"])] > 1000
        assert samples["proxystore_store_cache_hits_total", odd] == 2
        assert samples["proxystore_store_cache_misses_total", odd] == 2
        assert samples["proxystore_store_missing_total", odd] == 1
        assert not any("plain" in labels for labels in samples)

        assert first.metrics is not None
        assert first.metrics.to_prometheus() == to_prometheus(first)
        assert first.metrics.observations() == observations(first)
    finally:
        for store in (first, second, plain):
            store.close()
    for empty in (to_prometheus(plain), StoreMetrics().to_prometheus()):
        assert not any(family.samples for family in text_string_to_metric_families(empty))


def test_observations_name_their_instruments() -> None:
    store = Store("observed", LocalConnector(), metrics=True)
    store.put("x")
    known = {name: unit for name, unit, _ in instruments()}
    found = observations(store)
    assert {name for name, *_ in found} == set(known)
    for name, unit, attributes, value in found:
        assert known[name] == unit
        assert attributes["store"] == "observed"
        assert set(attributes) <= {"store", "operation"}
        assert value >= 0
    total = [value for name, _, attributes, value in found if attributes.get("operation") == "put"]
    assert total[0] == 1
