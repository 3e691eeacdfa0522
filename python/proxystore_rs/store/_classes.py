"""From plain values to instances of classes: dataclasses and named tuples that came as maps.

Instances are restored as `pickle` and `copy` do it: field by field, without calling the class. So a
writer who names a class makes no code of it run here, and nothing is imported to find it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import sys
import types
import typing
from functools import lru_cache
from typing import Any, NamedTuple, cast

from proxystore_rs.exceptions import SerializationError, UntrustedError
from proxystore_rs.utils._loaded import loaded

_ROOT = "obj"
_LISTS: tuple[Any, ...] = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterable,
)
_MAPS: tuple[Any, ...] = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def named(name: str, value: Any, data_only: bool) -> Any:
    """Return the instance of the class that a writer named, or the value where it is not loaded.

    >>> named('nowhere:Sample', {'a': 1}, False)
    {'a': 1}

    Raises:
        SerializationError: The value does not fit the class that is loaded here.
        UntrustedError: Only data is taken, and freeing such an instance would run code.
    """
    cls = _loaded(name)
    if cls is None:
        return value
    if data_only and (active := _with_del(cls)):
        raise UntrustedError(
            f"the object is stored as an instance of {name}, and {active.__qualname__} has a "
            "__del__: what the writer chose to be in it would be cleaned up here, and codec='data' "
            "is set. Ask for the class by get(key, type=...) if you trust whoever can write to the "
            "channel",
        )
    return _instance(cls, value, _ROOT)


def made(wanted: Any, value: Any) -> Any:
    """Return the value as what the caller wants: a class, or an annotation such as `list[Sample]`.

    >>> made(tuple[int, ...], [1, 2])
    (1, 2)
    >>> made(str, 1)
    Traceback (most recent call last):
    ...
    proxystore_rs.exceptions.SerializationError: the object is int, not str; ask for the type that \
