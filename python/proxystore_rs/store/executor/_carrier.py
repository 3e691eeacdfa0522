"""What hides a proxy from an engine on its way.

Engines look at what they carry: Dask descends into what says it is a list and computes a token of
it, Ray ships what says it is `bytes` raw, Parsl looks for files, and cloudpickle asks `isinstance`.
A carrier answers for itself alone. Its pickle holds the proxy as bytes: the reference of a proxy
that comes from a store, else what plain `pickle` made of it.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Callable
from typing import Any

from proxystore_rs._core import _restore
from proxystore_rs.proxy import Proxy

__all__ = [
    "Carrier",
    "Result",
    "dumps",
    "is_proxy",
    "loads",
    "receive",
    "receive_chunk",
    "replace_items",
]


class Carrier:
    """Holds the proxy of an argument.

    `stored` says that the executor made the proxy: the function was given a value, and what it
    returns of it is a value too.
    """

    __slots__ = ("_data", "_proxy", "stored")

    def __init__(self, proxy: Any, stored: bool = False, data: bytes = b"") -> None:
        self._proxy: Any = proxy
        self._data = data
        self.stored = stored

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of a proxy>"

    def __reduce__(self) -> Any:
        return type(self), (None, self.stored, self.data())

    def __dask_tokenize__(self) -> Any:
        return type(self).__name__, self.data()

    @property
    def lends_value(self) -> bool:
        """Whether this is an argument that was a value when the executor got it."""
        return type(self) is Carrier and self.stored

    def data(self) -> bytes:
        """Return the proxy as bytes; made once, for pickling a reference gives it away."""
        if not self._data:
            self._data = dumps(self._proxy)
        return self._data

    def open(self) -> Any:
        """Return the proxy; one that arrived is not kept, for an owner must be able to die."""
        if self._proxy is None:
            return loads(self._data)
        return self._proxy


class Result(Carrier):
    """Holds the proxy of a result; `stored` says that whoever receives it owns it."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        rebuild = _gathered if _in_dask_worker() else Result
        return rebuild, (None, self.stored, self.data())


def _gathered(_: None, stored: bool, data: bytes) -> Any:
    """Return the carrier in a worker, and the proxy in a client: there `gather` ends here."""
    carrier = Result(None, stored, data)
    if _in_dask_worker():
        return carrier
    proxy = carrier.open()
    object.__setattr__(proxy, _MARK, stored)
    return proxy


_MARK = "_executor_owns"


def receive(value: Any) -> Any:
    """Return the result of a task: the proxy of a carrier, owned if it is meant to be."""
    if type(value) is Result:
        proxy, owned = value.open(), value.stored
    elif type(value) is Proxy:
        proxy, owned = value, _mark_of(value)
    else:
        return value
    if not owned:
        return proxy
    from proxystore_rs.store.ref import into_owned

    return into_owned(proxy)


def _mark_of(proxy: Any) -> bool:
    try:
        return bool(object.__getattribute__(proxy, _MARK))
    except AttributeError:
        return False


def receive_chunk(values: list[Any]) -> list[Any]:
    """Return the results of a task that made many calls."""
    return [receive(value) for value in values]


def _in_dask_worker() -> bool:
    workers: Any = sys.modules.get("distributed.worker")
    return workers is not None and len(workers.Worker._instances) > 0


def dumps(proxy: Any) -> bytes:
    """Return a proxy as bytes."""
    if type(proxy) is Proxy:
        rebuild, arguments = Proxy.__reduce__(proxy)
        if rebuild is _restore:
            reference: bytes = arguments[0]
            return reference
    try:
        return pickle.dumps(proxy, protocol=5)
    except Exception:  # a factory that is a lambda, say
        if "cloudpickle" not in sys.modules:
            raise
        data: bytes = importlib.import_module("cloudpickle").dumps(proxy, protocol=5)
        return data


def loads(data: bytes) -> Any:
    """Return the proxy of these bytes."""
    return pickle.loads(data) if data.startswith(_PICKLE) else _restore(data)


_PICKLE = b"\x80"  # how pickles begin; references begin with a letter


def is_proxy(item: Any) -> bool:
    """Return whether the object is a proxy. `isinstance` would make a proxy of nothing resolve."""
    return issubclass(type(item), Proxy)


_CONTAINERS = (list, tuple, set, frozenset)
_PLAIN = frozenset((int, float, complex, bool, str, bytes, type(None)))


def replace_items(container: Any, replace: Callable[[Any], Any]) -> Any:
    """Return the container with its items replaced, at any depth.

    Lists, tuples, sets, and the values of dictionaries are looked at; a container where nothing
    changes is returned as it is, and anything else goes through `replace`.
    """
    kind = type(container)
    if kind is dict:
        if _PLAIN.issuperset(map(type, container.values())):
            return container
        found = {key: replace_items(value, replace) for key, value in container.items()}
        changed = any(found[key] is not value for key, value in container.items())
        return found if changed else container
    if kind in _CONTAINERS:
        if _PLAIN.issuperset(map(type, container)):
            return container
        old = list(container)
        items = [replace_items(item, replace) for item in old]
        changed = any(new is not item for new, item in zip(items, old, strict=True))
        return kind(items) if changed else container
    return replace(container)
