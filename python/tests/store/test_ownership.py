"""Owners free their objects exactly once, and never under a borrower."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from proxystore_rs.proxy import Proxy, is_resolved, resolve
from proxystore_rs.store import Store
from proxystore_rs.store.ref import (
    BaseRefProxy,
    MutableBorrowError,
    OwnedProxy,
    ReferenceInvalidError,
    ReferenceNotOwnedError,
    RefMutProxy,
    RefProxy,
    borrow,
    clone,
    into_owned,
    mut_borrow,
    update,
)
from proxystore_rs.store.scopes import mark_refs_out_of_scope, submit
from proxystore_rs.store.utils import get_key


def test_an_owner_evicts_when_it_dies(store: Store[Any]) -> None:
    owner = store.owned_proxy([1, 2])
    assert type(owner) is OwnedProxy and owner == [1, 2]
    key = get_key(owner)
    assert store.exists(key)
    del owner
    assert not store.exists(key)


def test_values_that_cannot_be_proxied_are_returned(store: Store[Any]) -> None:
    assert store.owned_proxy(None) is None
    assert store.owned_proxy(True) is True


def test_an_owner_in_a_cycle_evicts_too(store: Store[Any]) -> None:
    target: list[Any] = []
    owner = store.owned_proxy(target)
    target.append(owner)
    key = get_key(owner)
    del owner, target
    gc.collect()
    assert not store.exists(key)


def test_an_owner_in_a_cycle_with_its_borrows_evicts_quietly(store: Store[Any]) -> None:
    keys = []
    for lend, turn in ((borrow, 1), (borrow, -1), (mut_borrow, 1), (mut_borrow, -1)):
        owner = store.owned_proxy([1], populate_target=False)
        keys.append(get_key(owner))
        cycle: list[Any] = [owner, lend(owner)][::turn]
        cycle.append(cycle)
        del owner, cycle
    gc.collect()  # an exception in it would be a warning, and that an error
    assert not any(store.exists(key) for key in keys)


def test_an_update_keeps_the_lease(shared_store: Store[Any]) -> None:
    kill = "import os, signal; from proxystore_rs.store.ref import update; len(owner); "
    kill += "update(owner); os.kill(os.getpid(), signal.SIGKILL)"
    key, _, _ = _run(shared_store, lease=", lease=2", then=kill)
    deadline = time.monotonic() + 60
    while shared_store.exists(key):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_many_shared_or_one_exclusive(store: Store[Any]) -> None:
    owner = store.owned_proxy("x" * 10)
    one, two = borrow(owner), borrow(owner)
    assert type(one) is RefProxy and one == two == "x" * 10
    with pytest.raises(MutableBorrowError, match="2 other borrows"):
        mut_borrow(owner)
    del one, two
    exclusive = mut_borrow(owner)
    assert type(exclusive) is RefMutProxy
    with pytest.raises(MutableBorrowError):
        borrow(owner)
    with pytest.raises(MutableBorrowError):
        mut_borrow(owner)
    del exclusive
    assert borrow(owner) == "x" * 10


def test_a_borrow_keeps_the_owner_alive(store: Store[Any]) -> None:
    owner = store.owned_proxy("kept")
    shared = borrow(owner)
    key = get_key(owner)
    del owner
    assert store.exists(key) and shared == "kept"
    del shared
    assert not store.exists(key)


def test_deleting_a_borrowed_owner_by_hand_is_refused(store: Store[Any]) -> None:
    owner = store.owned_proxy("x")
    shared = borrow(owner)
    with pytest.raises(RuntimeError, match="Cannot safely delete OwnedProxy"):
        OwnedProxy.__del__(owner)
    assert shared == "x"


def test_borrowing_resolves_nothing(store: Store[Any]) -> None:
    owner = store.owned_proxy([1], populate_target=False)
    shared = borrow(owner)
    assert not is_resolved(owner) and not is_resolved(shared)
    resolve(owner)
    assert is_resolved(borrow(owner))
    assert not is_resolved(borrow(owner, populate_target=False))


def test_only_owners_lend(store: Store[Any]) -> None:
    plain = store.proxy("x")
    for call in (borrow, mut_borrow, clone, update):
        with pytest.raises(ReferenceNotOwnedError):
            call(plain)  # type: ignore[arg-type]
    owner = into_owned(plain)
    with pytest.raises(ReferenceNotOwnedError):
        update(borrow(owner))  # type: ignore[arg-type]


def test_copying_is_refused(store: Store[Any]) -> None:
    owner = store.owned_proxy("x")
    for reference in (owner, borrow(owner)):
        with pytest.raises(NotImplementedError, match="Copy is not implemented"):
            copy.copy(reference)
        with pytest.raises(NotImplementedError, match="Deep copy is not implemented"):
            copy.deepcopy(reference)


def test_update_is_seen_by_later_borrowers(store: Store[Any]) -> None:
    owner = store.owned_proxy([1])
    exclusive = mut_borrow(owner)
    exclusive.append(2)
    exclusive += [3]
    update(exclusive)
    with pytest.raises(MutableBorrowError):
        update(owner)
    mark_refs_out_of_scope(exclusive)
    assert owner == [1, 2, 3]
    assert pickle.loads(pickle.dumps(borrow(owner))) == [1, 2, 3]
    owner.append(4)
    update(owner)
    assert pickle.loads(pickle.dumps(borrow(owner))) == [1, 2, 3, 4]


def test_updating_what_is_unresolved_does_nothing(store: Store[Any]) -> None:
    owner = store.owned_proxy([1], populate_target=False)
    update(owner)
    assert not is_resolved(owner)


def test_a_clone_is_independent(store: Store[Any]) -> None:
    owner = store.owned_proxy([1])
    other = clone(owner)
    assert get_key(other) != get_key(owner)
    other.append(2)
    assert owner == [1] and other == [1, 2]
    key = get_key(owner)
    del owner
    assert not store.exists(key)
    assert pickle.loads(pickle.dumps(borrow(other))) == [1]


def test_pickling_moves(store: Store[Any]) -> None:
    owner = store.owned_proxy([1, 2])
    key = get_key(owner)
    data = pickle.dumps(owner)
    for use in (len, pickle.dumps, borrow, clone, update):
        with pytest.raises(ReferenceInvalidError):
            use(owner)
    del owner
    assert store.exists(key)  # on its way
    arrived = pickle.loads(data)
    assert type(arrived) is OwnedProxy and arrived == [1, 2]
    del arrived
    assert not store.exists(key)


def test_a_borrowed_owner_cannot_be_moved(store: Store[Any]) -> None:
    owner = store.owned_proxy("x")
    shared = borrow(owner)
    with pytest.raises(MutableBorrowError, match="cannot move"):
        pickle.dumps(owner)
    del shared
    assert pickle.loads(pickle.dumps(owner)) == "x"


def test_a_borrow_that_moved_still_counts(store: Store[Any]) -> None:
    owner = store.owned_proxy("x")
    shared = borrow(owner)
    data = pickle.dumps(shared)
    with pytest.raises(MutableBorrowError):
        mut_borrow(owner)
    arrived = pickle.loads(data)
    assert type(arrived) is RefProxy and arrived == "x"
    with pytest.raises(RuntimeError, match="without an owner"):
        mark_refs_out_of_scope(arrived)
    mark_refs_out_of_scope(shared)
    mark_refs_out_of_scope(shared)  # twice is fine
    assert mut_borrow(owner) == "x"


def test_into_owned(store: Store[Any]) -> None:
    plain = store.proxy([1], evict=True, populate_target=False)
    owner = into_owned(plain)
    assert plain == [1]
    assert store.exists(get_key(owner))  # the plain proxy no longer evicts
    for reference in (owner, borrow(owner)):
        with pytest.raises(ValueError, match="plain proxy"):
            into_owned(reference)


class _Own(OwnedProxy[Any]):
    """A subclass of the user's."""


