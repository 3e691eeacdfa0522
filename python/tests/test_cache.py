"""The cache keeps what was used last, counts, and takes any number of threads."""

from __future__ import annotations

import threading

import pytest

from proxystore_rs.store.cache import LRUCache


def test_drops_what_was_used_least_recently() -> None:
    cache: LRUCache[str, int] = LRUCache(2)
    cache.set("a", 1)
    cache.set("b", 2)
    assert cache.get("a") == 1
    cache.set("c", 3)
    assert [cache.exists(key) for key in "abc"] == [True, False, True]


def test_looking_is_no_use() -> None:
    cache: LRUCache[str, int] = LRUCache(2)
    cache.set("a", 1)
    cache.set("b", 2)
    assert cache.exists("a")
    cache.set("c", 3)
    assert not cache.exists("a")
    assert (cache.hits, cache.misses) == (0, 0)


def test_setting_a_key_again_drops_no_other() -> None:
    cache: LRUCache[str, int] = LRUCache(2)
    cache.set("a", 1)
    cache.set("b", 2)
    cache.set("a", 3)
    assert (cache.get("a"), cache.get("b")) == (3, 2)
    cache.set("c", 4)
    cache.set("d", 5)
    assert [cache.get(key) for key in "abcd"] == [None, None, 4, 5]


def test_a_miss_gives_the_default() -> None:
    cache: LRUCache[str, int | None] = LRUCache()
    cache.set("none", None)
    assert cache.get("none", 5) is None
    assert cache.get("absent", 5) == 5
    assert (cache.hits, cache.misses) == (1, 1)


def test_evict_is_silent_about_what_is_absent() -> None:
    cache: LRUCache[str, int] = LRUCache()
    cache.set("a", 1)
    cache.evict("a")
    cache.evict("a")
    assert not cache.exists("a")


def test_size_zero_keeps_nothing() -> None:
    cache: LRUCache[str, int] = LRUCache(0)
    cache.set("a", 1)
    assert cache.get("a") is None


def test_negative_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="Cache size"):
        LRUCache(-1)


def test_a_value_may_use_the_cache_when_it_dies() -> None:
    cache: LRUCache[str, object] = LRUCache(1)

    class Value:
        def __del__(self) -> None:
            cache.exists("other")

    cache.set("a", Value())
    cache.set("a", Value())
    cache.set("b", 1)
    cache.set("a", Value())
    cache.evict("a")


def test_threads_lose_no_count() -> None:
    cache: LRUCache[int, int] = LRUCache(8)

    def work() -> None:
        for i in range(1000):
            cache.set(i % 16, i)
            cache.get(i % 16)
            cache.evict(i % 5)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.hits + cache.misses == 4000
    assert sum(cache.exists(key) for key in range(16)) <= 8
