"""What goes wrong with `proxystore` 1.1.0 and does not here, a test each.

The docstring of a test says what happens there.
"""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from proxystore_rs.connectors.file import FileConnector
from proxystore_rs.connectors.local import LocalConnector, LocalKey
from proxystore_rs.connectors.multi import MultiConnector, Policy
from proxystore_rs.exceptions import SerializationError, StoreConfigError
from proxystore_rs.proxy import Proxy, ProxyResolveError, get_factory, is_resolved
from proxystore_rs.serialize import deserialize, serialize
from proxystore_rs.store import Store, get_store, store_registration
from proxystore_rs.store.cache import LRUCache
from proxystore_rs.store.config import ConnectorConfig
from proxystore_rs.store.exceptions import ProxyResolveMissingKeyError
from proxystore_rs.store.executor import ProxyAlways, StoreExecutor
from proxystore_rs.store.ref import OwnedProxy, borrow, into_owned, mut_borrow, update
from proxystore_rs.store.scopes import submit

MakeStore = Callable[..., Store[Any]]


def together(threads: int, work: Callable[[int], Any]) -> list[Any]:
    """The results of calls that begin at once, each in a thread; raises what they raise."""
    barrier = threading.Barrier(threads)

    def call(number: int) -> Any:
        barrier.wait(timeout=60)
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(call, range(threads), timeout=60))


# Proxies


def test_threads_that_resolve_one_proxy_call_its_factory_once() -> None:
    """Each of them calls the factory, and fetches the object."""
    calls: list[int] = []
    inside = threading.Event()

    def factory() -> str:
        calls.append(1)
        inside.wait(0.2)  # long enough for the others to come
        return "target"

    proxy = Proxy(factory)
    assert together(8, lambda _: str(proxy)) == ["target"] * 8
    assert calls == [1]


class Slow(LocalConnector):
    """Takes a moment, in which other threads come."""

    def get(self, key: LocalKey) -> Any:
        threading.Event().wait(0.1)
        return super().get(key)


def test_threads_may_share_a_proxy_that_evicts() -> None:
    """All but one of them raise, since the object is gone when they fetch it once more."""
    with Store("defect-evict", Slow(), register=True) as store:
        proxy = store.proxy([1, 2], evict=True, populate_target=False)
        assert together(8, lambda _: sum(proxy)) == [3] * 8


def test_a_hash_is_the_same_before_and_after_resolving_elsewhere() -> None:
    """The sender's hash of a string travels, though each process has its own; keys get lost."""
    proxy = pickle.dumps(Proxy(functools.partial(str, "abc"), cache_defaults=True, target="abc"))
    code = f"""if True:
        import pickle
        proxy = pickle.loads({proxy!r})
        table = {{proxy: 1}}
        assert hash(proxy) == hash("abc") and "abc" in table
        assert proxy == "abc"
        assert hash(proxy) == hash("abc") and table[proxy] == 1
    """
    subprocess.run([sys.executable, "-R", "-c", code], check=True, timeout=60)


def test_a_format_is_that_of_the_target() -> None:
    """A format with a specification is a TypeError."""
    assert f"{Proxy(lambda: 1.25):6.1f}" == "   1.2"
    assert complex(Proxy(lambda: 1 + 2j)) == 1 + 2j  # likewise
    assert pow(2, Proxy(lambda: 3), 5) == 3  # likewise
    assert bytes(memoryview(Proxy(lambda: b"x"))) == b"x"  # likewise


def test_a_proxy_of_a_class_knows_its_instances() -> None:
    """The answer is no, silently."""
    assert isinstance(1, Proxy(lambda: int))
    assert not isinstance("1", Proxy(lambda: int))


def fail() -> None:
    raise OSError("the network is down")


def use(proxy: Proxy[Any]) -> str:
    return str(proxy)


def test_a_worker_that_cannot_resolve_does_not_break_its_pool() -> None:
    """Its exception cannot be unpickled, and the whole pool is lost (BrokenProcessPool)."""
    with ProcessPoolExecutor(1) as pool:
        error = pool.submit(use, Proxy(fail)).exception(timeout=60)
        assert isinstance(error, ProxyResolveError)
        assert isinstance(error.cause, OSError)
        assert pool.submit(abs, -1).result(timeout=60) == 1
    missing = ProxyResolveMissingKeyError(LocalKey("a"), Store, "results")
    assert pickle.loads(pickle.dumps(missing)).key == LocalKey("a")


# Serialization