def test_subclasses_are_references_too(store: Store[Any]) -> None:
    owner: Any = _Own(store.proxy("x").__proxy_factory__)
    assert issubclass(type(owner), BaseRefProxy)
    with pytest.raises(ValueError, match="plain proxy"):
        into_owned(owner)
    assert borrow(owner) == "x"


def test_submit_ends_borrows_with_the_task(store: Store[Any]) -> None:
    owner = store.owned_proxy([1, 2, 3])
    hidden = borrow(owner)
    task: Future[Any] = Future()

    def start(*args: Any, **kwargs: Any) -> Future[Any]:
        return task

    shared = borrow(owner)
    assert submit(start, args=(shared,), kwargs={"a": 1}, register_custom_refs=[hidden]) is task
    with pytest.raises(MutableBorrowError):
        mut_borrow(owner)
    task.set_result(None)
    assert mut_borrow(owner) == [1, 2, 3]
    with pytest.raises(ReferenceInvalidError):
        len(shared)


def _append(reference: Any) -> int:
    reference.append(len(reference))
    update(reference)
    return len(reference)


def _swallow(owner: Any) -> int:
    return len(owner)


def test_borrows_and_owners_in_another_process(shared_store: Store[Any]) -> None:
    with ProcessPoolExecutor(1) as pool:
        owner = shared_store.owned_proxy([0])
        key = get_key(owner)
        assert submit(pool.submit, args=(len, borrow(owner))).result() == 1
        submit(pool.submit, args=(_append, mut_borrow(owner))).result()
        assert pickle.loads(pickle.dumps(borrow(owner))) == [0, 1]
        # Given away: the worker is the owner, and evicts when it drops it.
        assert pool.submit(_swallow, owner).result() == 2
        pool.submit(gc.collect).result()
        assert not shared_store.exists(key)


