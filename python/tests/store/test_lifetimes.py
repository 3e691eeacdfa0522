"""Lifetimes end when they should, and leave nothing behind however that comes about."""

from __future__ import annotations

import atexit
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from proxystore_rs.connectors.file import FileConnector
from proxystore_rs.connectors.local import LocalConnector
from proxystore_rs.exceptions import (
    LifetimeEndedError,
    ProxyStoreError,
    ProxyStoreFactoryError,
    StoreClosedError,
)
from proxystore_rs.proxy import Proxy
from proxystore_rs.store import Store, _alarm
from proxystore_rs.store.cache import LRUCache
from proxystore_rs.store.lifetimes import (
    ContextLifetime,
    LeaseLifetime,
    Lifetime,
    StaticLifetime,
    register_lifetime_atexit,
)
from proxystore_rs.store.metrics import StoreMetrics
from proxystore_rs.store.utils import get_key

SHORT = 0.1
LONG = 3600.0
PATIENCE = 30.0

# Python warns of forking a process with threads, which is what some of these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.005)


def objects(store: Store[Any]) -> int:
    """How many objects there are in a directory."""
    return sum(not name.startswith(".") for name in os.listdir(store.connector.store_dir))


def run(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def file_store(make_store: Callable[..., Store[FileConnector]]) -> Store[FileConnector]:
    return make_store("file")


@pytest.fixture(params=[ContextLifetime, lambda store: LeaseLifetime(store, LONG)])
def lifetime(request: pytest.FixtureRequest, file_store: Store[Any]) -> ContextLifetime:
    made: ContextLifetime = request.param(file_store)
    return made


def test_lifetimes_are_told_by_their_methods(store: Store[Any]) -> None:
    class Mine:
        def add_key(self, *keys: Any, store: Any = None) -> None: ...
        def add_proxy(self, *proxies: Any) -> None: ...
        def close(self, *, close_stores: bool = False) -> None: ...
        def done(self) -> bool:
            return False

    lifetimes = [ContextLifetime(store), LeaseLifetime(store, LONG), StaticLifetime(), Mine()]
    for lifetime in lifetimes:
        assert isinstance(lifetime, Lifetime)
    assert not isinstance(store, Lifetime)
    assert not lifetimes[0].done()
    assert store.proxy([1], lifetime=Mine()) == [1]


def test_a_context_evicts_everything_that_was_put_for_it(
    store: Store[Any], make_store: Callable[..., Store[Any]]
) -> None:
    other = make_store("memory")
    kept = store.put("kept")
    with ContextLifetime(store, name="mine") as lifetime:
        assert lifetime.name == "mine"
        assert not lifetime.done()
        keys = [
            store.put("x", lifetime=lifetime),
            *store.put_batch(["y", "z"], lifetime=lifetime),
            get_key(store.proxy("p", lifetime=lifetime)),
            *map(get_key, store.proxy_batch(["q", "r"], lifetime=lifetime)),
            get_key(store.proxy_from_key(store.put("k"), lifetime=lifetime)),
        ]
        added = [store.put("a"), store.put("b")]
        lifetime.add_key(*added)
        proxy = store.proxy("c", populate_target=False)
        lifetime.add_proxy(proxy)
        theirs = other.put("d")
        lifetime.add_key(theirs, store=other)
        keys += [*added, get_key(proxy)]
        assert all(map(store.exists, keys))
        assert store.get(keys[0]) == "x"
    assert lifetime.done()
    assert not any(map(store.exists, keys))
    assert not any(map(store.is_cached, keys))
    assert not other.exists(theirs)
    assert store.exists(kept)
    lifetime.close()


def test_a_context_ends_when_its_block_raises(store: Store[Any]) -> None:
    with pytest.raises(KeyError), ContextLifetime(store) as lifetime:
        key = store.put("x", lifetime=lifetime)
        raise KeyError
    assert not store.exists(key)


def test_an_ended_lifetime_takes_no_more(
    lifetime: ContextLifetime, file_store: Store[FileConnector]
) -> None:
    kept = file_store.put("kept")
    proxy = file_store.proxy_from_key(kept)
    lifetime.close()
    lifetime.close()
    assert lifetime.done()
    calls: list[Callable[[], object]] = [
        lambda: lifetime.add_key(kept),
        lambda: lifetime.add_proxy(proxy),
        lambda: file_store.put("x", lifetime=lifetime),
        lambda: file_store.put_batch(["x", "y"], lifetime=lifetime),
        lambda: file_store.proxy("x", lifetime=lifetime),
        lambda: file_store.proxy_batch(["x", "y"], lifetime=lifetime),
        lambda: file_store.proxy_from_key(kept, lifetime=lifetime),
    ]
    if isinstance(lifetime, LeaseLifetime):
        lease = lifetime
        calls.append(lambda: lease.extend(1))
    for call in calls:
        with pytest.raises(RuntimeError, match="has ended") as caught:
            call()
        assert isinstance(caught.value, ProxyStoreError)
        assert isinstance(caught.value, LifetimeEndedError)
    assert file_store.get(kept) == "kept"
    assert objects(file_store) == 1, "what was put for it does not stay"


def test_what_a_lifetime_refuses_is_evicted(file_store: Store[FileConnector]) -> None:
    class Refusing:
        def add_key(self, *keys: Any, store: Any = None) -> None:
            raise LookupError

    for call in (
        lambda: file_store.put("x", lifetime=Refusing()),
        lambda: file_store.put_batch(["x", "y"], lifetime=Refusing()),
        lambda: file_store.proxy("x", lifetime=Refusing()),
        lambda: file_store.proxy_batch(["x", None], lifetime=Refusing(), skip_nonproxiable=True),
    ):
        with pytest.raises(LookupError):
            call()
    assert objects(file_store) == 0


def test_only_proxies_of_stores_have_lifetimes(
    lifetime: ContextLifetime, file_store: Store[Any]
) -> None:
    key = file_store.put("x")
    plain: Proxy[str] = Proxy(lambda: "x")
    with pytest.raises(ProxyStoreFactoryError):
        lifetime.add_proxy(file_store.proxy_from_key(key), plain)
    lifetime.close()
    assert file_store.exists(key), "none was added"
    with pytest.raises(ValueError, match="mutually exclusive"):
        file_store.proxy("x", evict=True, lifetime=ContextLifetime(file_store))


def test_a_lifetime_may_close_the_stores(make_store: Callable[..., Store[Any]]) -> None:
    own, other = make_store("memory"), make_store("memory")
    lifetime = ContextLifetime(own)
    lifetime.add_key(other.put("x"), store=other)
    lifetime.close(close_stores=True)
    for store in (own, other):
        with pytest.raises(StoreClosedError):
            store.put("x")


def test_closing_tries_all_and_raises_the_first_error(
    make_store: Callable[..., Store[Any]],
) -> None:
    gone, there = make_store("memory"), make_store("memory")
    lifetime = ContextLifetime(gone)
    gone.put("x", lifetime=lifetime)
    key = there.put("x", lifetime=lifetime)
    gone.close()
    with pytest.raises(StoreClosedError):
        lifetime.close()
    assert not there.exists(key)
    lifetime.close()


def test_whoever_closes_second_finds_the_objects_gone() -> None:
    entered, leave = threading.Event(), threading.Event()

    class Slow(LocalConnector):
        def evict(self, key: Any) -> None:
            entered.set()
            leave.wait(PATIENCE)
            super().evict(key)

    store = Store("slow", Slow())
    lifetime = ContextLifetime(store)
    key = store.put("x", lifetime=lifetime)
    first = threading.Thread(target=lifetime.close)
    first.start()
    assert entered.wait(PATIENCE)
    threading.Timer(SHORT, leave.set).start()
    lifetime.close()
    assert not store.exists(key)
    first.join(PATIENCE)
    store.close()


@pytest.mark.parametrize(
    "expiry",
    [
        lambda: SHORT,
        lambda: timedelta(seconds=SHORT),
        lambda: datetime.now() + timedelta(seconds=SHORT),
        lambda: datetime.now(UTC) + timedelta(seconds=SHORT),
    ],
    ids=["seconds", "timedelta", "local-time", "utc"],
)
def test_a_lease_ends_in_time(store: Store[Any], expiry: Callable[[], Any]) -> None:
    lease = LeaseLifetime(store, LONG)
    keys = [store.put("x", lifetime=lease), *store.put_batch(["y", [1] * 50_000], lifetime=lease)]
    assert [store.get(key) for key in keys[:2]] == ["x", "y"]
    if isinstance(expiry(), datetime):
        lease.extend(expiry())  # sooner
    else:
        lease.close()
        lease = LeaseLifetime(store, expiry())
        keys = []
        while not lease.done():
            try:
                keys.append(store.put("x", lifetime=lease))
            except LifetimeEndedError:
                break
            time.sleep(SHORT / 10)
    wait_until(lease.done)
    wait_until(lambda: not any(map(store.exists, keys)))
    assert not any(map(store.is_cached, keys))


@pytest.mark.parametrize("expiry", [-1, 0.0, timedelta(seconds=-1), datetime(2020, 1, 1)])
def test_an_end_in_the_past_ends_at_once(store: Store[Any], expiry: Any) -> None:
    assert LeaseLifetime(store, expiry).done()
    lease = LeaseLifetime(store, LONG)
    key = store.put("x", lifetime=lease)
    lease.extend(expiry if isinstance(expiry, datetime) else -2 * LONG)
    assert lease.done()
    assert not store.exists(key)
    with pytest.raises(RuntimeError):
        lease.extend(1)


def test_an_extended_lease_goes_on(store: Store[Any]) -> None:
    first = 0.5
    for _ in range(20):  # a machine that stops for as long gets another chance
        lease = LeaseLifetime(store, first)
        try:
            key = store.put("x", lifetime=lease)
            lease.extend(timedelta(hours=1))
            lease.extend(3600)
            break
        except LifetimeEndedError:
            continue
    time.sleep(first * 1.5)
    assert store.exists(key)
    assert not lease.done()
    lease.extend(datetime.now() + timedelta(seconds=SHORT))
    wait_until(lambda: not store.exists(key))
    wait_until(lease.done)


def test_a_lease_for_ever(store: Store[Any]) -> None:
    with LeaseLifetime(store, math.inf) as lease:
        key = store.put("x", lifetime=lease)
        lease.extend(timedelta.max)
        assert store.exists(key)
    assert not store.exists(key)
    with pytest.raises(ValueError, match="not a number"):
        LeaseLifetime(store, math.nan)


def test_a_lease_may_hold_objects_of_several_channels(
    make_store: Callable[..., Store[Any]],
) -> None:
    local, file = make_store("local"), make_store("file")
    lease = LeaseLifetime(local, LONG)
    keys = local.put("x", lifetime=lease), file.put("y", lifetime=lease)
    lease.extend(datetime.now() + timedelta(seconds=SHORT))
    wait_until(lambda: not local.exists(keys[0]) and not file.exists(keys[1]))


@pytest.mark.parametrize("kind", [ContextLifetime, lambda store: LeaseLifetime(store, SHORT)])
def test_threads_that_add_while_it_ends_leak_nothing(
    file_store: Store[FileConnector], kind: Callable[[Store[Any]], ContextLifetime]
) -> None:
    lifetime, put = kind(file_store), []

    def add() -> None:
        with pytest.raises(LifetimeEndedError):
            while True:
                put.append(file_store.put("x", lifetime=lifetime))
                file_store.proxy_batch(["y", "z"], lifetime=lifetime)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(SHORT)
    if not isinstance(lifetime, LeaseLifetime):
        lifetime.close()
    for thread in threads:
        thread.join()
    wait_until(lambda: objects(file_store) == 0)


# Channels that keep times to live themselves and that other processes reach, by their URLs.
LASTING = {
    "file": lambda folder: f"file://{folder}",
    "shm": lambda folder: f"shm://killed-{folder.name}",
    "multi": lambda folder: f"multi:a=shm://killed-{folder.name};b=file://{folder}",
}


@pytest.mark.parametrize("channel", LASTING)
def test_a_killed_process_leaks_nothing(channel: str, tmp_path: Path) -> None:
    from proxystore_rs.store import open_store

    url = LASTING[channel](tmp_path)
    store = open_store(url)
    command = [sys.executable, Path(__file__).parents[1] / "leased.py", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    try:
        keys = pickle.loads(bytes.fromhex(line))
        assert len(keys) == 4
        wait_until(lambda: not any(map(store.exists, keys)))
    finally:
        store.close(clear=True)


def test_the_interpreter_does_not_wait_for_a_lease(tmp_path: Path) -> None:
    code = """
import sys
from proxystore_rs.connectors.local import LocalConnector
from proxystore_rs.store import Store, open_store
from proxystore_rs.store.lifetimes import LeaseLifetime
for store in (open_store(f'file://{sys.argv[1]}'), Store('local', LocalConnector())):
    lease = LeaseLifetime(store, 3600)
    store.put('x', lifetime=lease)
"""
    done = run(code, str(tmp_path))  # which would time out
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1])
def test_the_interpreter_may_end_while_leases_do(delay: float) -> None:
    code = f"""
import time
from proxystore_rs.connectors.local import LocalConnector
from proxystore_rs.store import Store, open_store
from proxystore_rs.store.lifetimes import LeaseLifetime
class Slow(LocalConnector):
    def evict(self, key):
        for _ in range(5):
            time.sleep(0.01)
        super().evict(key)
stores = [Store('slow', Slow()), open_store('shm://test-exit-of-leases')]
leases = [LeaseLifetime(stores[n % 2], 0.02 + n / 500) for n in range(20)]
for lease in leases:
    try:
        lease.store.put([1] * 1000, lifetime=lease)
    except RuntimeError:
        pass
time.sleep({delay})
"""
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_static_lifetime_ends_with_the_interpreter(tmp_path: Path) -> None:
    code = """
import os, sys
from proxystore_rs.store import open_store
from proxystore_rs.store.lifetimes import StaticLifetime
store = open_store(f'file://{sys.argv[1]}')
closed = open_store('memory://closed-before')
store.put('x', lifetime=StaticLifetime())
StaticLifetime().add_key(closed.put('y'), store=closed)
store.put('kept')
closed.close()
close = store.close
def close_and_tell():
    print('closed')
    close()
store.close = close_and_tell
assert sum(not name.startswith('.') for name in os.listdir(sys.argv[1])) == 2
"""
    done = run(code, str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\n", "")
    assert sum(not name.startswith(".") for name in os.listdir(tmp_path)) == 1


def test_there_is_one_static_lifetime() -> None:
    lifetime = StaticLifetime()
    assert lifetime is StaticLifetime()
    assert not lifetime.done()
    with pytest.raises(ValueError, match="pass store="):
        lifetime.add_key(("x",))
    code = """
from proxystore_rs.store import open_store
from proxystore_rs.store.lifetimes import StaticLifetime
store = open_store('memory://static')
proxy = store.proxy([1])
StaticLifetime().add_proxy(proxy)
StaticLifetime().close()
assert StaticLifetime().done() and not store.exists(proxy.__proxy_factory__.key)
try:
    StaticLifetime().add_key(store.put('x'), store=store)
except RuntimeError:
    print('refused')
"""
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")


def test_any_lifetime_may_end_at_exit(store: Store[Any]) -> None:
    lifetime = ContextLifetime(store)
    callback = register_lifetime_atexit(lifetime, close_stores=False)
    key = store.put("x", lifetime=lifetime)
    callback()
    atexit.unregister(callback)
    assert lifetime.done()
    assert not store.exists(key)


def in_child(work: Callable[[], bool]) -> None:
    """Forks, and asserts that `work` is true in the child."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(PATIENCE))
        good = False
        try:
            good = work()
        finally:
            os._exit(0 if good else 1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_forked_child_frees_its_own_objects_only(file_store: Store[FileConnector]) -> None:
    lifetimes = [ContextLifetime(file_store), LeaseLifetime(file_store, LONG)]
    keys = [file_store.put("x", lifetime=lifetime) for lifetime in lifetimes]

    def work() -> bool:
        own = [file_store.put("y", lifetime=lifetime) for lifetime in lifetimes]
        for lifetime in lifetimes:
            lifetime.close()
        lease = LeaseLifetime(file_store, LONG)
        own.append(file_store.put("z", lifetime=lease))
        lease.extend(datetime.now() + timedelta(seconds=SHORT))
        wait_until(lambda: objects(file_store) == 2)  # by an alarm of the child
        return not any(map(file_store.exists, own)) and all(map(file_store.exists, keys))

    in_child(work)
    assert not any(lifetime.done() for lifetime in lifetimes)
    for lifetime in lifetimes:
        lifetime.close()
    assert objects(file_store) == 0


def test_a_forked_child_has_free_locks(make_store: Callable[..., Store[Any]]) -> None:
    metrics, cache = StoreMetrics(), LRUCache[str, int]()
    lifetime = ContextLifetime(make_store("memory"))
    locks = [metrics._lock, cache._lock, lifetime._objects._lock, _alarm._clock._changed]

    def work() -> bool:
        metrics.add_counter("hits", ("key",), 1)
        cache.set("key", 1)
        lifetime.add_key(("key",))
        _alarm.cancel(_alarm.call_at(time.monotonic() + LONG, work))
        return cache.get("key") == 1

    for lock in locks:
        lock.acquire()
    try:
        in_child(work)
    finally:
        for lock in locks:
            lock.release()
    assert work()


def test_alarms_ring_in_order_and_survive_each_other() -> None:
    rung: list[int] = []
    rings = threading.Semaphore(0)

    def ring(number: int) -> None:
        rung.append(number)
        rings.release()
        if number == 1:
            raise ValueError("on purpose")

    start = time.monotonic() + SHORT
    numbers = [5, 1, 4, 0, 2, 3]
    alarms = {n: _alarm.call_at(start + n / 100, lambda n=n: ring(n)) for n in numbers}  # type: ignore[misc]
    for number in (2, 4, 2):
        _alarm.cancel(alarms[number])
    for _ in range(4):
        assert rings.acquire(timeout=PATIENCE)
    assert rung == [0, 1, 3, 5]
    wait_until(lambda: _alarm._clock._thread is None)  # it does not linger
    for _ in range(1000):
        _alarm.cancel(_alarm.call_at(time.monotonic() + LONG, rings.release))
    assert len(_alarm._clock._alarms) <= 2


def test_a_lease_on_a_connector_written_in_python_is_kept_here() -> None:
    store = Store("python-lease", LocalConnector())
    lease = LeaseLifetime(store, LONG)
    key = store.put("x", lifetime=lease)
    assert store.get(key) == "x"
    lease.extend(datetime.now(UTC) + timedelta(seconds=SHORT))
    wait_until(lambda: not store.exists(key))
    assert lease.done()
