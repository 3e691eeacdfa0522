"""The store: objects go in, keys and proxies come out."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from proxystore_rs._core import NativeConnector, StoreBase
from proxystore_rs.exceptions import SerializationError, StoreConfigError
from proxystore_rs.proxy import ProxyLocker
from proxystore_rs.store import _model
from proxystore_rs.store.config import ConnectorConfig, StoreConfig, pickle_functions
from proxystore_rs.utils.imports import get_object_path

if TYPE_CHECKING:
    from typing import Self

    import numpy

    from proxystore_rs.store.cache import StoreCache
    from proxystore_rs.store.future import Future
    from proxystore_rs.store.metrics import StoreMetrics
    from proxystore_rs.store.ref import OwnedProxy
    from proxystore_rs.store.view import View

ConnectorT = TypeVar("ConnectorT")
T = TypeVar("T")
NonProxiableT = TypeVar("NonProxiableT", bound=bool | None)
"""What has no proxies, since programs compare it by identity."""

Codec = Literal["msgpack", "data"]
"""Codecs to choose; None, for what suits the object best, is the default."""

Serializer = Callable[[Any], "bytes | bytearray | memoryview"]
Deserializer = Callable[[Any], Any]

_DEFAULT_CACHE_SIZE = 16
_DEFAULT_CACHE_BYTES = 1 << 30


class Store(StoreBase, Generic[ConnectorT]):
    """A named place for objects: a connector, an encoding, and a cache.

    Args:
        name: identifies the store in every process that uses it, together with its channel.
        connector: moves bytes to and from the channel.
        serializer: turns an object into bytes; by default objects are stored without copying
            their large buffers.
        deserializer: the inverse of `serializer`.
        cache_size: how many decoded objects this process keeps; 0 keeps none.
        metrics: count and time operations.
        populate_target: proxies already hold the object they were made of.
        register: register the store now, and unregister it when it is closed.
        cache_bytes: how many bytes of decoded objects this process keeps.
        read_only: objects come out in memory shared with others, which cannot be written to and
            is the fastest; by default their memory is private.
        inline_bytes: proxied objects that take at most this many bytes as stored travel inside
            their references: no channel, nothing to evict; 0 turns it off.
        seal: encrypt objects, each with a secret of its own that only its key and its proxies hold:
            whoever operates the channel can neither read nor forge them. With `"signed"`, proxies
            are signed too (see `proxystore_rs.trust`), so that not even who holds one can forge.
        compression: `"zstd"` (small) or `"lz4"` (fast) for slow channels; what would not become
            smaller is stored as it is.
        checksums: notice damaged objects when they are read; by default where the channel copies
            bytes anyway, such as Redis.
        codec: `"msgpack"` stores objects as MessagePack, `"data"` stores what every language reads
            and refuses to read pickles; by default pickle takes what nothing else does.
        sites: objects may be resolved only on hosts or sites (`PROXYSTORE_SITE`) whose name matches
            one of these patterns, such as `"*.alcf.anl.gov"`; without, everywhere.

    >>> from proxystore_rs.connectors.memory import MemoryConnector
    >>> with Store('docs', MemoryConnector('docs'), register=True) as store:
    ...     key = store.put({'a': 1})
    ...     store.get(key)
    {'a': 1}
    """

    def __init__(
        self,
        name: str,
        connector: ConnectorT,
        *,
        serializer: Serializer | None = None,
        deserializer: Deserializer | None = None,
        cache_size: int = _DEFAULT_CACHE_SIZE,
        metrics: bool = False,
        populate_target: bool = True,
        register: bool = False,
        cache_bytes: int = _DEFAULT_CACHE_BYTES,
        read_only: bool = False,
        inline_bytes: int = 0,
        seal: Literal["signed"] | bool = False,
        compression: Literal["zstd", "lz4"] | None = None,
        checksums: bool | None = None,
        codec: Codec | None = None,
        sites: Iterable[str] | None = None,
    ) -> None:
        missing = [name for name in ("put", "get", "config") if not hasattr(connector, name)]
        if missing:
            raise TypeError(
                f"{connector!r} is not a connector: it has no {', '.join(missing)}. Pass one of "
                "proxystore_rs.connectors, or an object with their methods.",
            )
        self._serializer = serializer
        self._deserializer = deserializer
        self._cache_size = cache_size
        self._cache_bytes = cache_bytes
        self._populate_target = populate_target
        self._read_only = read_only
        self._inline_bytes = inline_bytes
        self._seal = seal
        self._compression = compression
        self._checksums = checksums
        self._codec: Codec | None = codec
        self._sites = _names(sites)
        self._auto_register = register
        self._metrics = None
        if metrics:
            from proxystore_rs.store.metrics import StoreMetrics

            self._metrics = StoreMetrics()
            self._metrics._store = weakref.ref(self)
        settings: dict[str, Any] = {}
        for setting, value, default in (
            ("metrics", metrics, False),
            ("populate_target", populate_target, True),
            ("auto_register", register, False),
            ("read_only", read_only, False),
            ("inline_bytes", inline_bytes, 0),
            ("seal", StoreConfig._checked("seal", seal), False),
            ("compression", StoreConfig._checked("compression", compression), None),
            ("checksums", StoreConfig._checked("checksums", checksums), None),
            ("codec", codec, None),
            ("sites", self._sites, None),
        ):
            if value != default:
                settings[setting] = value
        if codec == "msgpack" and serializer is not None:
            raise ValueError(
                "serializer and codec='msgpack' both say how to encode objects; pass one of them",
            )
        try:
            extension = pickle_functions(name, serializer, deserializer, codec)
        except SerializationError:  # serves this process; elsewhere, proxies ask for a deserializer
            extension = None
        self._setup(
            name,
            connector,
            serializer,
            deserializer,
            cache_size,
            cache_bytes,
            self._metrics,
            populate_target,
            read_only,
            settings,
            extension,
        )
        if register:
            from proxystore_rs.store.registry import register_store

            register_store(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        serializer = "default" if self._serializer is None else "custom"
        deserializer = "default" if self._deserializer is None else "custom"
        return (
            f"Store({self.name!r}, connector={self.connector!r}, serializer={serializer}, "
            f"deserializer={deserializer}, cache_size={self._cache_size}, "
            f"metrics={self._metrics is not None}, populate_target={self._populate_target}, "
            f"auto_register={self._auto_register})"
        )

    def __reduce__(self) -> Any:
        raise TypeError(
            f"Store {self.name!r} cannot be pickled: it holds live connections. Pickle its proxies "
            "or store.config() instead.",
        )

    @property
    def metrics(self) -> StoreMetrics | None:
        """Counts and times of operations, if the store was made with `metrics=True`."""
        return self._metrics

    @property
    def cache(self) -> StoreCache:
        """The decoded objects this process keeps."""
        from proxystore_rs.store.cache import StoreCache

        return StoreCache(self, self._cache_size)

    @property
    def serializer(self) -> Serializer:
        """The function that turns an object into bytes."""
        if self._serializer is not None:
            return self._serializer
        from proxystore_rs.serialize import serialize

        return serialize

    @property
    def deserializer(self) -> Deserializer:
        """The function that turns bytes into an object."""
        if self._deserializer is not None:
            return self._deserializer
        from proxystore_rs.serialize import deserialize

        return deserialize

    def close(self, *args: Any, **kwargs: Any) -> None:
        """Close the connector, which gets the arguments, and unregister the store.

        A store registered by hand stays registered.
        """
        if self._auto_register:
            from proxystore_rs.store.registry import unregister_store

            unregister_store(self)
        self.connector.close(*args, **kwargs)
        self._closed()

    def config(self) -> StoreConfig:
        """Return the configuration from which the store can be opened anywhere."""
        return StoreConfig(
            name=self.name,
            connector=ConnectorConfig(
                kind=get_object_path(type(self.connector)),
                options=self.connector.config(),
            ),
            serializer=self._serializer,
            deserializer=self._deserializer,
            cache_size=self._cache_size,
            metrics=self._metrics is not None,
            populate_target=self._populate_target,
            auto_register=self._auto_register,
            cache_bytes=self._cache_bytes,
            read_only=self._read_only,
            inline_bytes=self._inline_bytes,
            seal=self._seal,
            compression=self._compression,
            checksums=self._checksums,
            codec=self._codec,
            sites=self._sites,
        )

    @classmethod
    def from_config(cls, config: StoreConfig) -> Store[Any]:
        """Open the store of a configuration."""
        connector: Any = config.connector.get_connector()
        return cls(
            config.name,
            connector,
            serializer=config.serializer,
            deserializer=config.deserializer,
            cache_size=config.cache_size,
            metrics=config.metrics,
            populate_target=config.populate_target,
            register=config.auto_register,
            cache_bytes=config.cache_bytes,
            read_only=config.read_only,
            inline_bytes=config.inline_bytes,
            seal=config.seal,
            compression=config.compression,
            checksums=config.checksums,
            codec=config.codec,
            sites=config.sites,
        )

    @overload
    def locked_proxy(self, obj: NonProxiableT, **kwargs: Any) -> NonProxiableT: ...
    @overload
    def locked_proxy(
        self,
        obj: T,
        *,
        evict: bool = False,
        lifetime: Any = None,
        serializer: Serializer | None = None,
        deserializer: Deserializer | None = None,
        populate_target: bool | None = None,
        skip_nonproxiable: bool = True,
        codec: Codec | None = None,
        **kwargs: Any,
    ) -> ProxyLocker[T]: ...
    def locked_proxy(
        self,
        obj: T,
        *,
        evict: bool = False,
        lifetime: Any = None,
        serializer: Serializer | None = None,
        deserializer: Deserializer | None = None,
        populate_target: bool | None = None,
        skip_nonproxiable: bool = True,
        codec: Codec | None = None,
        **kwargs: Any,
    ) -> ProxyLocker[T] | T:
        """Store an object and return a proxy that has to be unlocked before it can be used.

        Takes the keyword arguments of `proxy`; `None` and `bool` are returned as they are.
        """
        if codec is not None:
            kwargs["codec"] = codec
        proxy = self.proxy(
            obj,
            evict=evict,
            lifetime=lifetime,
            serializer=serializer,
            deserializer=deserializer,
            populate_target=populate_target,
            skip_nonproxiable=skip_nonproxiable,
            **kwargs,
        )
        if proxy is obj:
            return obj
        return ProxyLocker(proxy)

    def future(
        self,
        *,
        evict: bool = False,
        serializer: Serializer | None = None,
        deserializer: Deserializer | None = None,
        polling_interval: float = 1,
        polling_backoff_factor: float = 1,
        polling_interval_limit: float | None = None,
        polling_timeout: float | None = None,
        lease: float | None = None,
        codec: Codec | None = None,
    ) -> Future[Any]:
        """Return a future: a key now, its object later, perhaps from another process.

        Args:
            evict: the result is evicted when it is first resolved.
            serializer: turns the result into bytes, instead of the store's own.
            deserializer: the inverse of `serializer`.
            polling_interval: has no effect, like the next two: waiting is driven by events where
                the channel has them.
            polling_backoff_factor: has no effect.
            polling_interval_limit: has no effect.
            polling_timeout: seconds that proxies wait at most; as long as it takes when `None`.
            lease: consumers stop waiting, with a `FutureAbandonedError`, when no process has held
                the future for this many seconds: its producer died.
            codec: how the result is stored, instead of the store's own; with `"data"` a failure is
                its text alone.

        Raises:
            UnsupportedOperationError: the connector cannot make keys in advance; also a
                `NotImplementedError`.
        """
        del polling_interval, polling_backoff_factor, polling_interval_limit
        from proxystore_rs.store.future import Future

        started = time.perf_counter()
        future: Future[Any] = Future._of(
            self,
            evict=evict,
            serializer=serializer,
            deserializer=deserializer,
            timeout=polling_timeout,
            lease=lease,
            codec=codec,
        )
        if self._metrics is not None:
            elapsed = (time.perf_counter() - started) * 1000
            self._metrics.add_time("store.future", future._factory.key, elapsed)
        return future

    @overload
    def owned_proxy(self, obj: NonProxiableT, **kwargs: Any) -> NonProxiableT: ...
    @overload
    def owned_proxy(
        self,
        obj: T,
        *,
        serializer: Serializer | None = None,
        deserializer: Deserializer | None = None,
        populate_target: bool | None = None,
        skip_nonproxiable: bool = True,
        lease: float | None = None,
        codec: Codec | None = None,
        **kwargs: Any,
    ) -> OwnedProxy[T]: ...
    def owned_proxy(
        self,
        obj: T,
        *,
        serializer: Serializer | None = None,
        deserializer: Deserializer | None = None,
        populate_target: bool | None = None,
        skip_nonproxiable: bool = True,
        lease: float | None = None,
        codec: Codec | None = None,
        **kwargs: Any,
    ) -> OwnedProxy[T] | T:
        """Store an object and return its owner, which evicts it when it dies.

        Takes the keyword arguments of `proxy`; `None` and `bool` are returned as they are.

        Args:
            lease: the owner renews the object's time to live, so that the object goes away this
                many seconds after the owner's process was killed.
        """
        from proxystore_rs.store.ref import _own

        if lease is not None and isinstance(self.connector, NativeConnector):
            kwargs["ttl"] = lease  # from the first moment on
        if codec is not None:
            kwargs["codec"] = codec
        proxy: Any = self.proxy(
            obj,
            serializer=serializer,
            deserializer=deserializer,
            populate_target=populate_target,
            skip_nonproxiable=skip_nonproxiable,
            **kwargs,
        )
        if proxy is obj:
            return obj
        return _own(proxy, lease=lease)

    def view(self, source: Any) -> View:
        """Return a view of the object of a proxy or a key: what is used of it is read, and no more.

        Nothing is read yet, and a proxy is not resolved. A proxy of another store is viewed there.

        >>> from proxystore_rs.connectors.memory import MemoryConnector
        >>> with Store('views', MemoryConnector('docs-views'), register=True) as store:
        ...     view = store.view(store.put(b'0123456789'))
        ...     len(view), view[2:5]
        (10, b'234')
        """
        from proxystore_rs.store.view import View

        return View(self, source)

    def empty(
        self,
        shape: int | Sequence[int],
        dtype: Any = float,
        order: Literal["C", "F"] = "C",
    ) -> numpy.ndarray[Any, Any]:
        """Return an array in memory of the channel; putting it later copies nothing.

        It is zeroed or holds old bytes: fill it. Once it was put, or a proxy was made of it, its
        stored form never changes: later writes through it stay in this process. On channels
        without memory of their own it is an ordinary array, and putting it copies.

        >>> import numpy as np
        >>> from proxystore_rs.connectors.shm import SharedMemoryConnector
        >>> with Store('empty', SharedMemoryConnector('docs-empty'), register=True) as store:
        ...     array = store.empty((2, 3), np.float64)
        ...     array[:] = 1
        ...     store.proxy(array, populate_target=False).sum()
        np.float64(6.0)
        """
        import numpy as np

        dtype = np.dtype(dtype)
        if dtype.hasobject:
            raise TypeError(
                f"an array of {dtype} holds references to objects, which cannot lie in a channel; "
                "use a dtype of plain values",
            )
        sides = (shape,) if isinstance(shape, int) else tuple(int(side) for side in shape)
        memory = self._allocate(math.prod(sides) * dtype.itemsize)
        return np.ndarray(sides, dtype, memoryview(memory), order=order)

    def _check_same(self, config: StoreConfig) -> None:
        """Refuse a configuration of this name that means another channel."""
        url = config._native()[1]
        if url != self._channel:
            raise StoreConfigError(
                f"a store named {self.name!r} is open on {self._channel}, not on {url}; give "
                "stores on different channels different names",
            )


def _names(sites: Iterable[str] | None) -> list[str] | None:
    try:
        return _model.names(sites)
    except _model.Unfit as error:
        raise StoreConfigError(f"sites must be {error}, not {sites!r}") from None