def test_a_serialized_proxy_is_a_reference() -> None:
    """It is resolved, and comes back as a string when its target is one."""
    proxy = Proxy(functools.partial(str, "abc"))
    copy = deserialize(serialize(proxy))
    assert not is_resolved(proxy)
    assert type(copy) is Proxy
    assert copy == "abc"


def test_the_serializer_imports_no_library_by_itself() -> None:
    """NumPy, pandas and Polars are imported whenever they are installed."""
    code = """if True:
        import sys, proxystore_rs.store, proxystore_rs.serialize
        assert not {"numpy", "pandas", "polars"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Stores


class Meeting(LocalConnector):
    """Hands out an object when as many threads as the barrier counts have come for one."""

    barrier: threading.Barrier

    def get(self, key: LocalKey) -> Any:
        self.barrier.wait(timeout=30)
        return super().get(key)


def test_objects_are_fetched_at_the_same_time() -> None:
    """A lock of the store is held while fetching, so that threads fetch one by one."""
    connector = Meeting()
    connector.barrier = threading.Barrier(8)
    with Store("defect-parallel", connector) as store:
        keys = [store.put(number) for number in range(8)]
        assert together(8, lambda number: store.get(keys[number])) == list(range(8))


def refuse(data: Any, extra: int) -> Any:
    raise ValueError("these are no bytes of mine")


def test_any_callable_may_be_a_deserializer(store: Store[Any]) -> None:
    """The error about a failing one needs its name, and a partial function has none."""
    key = store.put(1)
    with pytest.raises(SerializationError, match="no bytes of mine"):
        store.get(key, deserializer=functools.partial(refuse, extra=1))


class Configured(LocalConnector):
    """A connector whose configuration is not what its constructor takes, as of MultiConnector."""

    def __init__(self, parts: tuple[str, int]) -> None:
        super().__init__()
        self.parts = parts

    def config(self) -> dict[str, Any]:
        return {"name": self.parts[0], "number": self.parts[1]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Configured:
        return cls((config["name"], config["number"]))


def test_connectors_are_made_by_from_config() -> None:
    """The constructor gets the configuration, and proxies resolve nowhere else."""
    config = Store("defect-configured", Configured(("a", 1))).config()
    connector = config.connector.get_connector()
    assert isinstance(connector, Configured)
    assert connector.parts == ("a", 1)


def test_an_unknown_connector_is_an_error_about_the_configuration() -> None:
    """It is an AttributeError of a module."""
    for kind in ("proxystore_rs.connectors.local.Lokal", "proxystore.connectors.local.Lokal", "x"):
        with pytest.raises(ValueError, match="Unknown connector type"):
            ConnectorConfig(kind=kind).get_connector_type()


def test_stores_are_unregistered_when_the_block_raises() -> None:
    """They stay registered."""
    store = Store("defect-registered", LocalConnector())
    with pytest.raises(ZeroDivisionError), store_registration(store):
        raise ZeroDivisionError
    assert get_store("defect-registered") is None


def test_a_name_means_one_channel(make_store: MakeStore, tmp_path: Path) -> None:
    """A proxy of another store of that name is looked for in the store that is registered."""
    here = make_store("memory")
    with Store(here.name, FileConnector(str(tmp_path / "other"))) as other:
        proxy = pickle.loads(pickle.dumps(other.proxy("x")))
        with pytest.raises(ProxyResolveError) as caught:
            str(proxy)
    assert isinstance(caught.value.cause, StoreConfigError)


def test_the_cache_survives_setting_a_key_again() -> None:
    """A stale entry stays behind, and a later set raises KeyError."""
    cache: LRUCache[str, int] = LRUCache(2)
    for key in "aabcd":
        cache.set(key, 0)
    assert [key for key in "abcd" if cache.exists(key)] == ["c", "d"]


def test_metrics_named_ms_are_in_milliseconds(make_store: MakeStore) -> None:
    """Those of factories are in nanoseconds."""
    store = make_store("local", metrics=True)
    assert store.metrics is not None
    proxy = store.proxy([1], populate_target=False)
    assert proxy == [1]
    found = store.metrics.get_metrics(proxy)
    assert found is not None
    taken = {name: times.last_time_ms for name, times in found.times.items()}
    assert any(name.startswith("factory.") for name in taken), taken
    # No operation on a dictionary takes a minute; in nanoseconds, all would.
    assert max(taken.values()) < 60_000


# Futures


def test_a_consumer_learns_of_a_result_without_polling(store: Store[Any]) -> None:
    """It asks again only after `polling_interval`, a second by default."""
    future = store.future(polling_interval=3600)
    proxy = future.proxy()
    timer = threading.Timer(0.1, future.set_result, ["result"])
    timer.start()
    assert proxy == "result"
    timer.join()


def test_a_consumed_result_is_an_error_and_no_endless_wait(store: Store[Any]) -> None:
    """The second call polls for ever."""
    future = store.future(evict=True)
    future.set_result("once")
    assert future.result() == "once"
    with pytest.raises(ProxyResolveMissingKeyError):
        future.result()


def test_waiting_is_measured_once_and_in_milliseconds(make_store: MakeStore) -> None:
    """In nanoseconds."""
    store = make_store("memory", metrics=True)
    assert store.metrics is not None
    future = store.future()
    future.set_result("result")
    proxy = future.proxy()
    assert proxy == "result"
    found = store.metrics.get_metrics(proxy)
    assert found is not None
    for name in ("factory.call", "factory.polling_resolve"):
        assert found.times[name].count == 1
        assert found.times[name].last_time_ms < 60_000


# Ownership


def text(value: Any) -> str:
    return str(value)


def test_an_update_is_seen_where_the_object_was_used_before(tmp_path: Path) -> None:
    """Other processes go on with what they have cached."""
    with (
        Store("defect-update", FileConnector(str(tmp_path / "files")), register=True) as store,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        owner: Any = store.owned_proxy([1])
        for expected in ("[1]", "[1, 2]"):
            task = submit(pool.submit, args=(text, borrow(owner, populate_target=False)))
            assert task.result(timeout=60) == expected
            exclusive = mut_borrow(owner)
            exclusive.append(2)
            update(exclusive)
            del exclusive
        del owner


def test_an_owner_that_outlives_its_store_registers_no_other(tmp_path: Path) -> None:
    """Its store is opened again and stays registered."""
    folder = tmp_path / "files"
    store = Store("defect-owner", FileConnector(str(folder), clear=False), register=True)
    owner = store.owned_proxy([1])
    store.close()
    del owner
    assert get_store("defect-owner") is None
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_an_owner_of_a_subclass_gets_no_second_owner(store: Store[Any]) -> None:
    """Classes are compared exactly, so that it does, and the object is freed twice."""

    class Mine(OwnedProxy[Any]):
        pass

    owner = Mine(get_factory(store.proxy([1])))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="plain proxy"):
        into_owned(owner)


# Executor


def kinds(items: Any) -> str:
    return type(items).__name__


def test_map_proxies_the_items(store: Store[Any]) -> None:
    """It proxies the iterables, and functions get plain items."""
    with StoreExecutor(ThreadPoolExecutor(1), store, ProxyAlways(), close_store=False) as executor:
        results = executor.map(kinds, [[1], [2]])
        assert [str(result) for result in results] == ["Proxy", "Proxy"]


# Connectors


def test_closing_leaves_files_that_are_not_its_own(tmp_path: Path) -> None:
    """The directory is removed with everything in it."""
    connector = FileConnector(str(tmp_path / "shared"))
    connector.put(b"data")
    other = tmp_path / "shared" / "thesis.tex"
    other.write_text("years of work")
    connector.close()
    assert [path.name for path in other.parent.iterdir()] == ["thesis.tex"]


def test_an_empty_batch_is_no_error(store: Store[Any]) -> None:
    """It is one of the Redis server."""
    assert store.put_batch([]) == []
    assert store.proxy_batch([]) == []


def test_a_store_on_several_channels_is_opened_elsewhere(tmp_path: Path) -> None:
    """Its configuration is given to the constructor, which wants something else (TypeError)."""
    parts: dict[str, Any] = {"files": (FileConnector(str(tmp_path / "files")), Policy())}
    with (
        Store("defect-multi", MultiConnector(parts), register=True) as store,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        found = pool.submit(use, store.proxy([1, 2], populate_target=False))
        assert found.result(timeout=60) == "[1, 2]"


# Lifetimes


def test_a_lease_keeps_no_interpreter_from_ending() -> None:
    """Its timer is no daemon: the program ends when the lease does."""
    code = """if True:
        from proxystore_rs.connectors.local import LocalConnector
        from proxystore_rs.store import Store
        from proxystore_rs.store.lifetimes import LeaseLifetime
        store = Store("defect-lease", LocalConnector(), register=True)
        lease = LeaseLifetime(store, 3600)
        store.proxy([1, 2], lifetime=lease)
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
