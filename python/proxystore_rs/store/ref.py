"""Ownership: one owner frees the object, many shared borrows or one exclusive use it.

    >>> from proxystore_rs.store import open_store
    >>> store = open_store('memory://ownership')
    >>> owner = store.owned_proxy([1, 2])
    >>> shared = borrow(owner)
    >>> len(shared)
    2
    >>> mut_borrow(owner)
    Traceback (most recent call last):
    ...
    proxystore_rs.store.ref.MutableBorrowError: cannot borrow exclusively: there is 1 other borrow
    >>> del shared
    >>> exclusive = mut_borrow(owner)
    >>> exclusive.append(3)
    >>> update(exclusive)  # stores the change
    >>> del exclusive
    >>> key = owner.__proxy_factory__.key
    >>> del owner  # evicts the object
    >>> store.exists(key)
    False
    >>> store.close()

References travel: pickling one moves it, so the original can no longer be used. An owner that
arrives elsewhere is responsible there. A borrow that arrives elsewhere is counted here until it is
given back, see `proxystore_rs.store.scopes`.
"""

from __future__ import annotations

import atexit
import copy
import gc
import logging
import os
import threading
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

from proxystore_rs._core import Lease, Proxy, StoreFactory, _copy, _hold_lease, _settle
from proxystore_rs.exceptions import ProxyStoreError, ProxyStoreFactoryError
from proxystore_rs.proxy import get_factory, is_resolved
from proxystore_rs.store.types import SerializerT

__all__ = [
    "BaseRefProxy",
    "BaseRefProxyError",
    "FactoryType",
    "MutableBorrowError",
    "OwnedProxy",
    "RefMutProxy",
    "RefProxy",
    "ReferenceInvalidError",
    "ReferenceNotOwnedError",
    "borrow",
    "clone",
    "into_owned",
    "mut_borrow",
    "update",
]

T = TypeVar("T")

FactoryType: TypeAlias = StoreFactory[Any, T]
"""A factory that fetches its target from a store."""

logger = logging.getLogger(__name__)

# Reentrant: a collection while it is held may end other borrows. A forked child gets a new one.
_lock = threading.RLock()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


class BaseRefProxyError(ProxyStoreError):
    """Base of the exceptions about ownership."""

    _passes_through_proxies = True  # using an invalid reference raises it as it is


class MutableBorrowError(BaseRefProxyError):
    """The rule was broken: many shared borrows, or one exclusive borrow and no other.

    Remedy: end the other borrows first, by deleting them or by `mark_refs_out_of_scope`.
    """


class ReferenceNotOwnedError(BaseRefProxyError):
    """Only an owner can do this.

    Remedy: pass the `OwnedProxy`; make one of a plain proxy by `into_owned`.
    """


class ReferenceInvalidError(BaseRefProxyError):
    """The reference was moved away, by pickling it, or its scope ended.

    Remedy: use the reference that arrived at the other side, or borrow again.
    """


class _State:
    """What a reference knows of itself; apart from it, so that `_responsible` can hold this."""

    __slots__ = (
        *("exclusive", "factory", "lease", "lease_seconds"),
        *("owner", "process", "shared", "valid"),
    )

    def __init__(self, owner: OwnedProxy[Any] | None = None) -> None:
        self.valid = True
        # Of an owner: its borrows, what names the object, and the process that is to free it.
        self.shared = 0
        self.exclusive = 0
        self.factory: Any = None
        self.process = 0
        self.lease: Lease | None = None
        self.lease_seconds: float | None = None
        # Of a borrow: the owner, which it keeps alive until the borrow is given back.
        self.owner = owner


# The states of owners whose objects are to be freed when they die, or when the interpreter exits.
_responsible: set[_State] = set()


