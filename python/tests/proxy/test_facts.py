"""Unresolved proxies of stores answer from the facts in their references, and fetch nothing."""

from __future__ import annotations

import operator
import pickle
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from differential_targets import TARGETS

from proxystore_rs.connectors.local import LocalConnector
from proxystore_rs.connectors.memory import MemoryConnector
from proxystore_rs.proxy import (
    Facts,
    Proxy,
    extract,
    facts,
    get_factory,
    is_resolved,
    no_resolve,
    resolve,
)
from proxystore_rs.store import Store
from proxystore_rs.store.factory import StoreFactory
from proxystore_rs.store.future import Future
from proxystore_rs.store.ref import borrow, clone, into_owned, mut_borrow, update

CHANNELS = ("memory", "file", "shm", "multi")


@pytest.fixture(params=CHANNELS)
def store(request: pytest.FixtureRequest, make_store: Callable[..., Store[Any]]) -> Store[Any]:
    """A registered store, on every channel whose objects have generations."""
    return make_store(request.param)


CONTAINERS: dict[str, Any] = {
    "bytes": b"bytes",
    "bytearray": bytearray(3),
    "str": "naïve \U0001f600",
    "lone surrogate": "\ud800",
    "list": [1, 2],
    "tuple": (1, 2, 3),
    "dict": {"a": 1},
    "set": {1, 2},
    "frozenset": frozenset({1}),
    "empty list": [],
    "empty dict": {},
    "empty str": "",
}

ARRAYS: dict[str, Any] = {
    "float": np.arange(6, dtype="f4").reshape(2, 3),
    "without dimensions": np.array(1.5),
    "empty": np.empty((0, 3)),
    "fortran": np.asfortranarray(np.ones((2, 3))),
    "with gaps": np.arange(20)[::2],
    "bool": np.ones(3, bool),
    "complex": np.ones(3, complex),
    "half": np.ones(3, "f2"),
    "dates": np.array(["2020-01-01"], "M8[ns]"),
    "text": np.array(["ab", "c"]),
    "swapped": np.ones(3, ">f8"),
    "objects": np.array([1, None], object),
}

TABLES: dict[str, Any] = {
    "pandas": pd.DataFrame({"a": [1, 2, 3], "shape": [4, 5, 6]}),
    "polars": pl.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]}),
}

UNKNOWN: dict[str, Any] = {
    "int": 5,
    "record": np.zeros(3, [("a", "i4"), ("b", "f8")]),
    "class of a list": type("Own", (list,), {"__module__": __name__})([1]),
}


def unresolved(store: Store[Any], obj: Any) -> list[Proxy[Any]]:
    """Return the ways in which somebody has an unresolved proxy of an object."""
    here = store.proxy(obj, populate_target=False)
    (of_batch,) = store.proxy_batch([obj], populate_target=False)
    travelled = pickle.loads(pickle.dumps(store.proxy(obj)))
    return [here, of_batch, travelled, pickle.loads(pickle.dumps(travelled))]


def without_resolving(p: Proxy[Any], ask: Callable[[Any], Any]) -> Any:
    """Return the answer of a proxy that must not resolve, and does not."""
    with no_resolve():
        answer = ask(p)
    assert not is_resolved(p)
    return answer


@pytest.mark.parametrize("kind", CONTAINERS)
def test_containers(store: Store[Any], kind: str) -> None:
    obj = CONTAINERS[kind]
    for p in unresolved(store, obj):
        for ask in (len, bool, operator.not_, operator.length_hint):
            assert without_resolving(p, ask) == ask(obj)
        assert facts(p).type == type(obj).__name__
        assert facts(p).len == len(obj)
        assert p == obj


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays(store: Store[Any], kind: str) -> None:
    array = ARRAYS[kind]
    for p in unresolved(store, array):
        for name in ("shape", "dtype", "ndim", "size", "nbytes"):
            answer = without_resolving(p, operator.attrgetter(name))
            assert answer == getattr(array, name)
            assert type(answer) is type(getattr(array, name))
        assert without_resolving(p, lambda p: isinstance(p, np.ndarray))
        if array.ndim:
            assert without_resolving(p, len) == len(array)
        told = facts(p)
        assert told[:5] == (
            "numpy.ndarray",
            len(array) if array.ndim else None,
            array.shape,
            array.dtype.str,
            array.nbytes,
        )
        assert np.asarray(p).tolist() == array.tolist()
        assert is_resolved(p)


