"""Configurations as TOML.

These functions take this package's own configuration classes, such as
[`StoreConfig`][proxystore_rs.store.config.StoreConfig], and any pydantic model.

    >>> from proxystore_rs.store.config import ConnectorConfig
    >>> text = dumps(ConnectorConfig(kind='local'))
    >>> loads(ConnectorConfig, text)
    ConnectorConfig(kind='local', options={})
"""

from __future__ import annotations

from typing import Any, BinaryIO, Protocol, Self, TypeVar

from proxystore_rs.utils._toml import to_toml, without_none

__all__ = ["BaseModelT", "Model", "dump", "dumps", "load", "loads"]


class Model(Protocol):
    """What a configuration class offers; pydantic's models do."""

    def model_dump(self, *, exclude_none: bool = False) -> dict[str, Any]:
        """Return the fields as plain values."""
        ...

    @classmethod
    def model_validate(cls, obj: Any, *, strict: bool | None = None) -> Self:
        """Return a configuration made of plain values, or raise a ValueError."""
        ...


BaseModelT = TypeVar("BaseModelT", bound=Model)
"""Type of a configuration."""


def dump(model: Model, fp: BinaryIO, *, exclude_none: bool = True) -> None:
    """Write a configuration to a binary file.

    Args:
        model: The configuration.
        fp: The file.
        exclude_none: Leave out what is None, which TOML cannot say.
    """
    fp.write(dumps(model, exclude_none=exclude_none).encode())


def dumps(model: Model, *, exclude_none: bool = True) -> str:
    """Return a configuration as text.

    Args:
        model: The configuration.
        exclude_none: Leave out what is None, which TOML cannot say.

    Raises:
        TypeError: When a value has no TOML form; the text says where it is.
    """
    data: Any = model.model_dump(exclude_none=exclude_none)
    return to_toml(without_none(data) if exclude_none else data)


def load(model: type[BaseModelT], fp: BinaryIO) -> BaseModelT:
    """Read a configuration from a binary file.

    Raises:
        ValueError: When it is not TOML, or a field is missing, unknown or of another type.
    """
    return loads(model, fp.read().decode())


def loads(model: type[BaseModelT], data: str) -> BaseModelT:
    """Read a configuration from text.

    Raises:
        ValueError: When it is not TOML, or a field is missing, unknown or of another type.
    """
    import tomllib  # Few programs read a file, and all import this module.

    return model.model_validate(tomllib.loads(data), strict=True)