class BaseRefProxy(Proxy[T], Generic[T]):
    """Base of owners and borrows: a proxy that cannot be copied, and is moved by pickling it."""

    __slots__ = ("_ref",)
    _ref: _State

    def __init__(
        self,
        factory: FactoryType[T],
        *,
        cache_defaults: bool = False,
        target: T | None = None,
    ) -> None:
        super().__init__(factory, cache_defaults=cache_defaults, target=target)
        self._ref = _State()

    def __copy__(self) -> NoReturn:
        raise NotImplementedError(
            "Copy is not implemented for owners and borrows: borrow(), or clone() an owner",
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        raise NotImplementedError(
            "Deep copy is not implemented for owners and borrows: clone() an owner",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        _check_valid(self)
        state = self._ref
        if state.shared or state.exclusive:
            raise MutableBorrowError(
                f"cannot move an owner that is borrowed: {_borrows(state)}; send a borrow, or end "
                "the borrows first",
            )
        factory = get_factory(self)
        _invalidate(self)
        return _restore, (type(self), factory, state.lease_seconds)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return self.__reduce__()


class OwnedProxy(BaseRefProxy[T]):
    """The proxy that is responsible for its object: when it dies, the object is evicted.

    At the latest that is when the interpreter exits. A forked child has copies of its parent's
    owners, and they own nothing.
    """

    __slots__ = ()

    def __init__(
        self,
        factory: FactoryType[T],
        *,
        cache_defaults: bool = False,
        target: T | None = None,
    ) -> None:
        if not isinstance(factory, StoreFactory):
            raise ProxyStoreFactoryError(
                f"an owner needs a factory of a store, not {type(factory).__name__}: make it by "
                "store.owned_proxy(obj) or into_owned(proxy)",
            )
        factory.evict = False
        if type(factory).__module__.startswith("proxystore_rs."):
            # Whichever object is current: an exclusive borrower elsewhere may have replaced it.
            factory = factory._latest()
        super().__init__(factory, cache_defaults=cache_defaults, target=target)
        if not factory._is_inline:
            state = self._ref
            state.factory, state.process = factory, os.getpid()
            _responsible.add(state)

    def __del__(self) -> None:
        state: _State | None = getattr(self, "_ref", None)
        if state is None or not state.valid:
            return
        # One that is collected with borrows was in a cycle with them: nobody uses them any more.
        if (state.shared or state.exclusive) and not gc.is_finalized(self):
            raise RuntimeError(f"Cannot safely delete OwnedProxy: {_borrows(state)}")
        _evict(state)


class _Borrow(BaseRefProxy[T]):
    __slots__ = ()

    def __init__(
        self,
        factory: FactoryType[T],
        *,
        cache_defaults: bool = False,
        owner: OwnedProxy[T] | None = None,
        target: T | None = None,
    ) -> None:
        super().__init__(factory, cache_defaults=cache_defaults, target=target)
        self._ref.owner = owner

    def __del__(self) -> None:
        state: _State | None = getattr(self, "_ref", None)
        if state is not None:
            _give_back(type(self), state)


class RefProxy(_Borrow[T]):
    """A shared borrow: keeps the owner alive. There may be many."""

    __slots__ = ()


class RefMutProxy(_Borrow[T]):
    """An exclusive borrow: keeps the owner alive, and there is no other. See `update`."""

    __slots__ = ()


def borrow(proxy: OwnedProxy[T], *, populate_target: bool = True) -> RefProxy[T]:
    """Return a shared borrow of an owner, without resolving it.

    Args:
        proxy: The owner.
        populate_target: If the owner is resolved, the borrow has its target too.

    Raises:
        MutableBorrowError: There is an exclusive borrow.
        ReferenceNotOwnedError: It is no owner.
        ReferenceInvalidError: The owner was moved away.
    """
    state = _owner_state(proxy, "borrow")
    with _lock:
        if state.exclusive:
            raise MutableBorrowError(f"cannot borrow: {_borrows(state)}")
        state.shared += 1
    reference: RefProxy[T] = _lend(RefProxy, proxy, populate_target)
    return reference


def mut_borrow(proxy: OwnedProxy[T], *, populate_target: bool = True) -> RefMutProxy[T]:
    """Return the exclusive borrow of an owner, without resolving it.

    Args:
        proxy: The owner.
        populate_target: If the owner is resolved, the borrow has its target too.

    Raises:
        MutableBorrowError: There is another borrow.
        ReferenceNotOwnedError: It is no owner.
        ReferenceInvalidError: The owner was moved away.
    """
    state = _owner_state(proxy, "borrow exclusively")
    with _lock:
        if state.shared or state.exclusive:
            raise MutableBorrowError(f"cannot borrow exclusively: {_borrows(state)}")
        state.exclusive += 1
    reference: RefMutProxy[T] = _lend(RefMutProxy, proxy, populate_target)
    return reference


def into_owned(
    proxy: Proxy[T],
    *,
    populate_target: bool = True,
    lease: float | None = None,
) -> OwnedProxy[T]:
    """Return an owner of a plain proxy's object.

    There must be no other owner. The plain proxy no longer evicts the object when it resolves.

    Args:
        proxy: A proxy of a store.
        populate_target: If the proxy is resolved, the owner has its target too.
        lease: The owner renews the object's time to live, so that the object goes away this many
            seconds after the owner's process was killed.

    Raises:
        ValueError: It is an owner or a borrow already.
        ProxyStoreFactoryError: It does not come from a store.
    """
    if issubclass(type(proxy), BaseRefProxy):
        raise ValueError(f"only a plain proxy can get an owner, not a {type(proxy).__name__}")
    return _own(proxy, populate_target=populate_target, lease=lease)


def clone(proxy: OwnedProxy[T]) -> OwnedProxy[T]:
    """Copy the stored object to a new key, and return the owner of the copy.

    Raises:
        ReferenceNotOwnedError: It is no owner.
        ReferenceInvalidError: The owner was moved away.
    """
    state = _owner_state(proxy, "clone")
    factory: Any = get_factory(proxy)
    if factory._is_inline:
        copied: OwnedProxy[T] = OwnedProxy(factory)
    else:
        store = factory.get_store()
        key = _copy(store, factory)
        copied = _own(
            store.proxy_from_key(key, deserializer=factory.deserializer),
            lease=state.lease_seconds,
        )
    if is_resolved(proxy):
        copied.__proxy_wrapped__ = copy.deepcopy(proxy.__proxy_wrapped__)
    return copied


def update(
    proxy: OwnedProxy[T] | RefMutProxy[T],
    *,
    serializer: SerializerT | None = None,
) -> None:
    """Store the reference's target in place of the object; nothing if it is not resolved.

    Borrows that are made afterwards, here or elsewhere, see it.

    Raises:
        MutableBorrowError: The owner is borrowed.
        ReferenceNotOwnedError: It is neither an owner nor an exclusive borrow.
        ReferenceInvalidError: The reference was moved away, or its scope ended.
        UnsupportedOperationError: The connector cannot replace objects; also a
            `NotImplementedError`.
    """
    if not issubclass(type(proxy), (OwnedProxy, RefMutProxy)):
        raise ReferenceNotOwnedError(
            f"only an owner or its exclusive borrow can update the object, not a "
            f"{type(proxy).__name__}",
        )
    _check_valid(proxy)
    state = proxy._ref
    if state.shared or state.exclusive:
        raise MutableBorrowError(f"cannot update through the owner: {_borrows(state)}")
    if not is_resolved(proxy):
        return
    target = proxy.__proxy_wrapped__
    factory: Any = get_factory(proxy)
    store = factory.get_store()
    _settle(store, factory, target, serializer)
    if state.owner is not None:
        state.owner.__proxy_wrapped__ = target
        state = state.owner._ref
    if state.lease_seconds is not None:  # should this process die before the next renewal
        store.expire([factory.key], state.lease_seconds)


def _own(
    proxy: Proxy[T],
    *,
    populate_target: bool = True,
    lease: float | None = None,
) -> OwnedProxy[T]:
    owned: OwnedProxy[T] = OwnedProxy(get_factory(proxy))  # type: ignore[arg-type]
    if populate_target and is_resolved(proxy):
        owned.__proxy_wrapped__ = proxy.__proxy_wrapped__
    _hold(owned, lease)
    return owned


def _hold(owned: OwnedProxy[Any], lease: float | None) -> None:
    """Renew the object's time to live as long as the owner lives."""
    factory: Any = get_factory(owned)
    if lease is None or factory._is_inline:
        return
    owned._ref.lease = _hold_lease(factory.get_store(), factory, lease, False)
    owned._ref.lease_seconds = lease


def _lend(kind: type[Any], owner: OwnedProxy[T], populate_target: bool) -> Any:
    reference = kind(get_factory(owner), owner=owner)
    if populate_target and is_resolved(owner):
        reference.__proxy_wrapped__ = owner.__proxy_wrapped__
    return reference


def _restore(kind: type[Any], factory: Any, lease: float | None) -> Any:
    """Return a reference that has arrived."""
    reference = kind(factory)
    if lease is not None:
        _hold(reference, lease)
    return reference


def _owner_state(proxy: Any, wish: str) -> _State:
    if not issubclass(type(proxy), OwnedProxy):
        raise ReferenceNotOwnedError(
            f"cannot {wish}: a {type(proxy).__name__} owns no object; pass an OwnedProxy",
        )
    _check_valid(proxy)
    state: _State = proxy._ref
    return state


def _check_valid(proxy: BaseRefProxy[Any]) -> None:
    if not proxy._ref.valid:
        raise ReferenceInvalidError(_moved(type(proxy)))


def _moved(kind: type[Any]) -> str:
    return (
        f"this {kind.__name__} cannot be used any more: it was moved to another process by "
        "pickling it, or its scope ended"
    )


class _Invalid:
    """Factory of a reference that was moved away."""

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind

    def __call__(self) -> NoReturn:
        raise ReferenceInvalidError(_moved(self.kind))


def _invalidate(proxy: BaseRefProxy[Any]) -> None:
    """End the use of a reference; an owner is no longer responsible, a borrow still counts."""
    state = proxy._ref
    state.valid = False
    state.lease = None
    _responsible.discard(state)
    proxy.__proxy_factory__ = _Invalid(type(proxy))
    if is_resolved(proxy):
        del proxy.__proxy_wrapped__


def _give_back(kind: type[Any], state: _State) -> None:
    """Give a borrow back to its owner, once."""
    with _lock:
        owner, state.owner = state.owner, None
        if owner is None:
            return
        lent = owner._ref
        if issubclass(kind, RefMutProxy):
            lent.exclusive -= 1
        else:
            lent.shared -= 1
    del owner  # perhaps the last reference to it: outside the lock


def _borrows(state: _State) -> str:
    if state.exclusive:
        return "there is an exclusive borrow"
    others = "1 other borrow" if state.shared == 1 else f"{state.shared} other borrows"
    return f"there {'is' if state.shared == 1 else 'are'} {others}"


def _evict(state: _State) -> None:
    """Free the object of an owner that died, once."""
    if state not in _responsible:
        return
    _responsible.discard(state)
    factory = state.factory
    try:
        if os.getpid() != state.process:
            return
        store = factory._open_store
        if store is not None:
            store.evict(factory.key)
            return
        # The store was closed: open it once more, known to nobody.
        from proxystore_rs.store.base import Store

        config = factory.store_config
        config.auto_register = False
        store = Store.from_config(config)
        try:
            store.evict(factory.key)
        finally:
            store.close()
    except Exception as error:
        # Nobody is there to be told, and the object may be beyond reach anyway.
        logger.debug("an owner died, but its object could not be evicted: %s", error)


@atexit.register
def _evict_all() -> None:
    for state in list(_responsible):
        _evict(state)