@pytest.mark.parametrize("kind", TABLES)
def test_tables(store: Store[Any], kind: str) -> None:
    table = TABLES[kind]
    for p in unresolved(store, table):
        assert without_resolving(p, len) == len(table)
        assert without_resolving(p, lambda p: p.shape) == table.shape
        assert without_resolving(p, lambda p: isinstance(p, type(table)))
        assert facts(p)[1:4] == (3, (3, 2), None)
        # What only the table knows.
        assert hasattr(p, "nbytes") == hasattr(table, "nbytes")
        assert is_resolved(p)


@pytest.mark.parametrize("library", ["Table", "RecordBatch"])
def test_arrow_tables(store: Store[Any], library: str) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = getattr(arrow, library).from_pydict({"a": [1, 2, 3]})
    for p in unresolved(store, table):
        assert without_resolving(p, len) == 3
        assert without_resolving(p, lambda p: p.shape) == (3, 1)
        assert facts(p).nbytes == table.nbytes
        assert p.equals(table)


def test_the_truth_of_arrays_and_tables_is_theirs_to_tell(store: Store[Any]) -> None:
    for obj in (np.ones(3), TABLES["pandas"]):
        p = store.proxy(obj, populate_target=False)
        with pytest.raises(ValueError, match="ambiguous"):
            bool(p)
        assert is_resolved(p)
    p = store.proxy(np.array(1.5), populate_target=False)
    with pytest.raises(TypeError, match="unsized"):
        len(p)


@pytest.mark.parametrize("kind", UNKNOWN)
def test_of_other_types_no_length_is_known(store: Store[Any], kind: str) -> None:
    obj = UNKNOWN[kind]
    p = store.proxy(obj, populate_target=False)
    told = facts(p)
    assert told.dtype is None
    assert told.len in (None, getattr(obj, "shape", [None])[0])
    assert told.created is not None
    for name in ("dtype", "ndim", "nbytes"):
        assert getattr(p, name, None) == getattr(obj, name, None)


@pytest.mark.parametrize("name", TARGETS)
def test_facts_agree_with_the_target(name: str) -> None:
    """Whatever the type: each answer of an unresolved proxy is that of the target."""
    target = TARGETS[name]()
    with Store(f"agree-{name}", MemoryConnector("agree")) as store:
        try:
            make = store.proxy(target, populate_target=False, skip_nonproxiable=True)
        except Exception:
            pytest.skip("it cannot be stored")
        if type(make) is not Proxy:
            pytest.skip("a proxy of it is not made")
        told = facts(make)
        for ask in (
            len,
            bool,
            *map(operator.attrgetter, ("shape", "dtype", "ndim", "size", "nbytes")),
        ):
            p = pickle.loads(pickle.dumps(make))
            with no_resolve():
                try:
                    answer = ask(p)
                except Exception:
                    continue  # it would have to resolve
            assert answer == ask(extract(p))
            assert type(answer) is type(ask(extract(p)))
        assert told.len is None or told.len == len(target)
        assert told.shape is None or told.shape == target.shape


def test_facts_are_shown_and_the_rest_is_as_it_was(store: Store[Any]) -> None:
    p = store.proxy(np.zeros((512, 2), "f4"), populate_target=False)
    assert " of numpy.ndarray (512, 2) <f4 with factory StoreFactory(" in repr(p)
    assert not is_resolved(p)
    assert " of list with len 2 with factory " in repr(store.proxy([1, 2], populate_target=False))
    resolve(p)
    assert " of numpy" not in repr(p)
    assert " of " not in repr(Proxy(list))


def test_when_and_where(store: Store[Any]) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    p = store.proxy(5)
    told = facts(pickle.loads(pickle.dumps(p)))
    assert told == facts(p)
    assert told.created is not None
    assert before <= told.created <= datetime.now(UTC)
    assert told.origin == socket.gethostname()
    assert told.type == "int"


