"""Configurations of stores and connectors.

They say everything that another process needs to open the same store, can be written to a file, and
check what they are given.

    >>> config = StoreConfig(name='results', connector=ConnectorConfig(kind='local'))
    >>> config.cache_size
    16
    >>> StoreConfig(name='results', connector=ConnectorConfig(kind='local'), cache_size=-1)
    Traceback (most recent call last):
    ...
    proxystore_rs.exceptions.StoreConfigError: StoreConfig.cache_size must be an integer, 0 or more, \
not -1 (int)
"""

from __future__ import annotations

import importlib
import os
import pickle
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from proxystore_rs import trust
from proxystore_rs._core import _takes_data_only
from proxystore_rs.connectors.protocols import Connector
from proxystore_rs.exceptions import SerializationError, StoreConfigError, UntrustedError
from proxystore_rs.store import _kinds, _model
from proxystore_rs.store.types import DeserializerT, SerializerT
from proxystore_rs.utils.config import dumps, load
from proxystore_rs.utils.imports import get_object_path

if TYPE_CHECKING:
    import pathlib

__all__ = ["ConnectorConfig", "StoreConfig"]


class ConnectorConfig(_model.Model):
    """Configuration of a connector.

    >>> ConnectorConfig(kind='local').get_connector()
    LocalConnector()

    Args:
        kind: Path of the class (`'package.module.Class'`), or the short name of one of this
            package's own, such as `'file'`, `'shm'` or `'FileConnector'`, in any case.
        options: What the class's `from_config` takes.

    Raises:
        StoreConfigError: When a field is missing, unknown, or of another type.
    """

    kind: str
    options: dict[str, Any] = {}  # noqa: RUF012 (each instance copies it)

    _checks: ClassVar[dict[str, _model.Check]] = {"kind": _model.text, "options": _model.options}

    def __repr__(self) -> str:
        return (
            f"ConnectorConfig(kind={self.kind!r}, options={_model.without_secrets(self.options)!r})"
        )

    def get_connector_type(self) -> type[Connector[Any]]:
        """Return the class of the connector.

        Raises:
            StoreConfigError: When there is none of this path or name.
        """
        return _kinds.connector_type(self.kind)

    def get_connector(self) -> Connector[Any]:
        """Return a connector on the channel described here.

        Raises:
            StoreConfigError: When there is no class of this path or name.
            TypeError: When the class does not know one of the options.
        """
        return self.get_connector_type().from_config(dict(self.options))

    def _native(self) -> tuple[str, dict[str, Any]]:
        """Return URL and options: what the native code knows the channel by."""
        connector: Any = self.get_connector_type()
        path = get_object_path(connector)
        scheme = getattr(connector, "_scheme", None)
        if scheme is None or _kinds.NATIVE_SCHEMES.get(scheme) != path:
            return f"python:{path}", dict(self.options)
        url, options = connector._to_url(dict(self.options))
        return url, options

    @classmethod
    def _from_native(cls, url: str, options: dict[str, Any]) -> Self:
        """Return the configuration that `_native` said this of."""
        scheme, _, place = url.partition(":")
        if scheme == "python":
            return cls(kind=place, options=options)
        connector = cls(kind=_kinds.native_path(scheme))
        native: Any = connector.get_connector_type()
        connector.options = native._from_url(url, options)
        return connector


