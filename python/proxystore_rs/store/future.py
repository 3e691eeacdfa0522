"""Futures: a proxy now, its object later, perhaps from another process.

>>> from proxystore_rs.store import open_store
>>> store = open_store('memory://futures')
>>> future = store.future()
>>> proxy = future.proxy()  # send it wherever the result will be used
>>> future.done()
False
>>> future.set_result([1, 2, 3])  # here, or wherever the future was sent
>>> sum(proxy)
6
>>> store.close()
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from proxystore_rs._core import (
    Lease,
    Proxy,
    _fail,
    _failure,
    _hold_lease,
    _settle,
    _takes_data_only,
)
from proxystore_rs.exceptions import (
    FutureAbandonedError,
    FutureCancelledError,
    FutureError,
    FutureFailedError,
    FutureTimeoutError,
    ProxyResolveMissingKeyError,
    UnsupportedOperationError,
)
from proxystore_rs.store.factory import PollingStoreFactory

if TYPE_CHECKING:
    from proxystore_rs.store.base import Codec, Store
    from proxystore_rs.store.types import DeserializerT, SerializerT

__all__ = [
    "Future",
    "FutureAbandonedError",
    "FutureCancelledError",
    "FutureError",
    "FutureFailedError",
    "FutureTimeoutError",
]

T = TypeVar("T")


class Future(Generic[T]):
    """The end of a future that sets it; `proxy` makes the ends that wait.

    Both ends can be pickled and sent away, in any order: a consumer that is first waits.

    Args:
        factory: Fetches the result, waiting for it.
        serializer: Turns the result into bytes, instead of the store's own.
        codec: How the result is stored, instead of the store's own.
    """

    def __init__(
        self,
        factory: PollingStoreFactory[Any, T],
        *,
        serializer: SerializerT | None = None,
        codec: Codec | None = None,
    ) -> None:
        self._factory = factory
        self._serializer = serializer
        self._codec: Codec | None = codec
        self._consumed = False
        # As long as some process holds a future with a lease, consumers wait for it.
        self._lease: Lease | None = None
        if factory.lease is not None:
            self._lease = _hold_lease(self._store(), factory, factory.lease, True)

    def __repr__(self) -> str:
        return f"Future({self._factory!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {
            "_factory": self._factory,
            "_serializer": self._serializer,
            "_codec": self._codec,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(  # type: ignore[misc]
            state["_factory"], serializer=state["_serializer"], codec=state.get("_codec")
        )

    def _store(self) -> Store[Any]:
        store: Store[Any] = self._factory.get_store()
        return store

    @classmethod
    def _of(
        cls,
        store: Store[Any],
        *,
        evict: bool,
        serializer: SerializerT | None,
        deserializer: DeserializerT | None,
        timeout: float | None,
        lease: float | None,
        codec: Codec | None = None,
    ) -> Future[T]:
        if not hasattr(store.connector, "new_key"):
            raise UnsupportedOperationError(
                f"{type(store.connector).__name__} cannot make keys for objects that do not exist "
                "yet: it is no DeferrableConnector, which has new_key() and set(). Futures work "
                "on the memory, file, shared-memory and Redis connectors.",
            )
        factory: PollingStoreFactory[Any, T] = PollingStoreFactory(
            store._new_key(),
            store.config(),
            evict=evict,
            deserializer=deserializer,
            polling_timeout=timeout,
            lease=lease,
        )
        return cls(factory._at(store), serializer=serializer, codec=codec)

    def proxy(self) -> Proxy[T]:
        """Return a proxy that waits for the result when it is used."""
        return Proxy(self._factory)

    def done(self) -> bool:
        """Return whether there is a result or a failure now, which is not evicted yet."""
        return self._store().exists(self._factory.key)

    def cancelled(self) -> bool:
        """Return whether the future was cancelled."""
        failure = _failure(self._store(), self._factory)
        return failure is not None and failure[0]

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result and return it.

        Args:
            timeout: Seconds to wait at most, instead of the future's own.

        Raises:
            FutureTimeoutError: It was not set in time; also a `TimeoutError`.
            FutureCancelledError: It was cancelled.
            FutureAbandonedError: It has a lease, and its producer is gone.
            ProxyResolveMissingKeyError: It was consumed before (`evict=True`).
            Exception: Whatever `set_exception` was called with.
        """
        if self._consumed and not self.done():
            store = self._store()
            raise ProxyResolveMissingKeyError(self._factory.key, type(store), store.name)
        result = self._factory._result(timeout)
        self._consumed = self._factory.evict
        return result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait until the future is set, and return the exception it was set to, if any.

        Raises:
            FutureTimeoutError: It was not set in time.
            FutureCancelledError: It was cancelled.
            FutureAbandonedError: It has a lease, and its producer is gone.
        """
        if not self.done():
            if self._consumed:
                return None  # it was a result
            self._factory._until_set(timeout)
        failure = _failure(self._store(), self._factory)
        if failure is None:
            return None
        if failure[0]:
            raise failure[1]
        return failure[1]

    def set_result(self, obj: T) -> None:
        """Store the result and wake who waits; setting it again replaces it for later readers.

        Raises:
            FutureCancelledError: The future was cancelled.
        """
        self._check_not_cancelled()
        _settle(self._store(), self._factory, obj, self._serializer, self._codec)
        self._lease = None

    def set_exception(self, exception: BaseException | type[BaseException]) -> None:
        """Let those who wait raise this exception, or one of this class.

        In a process that does not know its class, they raise a `FutureFailedError` with its text.

        Raises:
            FutureCancelledError: The future was cancelled.
        """
        if isinstance(exception, type):
            exception = exception()
        if not isinstance(exception, BaseException):
            raise TypeError(
                f"a future can be set to an exception, not to {exception!r}; results are set by "
                "set_result",
            )
        self._check_not_cancelled()
        kind = type(exception)
        name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        store = self._store()
        # Who takes only data could not use the pickle, and gets the text.
        text_alone = self._codec == "data" or _takes_data_only(store._codec)
        pickled = None if text_alone else _pickled(exception)
        _fail(store, self._factory, (name, str(exception), pickled))
        self._lease = None

    def cancel(self) -> bool:
        """Cancel the future unless it is set; return whether it is cancelled now.

        Those who wait raise a `FutureCancelledError`.
        """
        if self.done():
            return self.cancelled()
        _fail(self._store(), self._factory, None)
        self._lease = None
        return True

    def _check_not_cancelled(self) -> None:
        if self.cancelled():
            raise FutureCancelledError(f"{self!r} cannot be set: it was cancelled")


def _pickled(exception: BaseException) -> bytes | None:
    """Return the pickle of an exception, if it comes back from it."""
    try:
        data = pickle.dumps(exception)
        pickle.loads(data)
    except Exception:
        return None
    return data