def test_of_others_nothing_is_known() -> None:
    for other in (Proxy(list), Proxy(list, target=[1]), [1], None):
        assert facts(other) == Facts()


def test_facts_are_those_of_what_was_stored(store: Store[Any]) -> None:
    obj = [1, 2]
    p = store.proxy(obj)
    obj.append(3)  # the target here, not what is stored
    assert len(p) == 3
    assert facts(p).len == 2
    assert without_resolving(pickle.loads(pickle.dumps(p)), len) == 2
    del p.__proxy_wrapped__
    assert without_resolving(p, len) == 2
    assert len(extract(p)) == 2


def test_an_array_put_in_place_has_facts(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("shm")
    array = store.empty((2, 3), "i4")
    array[:] = 1
    p = pickle.loads(pickle.dumps(store.proxy(array)))
    assert without_resolving(p, lambda p: (p.shape, p.nbytes)) == ((2, 3), 24)


def test_inline_objects_have_facts(make_store: Callable[..., Store[Any]]) -> None:
    p = make_store("memory", inline_bytes=1000).proxy([1, 2], populate_target=False)
    assert get_factory(p)._is_inline  # type: ignore[attr-defined]
    assert without_resolving(p, len) == 2


# What may change, or arrive as something else, is never described.


def changeable(p: Proxy[Any]) -> bool:
    """Return whether only the target knows its length."""
    return facts(p).len is None and facts(pickle.loads(pickle.dumps(p))).len is None


def test_owners_and_borrows_have_no_facts(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory")
    owner = store.owned_proxy([1, 2], populate_target=False)
    assert facts(owner).len is None
    assert facts(clone(owner)).len is None
    shared = borrow(owner)
    assert facts(shared).len is None
    del shared
    exclusive = mut_borrow(owner)
    assert facts(exclusive).len is None
    exclusive.append(3)
    update(exclusive)
    del exclusive, owner.__proxy_wrapped__
    assert len(owner) == 3
    arrived = pickle.loads(pickle.dumps(owner))
    assert len(arrived) == 3


def test_who_gets_an_owner_loses_the_facts(make_store: Callable[..., Store[Any]]) -> None:
    owner = into_owned(make_store("memory").proxy([1, 2], populate_target=False))
    assert facts(owner).len is None
    owner.append(3)
    update(owner)
    del owner.__proxy_wrapped__
    assert len(owner) == 3


def test_every_use_of_an_evicting_proxy_frees_its_object(store: Store[Any]) -> None:
    proxy = pickle.loads(pickle.dumps(store.proxy([1, 2, 3], evict=True)))
    key = get_factory(proxy).key
    store._cache_evict(key)
    assert len(proxy) == 3
    assert is_resolved(proxy)
    assert not store.exists(key)


def test_futures_have_no_facts(make_store: Callable[..., Store[Any]]) -> None:
    future: Future[list[int]] = make_store("memory").future()
    p = future.proxy()
    for result in ([1], [1, 2]):
        future.set_result(result)
        assert changeable(p)
        assert len(future.proxy()) == len(result)


def test_objects_without_generations_have_no_facts(make_store: Callable[..., Store[Any]]) -> None:
    p = make_store("local").proxy([1, 2], populate_target=False)
    assert changeable(p)
    owner = into_owned(p)
    owner.append(3)
    update(owner)
    assert len(p) == 3  # another object under the same key


def test_a_key_tells_nothing(store: Store[Any]) -> None:
    p = store.proxy_from_key(store.put([1, 2]))
    assert facts(p) == Facts()
    assert len(p) == 2
    assert is_resolved(p)


def test_what_a_function_makes_of_it_is_not_known(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory")
    p = store.proxy([1, 2], serializer=pickle.dumps, deserializer=len, populate_target=False)
    assert changeable(p)
    longer = make_store("memory", serializer=pickle.dumps, deserializer=_one_more)
    p = longer.proxy([1, 2], populate_target=False)
    assert changeable(p)
    assert len(p) == 3


def _one_more(data: bytes) -> list[int]:
    return [*pickle.loads(data), 0]


class Doubling(Store[Any]):
    """A store whose objects arrive as others."""

    def get(self, key: Any, **options: Any) -> Any:
        return super().get(key, **options) * 2


def test_a_store_with_a_mind_of_its_own_describes_nothing() -> None:
    with Doubling("facts-doubling", LocalConnector(), register=True) as store:
        p = store.proxy([1, 2], populate_target=False)
        assert facts(p).len is None
        assert len(p) == 4


class Reversing(StoreFactory[Any, Any]):
    """A factory that makes something else of its object."""

    def resolve(self) -> Any:
        return 5


def test_other_factories_answer_for_themselves(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory")
    factory = get_factory(store.proxy([1, 2]))
    p = Proxy(Reversing(factory.key, store.config()))  # type: ignore[attr-defined]
    assert facts(p) == Facts()
    assert p == 5


class Own(Proxy[Any]):
    """A proxy with an attribute of its own."""

    @property
    def shape(self) -> str:
        return "own"


def test_attributes_of_the_proxy_itself_come_first(make_store: Callable[..., Store[Any]]) -> None:
    factory = get_factory(make_store("memory").proxy(np.ones((2, 3))))
    p = Own(factory)
    assert p.shape == "own"
    assert without_resolving(p, lambda p: p.size) == 6
    other = Proxy(factory)
    object.__setattr__(other, "size", "own")
    assert other.size == "own"


# The other side.


def look(p: Any) -> tuple[Any, ...]:
    """Use a proxy of an array where NumPy may not even be imported."""
    with no_resolve():
        seen = (len(p), p.shape, p.ndim, p.size, p.nbytes, facts(p))
    return (*seen, is_resolved(p), "numpy" in sys.modules)


def test_in_another_process(shared_store: Store[Any]) -> None:
    array = np.ones((4, 3), "f4")
    p = shared_store.proxy(array)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        *answers, told, resolved, _ = pool.submit(look, p).result(timeout=60)
    assert answers == [4, (4, 3), 2, 12, 48]
    assert told == facts(p)
    assert not resolved


def test_a_dtype_without_numpy_resolves(shared_store: Store[Any]) -> None:
    import subprocess

    code = (
        "import pickle, sys; from proxystore_rs.proxy import is_resolved, no_resolve\n"
        "p = pickle.loads(sys.stdin.buffer.read())\n"
        "with no_resolve(): print(p.shape)\n"
        "print('numpy' in sys.modules, is_resolved(p)); print(p.dtype, is_resolved(p))\n"
    )
    sent = pickle.dumps(shared_store.proxy(np.ones((2, 3), "f4")))
    done = subprocess.run(
        [sys.executable, "-c", code], input=sent, capture_output=True, check=True, timeout=60
    )
    assert done.stdout.decode().splitlines() == ["(2, 3)", "False False", "float32 True"]


def test_numpy_takes_the_target(store: Store[Any]) -> None:
    array = np.arange(6.0).reshape(2, 3)
    for use in (np.shape, np.size, np.ndim, np.sum, np.transpose, lambda p: p.reshape(3, 2)):
        p = pickle.loads(pickle.dumps(store.proxy(array)))
        assert without_resolving(p, lambda p: p.shape) == (2, 3)
        np.testing.assert_array_equal(use(p), use(array))


# Small things stay small.


@pytest.mark.parametrize("kind", ["memory", "file", "shm"])
def test_a_pickled_proxy_with_facts_is_small(kind: str, tmp_path: Any) -> None:
    from proxystore_rs.store import open_store

    url = {"memory": "memory://run7", "file": f"file://{tmp_path}", "shm": "shm://run7-facts"}[kind]
    with open_store(url) as store:
        p = store.proxy(np.zeros((1000, 1000)))
        names = len(socket.gethostname()) + (len(str(tmp_path)) if kind == "file" else 0)
        assert len(pickle.dumps(p)) <= 250 - 40 + names
        store.close(clear=True) if kind != "memory" else None