was stored
    """
    instance = _made(wanted, value, _ROOT)
    if isinstance(wanted, type) and not isinstance(instance, wanted):
        raise SerializationError(
            f"the object is {type(instance).__qualname__}, not {wanted.__qualname__}; ask for the "
            "type that was stored",
        )
    return instance


def _loaded(name: str) -> type[Any] | None:
    """Return the dataclass or named tuple of this name, if it is there already."""
    module, _, path = name.partition(":")
    found = loaded(module, path)
    return found if isinstance(found, type) and _has_fields(found) else None


def _with_del(cls: type[Any]) -> type[Any] | None:
    """Return a class with `__del__` among this one and those of its fields, if there is one."""
    seen: set[Any] = set()
    rest: list[Any] = [cls]
    while rest:
        wanted = rest.pop()
        rest += typing.get_args(wanted)
        origin = typing.get_origin(wanted) or wanted
        if isinstance(origin, type) and _has_fields(origin) and origin not in seen:
            seen.add(origin)
            if hasattr(origin, "__del__"):
                return origin
            rest += [field.wanted for field in _fields(cast("Any", origin)).values()]
    return None


def _has_fields(cls: type[Any]) -> bool:
    return dataclasses.is_dataclass(cls) or _is_named_tuple(cls)


def _is_named_tuple(cls: type[Any]) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_field_defaults")


def _made(wanted: Any, value: Any, at: str) -> Any:
    origin = typing.get_origin(wanted) or wanted
    arguments = typing.get_args(wanted)
    if origin is typing.Annotated:
        return _made(arguments[0], value, at)
    if origin in (typing.Union, types.UnionType):
        return _one_of(arguments, value, at)
    if isinstance(origin, type) and _has_fields(origin):
        return _instance(origin, value, at)
    if isinstance(value, list):
        return _listed(origin, arguments, value, at)
    if isinstance(value, dict) and origin in _MAPS and arguments:
        return {key: _made(arguments[1], item, f"{at}[{key!r}]") for key, item in value.items()}
    if isinstance(origin, enum.EnumType) and not isinstance(value, origin):
        try:
            return origin(value)
        except ValueError as error:
            raise SerializationError(f"at {at}: {error}") from error
    return value


def _listed(origin: Any, arguments: tuple[Any, ...], value: list[Any], at: str) -> Any:
    if origin in _LISTS and arguments:
        return [_made(arguments[0], item, f"{at}[{i}]") for i, item in enumerate(value)]
    if origin is not tuple:
        return value
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = arguments[:1] * len(value)
    if not arguments:
        return tuple(value)
    if len(arguments) != len(value):
        raise SerializationError(f"at {at}: {len(value)} items, not {len(arguments)}")
    pairs = enumerate(zip(arguments, value, strict=True))
    return tuple(_made(wanted, item, f"{at}[{i}]") for i, (wanted, item) in pairs)


def _one_of(alternatives: tuple[Any, ...], value: Any, at: str) -> Any:
    """Return the value as the first alternative that it fits."""
    problem: SerializationError | None = None
    for wanted in alternatives:
        origin = typing.get_origin(wanted) or wanted
        is_class = isinstance(origin, type) and _has_fields(origin)
        if isinstance(value, dict):
            fits = is_class or origin in _MAPS
        else:
            fits = isinstance(value, list) and origin in (tuple, *_LISTS)
        if fits:
            try:
                return _made(wanted, value, at)
            except SerializationError as error:
                problem = error
    if problem is not None:
        raise problem
    return value


class _Field(NamedTuple):
    wanted: Any
    """Annotation."""
    default: Any
    """Function that makes the default, if there is one."""
    has_slot: bool


def _instance(cls: type[Any], value: Any, at: str) -> Any:
    if not isinstance(value, dict):
        raise SerializationError(
            f"at {at}: {cls.__qualname__} is made of a map of its fields, not of "
            f"{type(value).__name__}",
        )
    fields = _fields(cast("Any", cls))
    unknown = [name for name in value if name not in fields]
    missing = [name for name in fields if name not in value and fields[name].default is None]
    if unknown or missing:
        what = f"has no field {unknown[0]!r}" if unknown else f"needs the field {missing[0]!r}"
        raise SerializationError(
            f"at {at}: {cls.__module__}.{cls.__qualname__} {what}; writer and reader have "
            "different versions of the class: bring them together, or read the plain map by "
            "get(key, type=dict)",
        )
    values = {
        name: _made(field.wanted, value[name], f"{at}.{name}") if name in value else field.default()
        for name, field in fields.items()
    }
    if _is_named_tuple(cls):
        return tuple.__new__(cls, values.values())
    try:
        instance = object.__new__(cls)
    except TypeError as error:  # derives from a class with a layout of its own, or is abstract
        raise SerializationError(
            f"at {at}: {cls.__qualname__} cannot be restored field by field ({error}); read the "
            "plain map by get(key, type=dict)",
        ) from error
    for name, field in fields.items():
        if field.has_slot:
            object.__setattr__(instance, name, values[name])
        else:
            instance.__dict__[name] = values[name]
    return instance


@lru_cache(maxsize=256)
def _fields(cls: Any) -> dict[str, _Field]:
    if _is_named_tuple(cls):
        named = cast("Any", cls)
        hints = _hints(cls, {})
        defaults = named._field_defaults
        return {
            name: _Field(hints.get(name, Any), _constant(defaults, name), False)
            for name in named._fields
        }
    fields = dataclasses.fields(cls)
    hints = _hints(cls, {field.name: field.type for field in fields})
    return {
        field.name: _Field(hints[field.name], _default(field), _has_slot(cls, field.name))
        for field in fields
    }


def _constant(defaults: dict[str, Any], name: str) -> Any:
    return (lambda: defaults[name]) if name in defaults else None


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory
    return None if field.default is dataclasses.MISSING else lambda: field.default


def _has_slot(cls: type[Any], name: str) -> bool:
    return isinstance(inspect.getattr_static(cls, name, None), types.MemberDescriptorType)


def _hints(cls: type[Any], written: dict[str, Any]) -> dict[str, Any]:
    """Return the annotations; one that names what only type checkers import stands for any."""
    try:
        return written | typing.get_type_hints(cls, include_extras=True)
    except Exception:  # whatever evaluating the annotations raises
        scope = vars(sys.modules[cls.__module__])
    hints: dict[str, Any] = {}
    for name, hint in written.items():
        one = types.SimpleNamespace(__annotations__={name: hint})
        try:
            hints |= typing.get_type_hints(one, scope, include_extras=True)
        except Exception:
            hints[name] = Any
    return hints
