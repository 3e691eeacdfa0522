"""All patterns at once, in many threads or processes: the work itself, without the checks.

A module of its own, so that processes that are started afresh find it.
"""

from __future__ import annotations

import gc
import pickle
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

import numpy as np

from proxystore_rs.exceptions import LifetimeEndedError
from proxystore_rs.store import Store, get_store
from proxystore_rs.store.executor import ProxyType, StoreExecutor
from proxystore_rs.store.future import Future, FutureCancelledError
from proxystore_rs.store.lifetimes import ContextLifetime, LeaseLifetime
from proxystore_rs.store.ref import OwnedProxy, borrow, clone, mut_borrow, update
from proxystore_rs.store.scopes import submit
from proxystore_rs.store.utils import resolve_async

PATIENCE = 120.0
WORKERS = 8


def travel(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def some_lease(store: Store[Any], dice: random.Random) -> float | None:
    return dice.choice([None, 30]) if hasattr(store.connector, "expire") else None


def objects(store: Store[Any], dice: random.Random) -> None:
    value = dice.choice([b"x" * 10, "text", {"a": [1]}, np.arange(dice.choice([3, 30_000]))])
    key = store.put(value)
    assert type(store.get(key)) is type(value)
    assert len(travel(store.proxy_from_key(key))) == len(value)
    store.evict(key)
    assert store.get(key) is None


def evicting(store: Store[Any], dice: random.Random) -> None:
    proxies = store.proxy_batch([[n] for n in range(4)], evict=True, populate_target=False)
    for proxy in map(travel, proxies):
        if dice.random() < 0.5:
            resolve_async(proxy)
        assert len(proxy) == 1


def chain(store: Store[Any], dice: random.Random) -> None:
    """Each link waits for the one before it, in a thread of its own."""
    futures: list[Future[int]] = [
        store.future(evict=True, polling_timeout=PATIENCE, lease=some_lease(store, dice))
        for _ in range(4)
    ]

    def link(before: Any, after: Future[int]) -> None:
        after.set_result(before + 1)

    with ThreadPoolExecutor(3) as pool:
        links = [
            pool.submit(link, travel(before.proxy()), travel(after))
            for before, after in pairwise(futures)
        ]
        last = futures[-1].proxy()
        resolve_async(last)
        futures[0].set_result(1)
        assert last == len(futures)
        for done in links:
            done.result(timeout=PATIENCE)


def failing(store: Store[Any], dice: random.Random) -> None:
    future: Future[int] = store.future(polling_timeout=PATIENCE)
    wanted: type[BaseException]
    if dice.random() < 0.5:
        assert future.cancel()
        wanted = FutureCancelledError
    else:
        future.set_exception(KeyError("missing"))
        wanted = KeyError
    try:
        travel(future).result()
    except wanted:
        pass
    else:
        raise AssertionError("it did not fail")
    store.evict(future.proxy().__proxy_factory__.key)


def owning(store: Store[Any], dice: random.Random) -> None:
    owner = store.owned_proxy([0], lease=some_lease(store, dice))
    shared = [borrow(owner) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert (
            sum(task.result() for task in [submit(pool.submit, args=(sum, one)) for one in shared])
            == 0
        )
    exclusive = mut_borrow(owner)
    exclusive.append(1)
    update(exclusive)
    del exclusive
    copied = travel(clone(owner))
    assert travel(borrow(owner)) == [0, 1] and copied == [0, 1]


def scoped(store: Store[Any], dice: random.Random) -> None:
    with ContextLifetime(store) as context, LeaseLifetime(store, 60) as lease:
        for lifetime in (context, lease):
            proxy = store.proxy([1, 2], lifetime=lifetime, populate_target=False)
            assert sum(travel(proxy)) == 3
        lease.extend(1)


def expiring(store: Store[Any], dice: random.Random) -> None:
    lease = LeaseLifetime(store, dice.uniform(0, 0.03))
    try:
        while True:
            store.put_batch([1, 2], lifetime=lease)
    except LifetimeEndedError:
        lease.close()  # this process may end before its alarm does that


def _longer(items: Any) -> list[int]:
    return [*items, len(items)]


def executing(store: Store[Any], dice: random.Random) -> None:
    pool, rule = ThreadPoolExecutor(2), ProxyType(list)
    with StoreExecutor(pool, store, rule, close_store=False) as executor:
        results = executor.map(_longer, [[0], [0, 1]] * 2, chunksize=dice.choice([1, 2]))
        assert [list(result) for result in results] == [[0, 1], [0, 1, 2]] * 2
        future = executor.submit(_longer, [0])
        if dice.random() < 0.5:
            assert type(future.result(PATIENCE)) is OwnedProxy
        del future


PATTERNS: tuple[Callable[[Store[Any], random.Random], None], ...]
PATTERNS = (objects, evicting, chain, failing, owning, scoped, expiring, executing)


def hammer(store: Store[Any], seed: int, rounds: int) -> None:
    """Go through all patterns, in an order of this seed's own."""
    dice = random.Random(seed)
    for _ in range(rounds):
        for pattern in dice.sample(PATTERNS, len(PATTERNS)):
            pattern(store, dice)


def in_threads(store: Store[Any], rounds: int) -> None:
    """Hammer a store by eight threads that begin at once."""
    barrier = threading.Barrier(WORKERS)

    def work(seed: int) -> None:
        barrier.wait(PATIENCE)
        hammer(store, seed, rounds)

    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(work, range(WORKERS), timeout=PATIENCE):
            pass


def _produce(before: Any, after: Future[int], stored: Any, rounds: int) -> None:
    """The task of a process: hammer, and hand on what came from the process before it."""
    store: Any = get_store(stored)
    assert stored.sum() == 499_500  # opens the store
    store = get_store(stored)
    hammer(store, before, rounds)
    after.set_result(before + 1)


def in_processes(store: Store[Any], method: str, rounds: int) -> None:
    """Hammer a store by processes that wait for each other's results."""
    futures: list[Future[int]] = [
        store.future(evict=True, polling_timeout=PATIENCE) for _ in range(WORKERS + 1)
    ]
    futures[0].set_result(0)
    owner = store.owned_proxy(np.arange(1000), populate_target=False)
    with ProcessPoolExecutor(WORKERS, mp_context=get_context(method)) as pool:
        tasks = [
            submit(pool.submit, args=(_produce, before.proxy(), after, borrow(owner), rounds))
            for before, after in pairwise(futures)
        ]
        assert futures[-1].result() == WORKERS
        for task in tasks:
            task.result(timeout=PATIENCE)


def settles(measure: Callable[[], int], bound: int) -> bool:
    """Whether a number that may still sink comes down to the bound."""
    end = time.monotonic() + PATIENCE
    while measure() > bound:
        if time.monotonic() > end:
            return False
        gc.collect()
        time.sleep(0.05)
    return True