_EXIT = """
import pickle, sys
from proxystore_rs.store import get_or_create_store
from proxystore_rs.store.utils import get_key
store = get_or_create_store(pickle.loads(bytes.fromhex(sys.argv[1])))
owner = store.owned_proxy(b"x" * 1000{lease})
print(pickle.dumps(get_key(owner)).hex(), flush=True)
{then}
"""


def _run(store: Store[Any], lease: str = "", then: str = "") -> tuple[Any, int, list[str]]:
    """Own an object in another process; return its key, the exit code and what was printed."""
    code = _EXIT.format(lease=lease, then=then)
    command = [sys.executable, "-c", code, pickle.dumps(store.config()).hex()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    key, *printed = done.stdout.splitlines()
    return pickle.loads(bytes.fromhex(key)), done.returncode, printed


def test_an_owner_evicts_at_exit(shared_store: Store[Any]) -> None:
    key, code, _ = _run(shared_store)
    assert code == 0
    assert not shared_store.exists(key)


def test_an_owner_evicts_although_its_store_was_closed(shared_store: Store[Any]) -> None:
    key, code, _ = _run(shared_store, then="store.close()")
    assert code == 0
    assert not shared_store.exists(key)


def test_a_forked_child_owns_nothing(shared_store: Store[Any]) -> None:
    then = "import os; child = os.fork()\nif child: os.waitpid(child, 0); "
    then += "print(store.exists(get_key(owner)))"
    _, code, printed = _run(shared_store, then=then)
    assert (code, printed) == (0, ["True"])


def test_a_killed_owner_with_a_lease_leaks_nothing(shared_store: Store[Any]) -> None:
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    key, code, _ = _run(shared_store, lease=", lease=0.5", then=kill)
    assert code == -9
    deadline = time.monotonic() + 60
    while shared_store.exists(key):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kept, _, _ = _run(shared_store, then=kill)
    assert shared_store.exists(kept)  # without a lease it stays


def test_a_lease_is_renewed_and_travels(shared_store: Store[Any]) -> None:
    owner = shared_store.owned_proxy("x", lease=0.8)
    time.sleep(1.6)
    assert shared_store.exists(get_key(owner))
    arrived = pickle.loads(pickle.dumps(owner))
    time.sleep(1.6)
    assert shared_store.exists(get_key(arrived))
    assert arrived == "x"


def test_threads_borrowing_at_once(store: Store[Any]) -> None:
    owner = store.owned_proxy(list(range(100)))

    def work(seed: int, owner: Any = owner) -> int:
        total = 0
        for i in range(200):
            if (seed + i) % 10 == 0:
                try:
                    exclusive = mut_borrow(owner)
                except MutableBorrowError:
                    continue
                mark_refs_out_of_scope(exclusive)
            else:
                try:
                    total += len(borrow(owner))
                except MutableBorrowError:
                    continue
        return total

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    key = get_key(owner)
    assert mut_borrow(owner) is not None  # every borrow was given back
    del owner, work
    gc.collect()
    assert not store.exists(key)


def test_inline_objects_have_nothing_to_free(make_store: Any) -> None:
    store = make_store("shm", inline_bytes=1000)
    small: Proxy[bytes] = store.proxy(b"x" * 100)
    assert not store.exists(get_key(small))
    arrived = pickle.loads(pickle.dumps(small))
    assert arrived == b"x" * 100
    large = store.proxy(b"x" * 2000)
    assert store.exists(get_key(large))
    owner = into_owned(pickle.loads(pickle.dumps(small)))
    assert clone(owner) == b"x" * 100
    assert pickle.loads(pickle.dumps(owner)) == b"x" * 100