class StoreConfig(_model.Model):
    """Configuration of a store.

    Args:
        name: Name of the store.
        connector: Configuration of its connector, or a dictionary of that one's fields.
        serializer: Turns objects into bytes; None for the default.
        deserializer: Turns bytes into objects; None for the default.
        cache_size: How many objects to keep in memory.
        metrics: Whether to collect metrics.
        populate_target: Whether proxies hold the object they were made of from the start.
        auto_register: Whether the store registers itself.
        cache_bytes: How many bytes of objects to keep in memory.
        read_only: Whether arrays are handed out read-only.
        seal: Whether objects are encrypted (True), and their references signed too ("signed").
        compression: How objects are compressed: "zstd", "lz4" or None.
        checksums: Whether stored objects have checksums; None leaves it to the connector.
        inline_bytes: How many bytes an object may take to travel inside its reference.
        codec: `"msgpack"` or `"data"` (see `Store`); None for whatever suits the object.
        sites: Patterns of the hosts and sites where objects may be resolved; None for all.

    Raises:
        StoreConfigError: When a field is missing, unknown, or of another type.
    """

    name: str
    connector: ConnectorConfig
    serializer: SerializerT | None = None
    deserializer: DeserializerT | None = None
    cache_size: int = 16
    metrics: bool = False
    populate_target: bool = True
    auto_register: bool = False
    cache_bytes: int = 1 << 30
    read_only: bool = False
    inline_bytes: int = 0
    seal: Literal["signed"] | bool = False
    compression: Literal["zstd", "lz4"] | None = None
    checksums: bool | None = None
    codec: Literal["msgpack", "data"] | None = None
    sites: list[str] | None = None

    _checks: ClassVar[dict[str, _model.Check]] = {
        "name": _model.text,
        "connector": ConnectorConfig.model_validate,
        "serializer": _model.function,
        "deserializer": _model.function,
        "cache_size": _model.size,
        "metrics": _model.flag,
        "populate_target": _model.flag,
        "auto_register": _model.flag,
        "cache_bytes": _model.size,
        "read_only": _model.flag,
        "inline_bytes": _model.size,
        "seal": _model.one_of(True, False, "signed"),
        "compression": _model.one_of(None, "zstd", "lz4"),
        "checksums": _model.one_of(None, True, False),
        "codec": _model.one_of(None, "msgpack", "data"),
        "sites": _model.names,
    }

    @classmethod
    def from_toml(cls, filepath: str | pathlib.Path) -> Self:
        """Read a configuration from a file.

        Raises:
            OSError: When the file cannot be read.
            ValueError: When it is not TOML, or a field is missing, unknown or of another type.
        """
        with open(filepath, "rb") as file:
            return load(cls, file)

    def write_toml(self, filepath: str | pathlib.Path) -> None:
        """Write the configuration to a file; directories on its path are created.

        Raises:
            TypeError: When it holds what cannot be written, such as a serializer. Nothing is
                written then.
        """
        if self.serializer is not None or self.deserializer is not None:
            raise TypeError(
                f"the configuration of store {self.name!r} has a serializer or deserializer, and "
                "functions cannot be written to TOML; leave them out, and set them after reading"
            )
        text = dumps(self)
        os.makedirs(os.path.dirname(os.path.abspath(filepath)), exist_ok=True)
        with open(filepath, "wb") as file:
            file.write(text.encode())

    # The bridge: what the native code knows a store by.

    _SETTINGS: ClassVar[dict[str, str]] = {
        "cache_size": "cache_entries",
        "cache_bytes": "cache_bytes",
        "metrics": "metrics",
        "populate_target": "populate_target",
        "auto_register": "auto_register",
        "read_only": "read_only",
        "inline_bytes": "inline_bytes",
        "seal": "seal",
        "compression": "compression",
        "checksums": "checksums",
        "codec": "codec",
        "sites": "sites",
    }

    def _native(self) -> tuple[str, str, dict[str, Any], dict[str, Any], bytes | None]:
        """Return name, URL, options of the connector, settings that differ, and pickled rest."""
        url, options = self.connector._native()
        settings = {
            native: getattr(self, field)
            for field, native in self._SETTINGS.items()
            if getattr(self, field) != getattr(type(self), field)
        }
        extension = pickle_functions(self.name, self.serializer, self.deserializer, self.codec)
        return self.name, url, options, settings, extension

    @classmethod
    def _from_native(
        cls,
        name: str,
        url: str,
        options: dict[str, Any],
        settings: dict[str, Any],
        extension: bytes | None,
    ) -> Self:
        """Return the configuration that `_native` said this of."""
        try:
            connector = ConnectorConfig._from_native(url, options)
        except StoreConfigError as error:
            raise StoreConfigError(f"store {name!r}: {error}") from error
        fields = {
            field: settings[native] for field, native in cls._SETTINGS.items() if native in settings
        }
        if extension and _takes_data_only(fields.get("codec")):
            raise UntrustedError(
                f"the configuration of store {name!r} comes with a pickled serializer or "
                "deserializer, which could run code, and codec='data' is set. Give the functions "
                "to the store that this process registers under its name",
            )
        functions = trust._loads(extension) if extension else {}
        return cls(name=name, connector=connector, **fields, **functions)


def pickle_functions(
    store: str,
    serializer: SerializerT | None,
    deserializer: DeserializerT | None,
    codec: str | None,
) -> bytes | None:
    """Return the pickle of a store's functions, made by cloudpickle where pickle cannot.

    There is none where there are no functions, or where pickles are refused: functions then serve
    the process that has them, and others bring their own.

    Raises:
        SerializationError: When neither can.
    """
    functions: dict[str, Any] = {"serializer": serializer, "deserializer": deserializer}
    functions = {name: value for name, value in functions.items() if value is not None}
    if not functions or _takes_data_only(codec):
        return None
    try:
        return pickle.dumps(functions, protocol=5)
    except Exception as error:
        try:
            cloudpickle: Any = importlib.import_module("cloudpickle")
        except ImportError:
            raise SerializationError(
                f"the serializer or deserializer of store {store!r} cannot be pickled ({error}); "
                "define it at the top level of a module, or install cloudpickle"
            ) from error
        try:
            data: bytes = cloudpickle.dumps(functions, protocol=5)
        except Exception as second:
            raise SerializationError(
                f"the serializer or deserializer of store {store!r} cannot be pickled, not even by "
                f"cloudpickle ({second}); define it at the top level of a module"
            ) from second
        return data
