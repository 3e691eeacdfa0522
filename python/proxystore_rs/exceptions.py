"""The exceptions of this package.

Every one derives from `ProxyStoreError`, so that `except ProxyStoreError` catches whatever this
package raises on its own account, and says in its text what was attempted, why it failed and what
to do about it. Where Python has a natural exception for a case (a `TimeoutError`, a `ValueError`),
the class derives from that as well.

    >>> from proxystore_rs.exceptions import ChannelTimeoutError, ProxyStoreError
    >>> issubclass(ChannelTimeoutError, ProxyStoreError)
    True
    >>> issubclass(ChannelTimeoutError, TimeoutError)
    True

What a proxy raises while it resolves is a
[`ProxyResolveError`][proxystore_rs.proxy.ProxyResolveError] whose `cause` is one of these. All of
them survive pickling, so that a worker's failure reaches the process that waits for it.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ChannelError",
    "ChannelFullError",
    "ChannelPermissionError",
    "ChannelTimeoutError",
    "CorruptObjectError",
    "EndpointConfigError",
    "EndpointConnectorError",
    "EndpointFullError",
    "EndpointPermissionError",
    "EndpointTimeoutError",
    "FutureAbandonedError",
    "FutureCancelledError",
    "FutureError",
    "FutureFailedError",
    "FutureTimeoutError",
    "IncompatibleVersionError",
    "LifetimeEndedError",
    "MultiConnectorError",
    "NonProxiableTypeError",
    "ObjectNotFoundError",
    "ProxyResolveMissingKeyError",
    "ProxyStoreError",
    "ProxyStoreFactoryError",
    "SealedObjectError",
    "SerializationError",
    "SitePolicyError",
    "StoreClosedError",
    "StoreConfigError",
    "StoreError",
    "StoreExistsError",
    "TamperedObjectError",
    "UnsupportedOperationError",
    "UntrustedError",
]


class ProxyStoreError(Exception):
    """Base of all exceptions of this package; catch it to catch them all."""


class StoreError(ProxyStoreError):
    """Base of the exceptions about a store as such: its name, configuration or state."""


class StoreExistsError(StoreError):
    """A store of this name is registered already.

    Remedy: use the registered one (`get_store(name)`), choose another name, or replace it
    (`register_store(store, exist_ok=True)`).
    """


class StoreClosedError(StoreError):
    """The store or connector was closed before it was used.

    Remedy: close a store only when nothing uses it any more, for instance by keeping the code that
    does inside `with Store(...) as store:`.
    """


class StoreConfigError(StoreError, ValueError):
    """A configuration, name or URL is wrong, or contradicts one that is in use.

    Remedy: the text names the field, what it holds and what it may hold.
    """


class ProxyStoreFactoryError(StoreError):
    """The proxy does not come from a store, so it has no key and no store.

    Remedy: make the proxy by `store.proxy(obj)`, or use functions that take any proxy.
    """


class LifetimeEndedError(StoreError, RuntimeError):
    """The lifetime has ended, and takes no more objects.

    Remedy: add objects while it lasts, extend a lease before it ends, or make another lifetime.
    """


class NonProxiableTypeError(ProxyStoreError):
    """A proxy of this object could not stand in for it.

    There is one `None`, one `True` and one `False`; programs compare with them by `is`, which a
    proxy cannot answer. Remedy: pass such values as they are (`skip_nonproxiable=True`).
    """


class ProxyResolveMissingKeyError(ProxyStoreError):
    """The object that a proxy stands for is not in its store.

    Remedy: evict an object only when no proxy of it will be used any more; give objects that many
    consumers use a lifetime instead of `evict=True`.

    >>> str(ProxyResolveMissingKeyError(('abc',), object, 'results'))[:58]
    "cannot resolve the proxy: object 'results' has no object f"

    Args:
        key: Key of the object in the store.
        store_type: Class of the store.
        store_name: Name of the store.
    """

    key: Any
    """Key of the object in the store."""
    store_type: type[Any]
    """Class of the store."""
    store_name: str
    """Name of the store."""

    def __init__(self, key: Any, store_type: type[Any], store_name: str) -> None:
        self.key = key
        self.store_type = store_type
        self.store_name = store_name
        super().__init__(
            f"cannot resolve the proxy: {store_type.__name__} {store_name!r} has no object for "
            f"{key!r}. It was most likely evicted while proxies of it were still in use (evict=True "
            "lets only the first copy of a proxy resolve), or the store was closed or cleared; "
            "evict it later, or tie it to a lifetime"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        own = ("key", "store_type", "store_name")
        state = {name: value for name, value in self.__dict__.items() if name not in own}
        return type(self), (self.key, self.store_type, self.store_name), state


class FutureError(ProxyStoreError):
    """Base of the exceptions about futures that have no result."""


class FutureFailedError(FutureError):
    """The producer of a future failed with an exception that cannot be rebuilt here.

    An exception that can is raised itself. Remedy: look at the producer; the text has the type and
    message of its exception.
    """


class FutureCancelledError(FutureError):
    """A future was cancelled.

    Remedy: whoever cancelled it knows why; do not wait for it.
    """


class FutureAbandonedError(FutureError):
    """A future can never be set: the lease of its producer ended.

    Remedy: the producing process died or was cut off; run its task again.
    """


class FutureTimeoutError(FutureError, ProxyResolveMissingKeyError, TimeoutError):
    """The result of a future was not set in time.

    Remedy: wait longer, or find out why the producer is late; a proxy that failed to resolve may be
    used again.
    """

    def __init__(self, key: Any, store_type: type[Any], store_name: str) -> None:
        super().__init__(key, store_type, store_name)
        self.args = (
            f"the result of a future was not set in time: {store_type.__name__} {store_name!r} has "
            f"no object for {key!r} yet. Wait longer, or find out why its producer is late",
        )


class ObjectNotFoundError(ProxyStoreError, KeyError):
    """No object is stored under the key: there never was one, or it was evicted.

    Remedy: check with `store.exists(key)`, or keep the object until its last use.
    """

    def __str__(self) -> str:
        # KeyError quotes its argument, which suits a key and not a sentence.
        return Exception.__str__(self)


class UnsupportedOperationError(ProxyStoreError, NotImplementedError):
    """The channel cannot do this.

    Remedy: use a connector that can; the text names the capability that is missing.
    """


class MultiConnectorError(ProxyStoreError):
    """No part of a multi connector takes an object, or a key is of a part that is not there.

    Remedy: the text has each part's reason. Add a part whose policy takes what the others do not;
    use objects of a dormant part on a host that its policy is for.
    """


class SerializationError(ProxyStoreError):
    """An object could not be turned into bytes, or bytes into an object.

    Remedy: give the store a `serializer` and `deserializer` that know the type, make the type
    picklable, or install `cloudpickle` for functions and classes defined in scripts.
    """


class CorruptObjectError(SerializationError):
    """Stored bytes are not what their format promises: damaged, or cut short.

    Remedy: store the object again, and look for whatever else writes to the channel.
    """


class SealedObjectError(StoreError):
    """The object is sealed, and its key or reference came without the secret that opens it.

    Remedy: get the proxy itself from its owner, or a text made by `to_text(secret=True)`.
    """


class TamperedObjectError(CorruptObjectError):
    """A sealed object was altered, cut or exchanged for another, or the key is not its own.

    Remedy: do not use the object; ask its producer for it again, and find out who else can write
    to the channel.
    """


class UntrustedError(ProxyStoreError):
    """This process does not trust what it was sent: pickled data, a class, a producer.

    Remedy: the text names what was refused, and how to allow it if it comes from where it should.
    """


class SitePolicyError(StoreError):
    """The store's policy forbids to resolve its objects at this site.

    Remedy: run the task at one of the sites that the text names, or ask the store's owner to add
    this one.
    """


class IncompatibleVersionError(SerializationError):
    """Bytes were written by a newer version, or with a codec that is not known here.

    Remedy: upgrade the reader to at least the version of the writer.
    """


class ChannelError(ProxyStoreError, OSError):
    """The channel could not be reached, or broke down.

    Remedy: check that the directory, server or endpoint in the text is up and reachable from this
    host. The same call may succeed later.
    """


class ChannelFullError(ChannelError):
    """The channel has no room for the object.

    Remedy: evict objects, enlarge the channel, or use one with more room.
    """


class ChannelPermissionError(ChannelError, PermissionError):
    """The operating system or the channel refused access.

    Remedy: check the owner and mode of the directory, or the credentials of the connector.
    """


class ChannelTimeoutError(ChannelError, TimeoutError):
    """A deadline passed before the channel answered, or before an awaited object was there.

    Remedy: allow more time, or find out why its producer is late. The same call may succeed later.
    """


class EndpointConnectorError(ChannelError):
    """An endpoint could not be found, does not answer, or failed at a request.

    Remedy: see whether it runs (`proxystore endpoint list`) and what keeps it from its peers
    (`proxystore doctor`). The same call may succeed later.
    """


class EndpointConfigError(EndpointConnectorError, StoreConfigError):
    """None of a connector's endpoints is known here, or what it was given names no endpoint.

    Remedy: configure one (`proxystore endpoint configure NAME`), or use one of those that the text
    lists.
    """


class EndpointFullError(EndpointConnectorError, ChannelFullError):
    """The endpoint has no room for the object.

    Remedy: evict objects, or give it more memory or disk in its `config.toml`.
    """


class EndpointPermissionError(EndpointConnectorError, ChannelPermissionError):
    """The endpoint refused the client, or the peer refused the endpoint.

    Remedy: a client needs the token of the endpoint's directory; a peer lets in whom its
    `config.toml` names, or who knows the group secret.
    """


class EndpointTimeoutError(EndpointConnectorError, ChannelTimeoutError):
    """An endpoint or its peer did not answer in time.

    Remedy: allow more time (`timeout=`), or see why it is late: `proxystore endpoint status`.
    """
