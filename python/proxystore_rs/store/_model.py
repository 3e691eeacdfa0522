"""Base of configurations: named fields, checked whenever they are set."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self, dataclass_transform

from proxystore_rs.exceptions import StoreConfigError

Check = Callable[[Any], Any]
"""Returns the value to keep, or raises Unfit, which says what the field may hold."""


_SECRET = ("username", "password")
"""What is never shown."""


def without_secrets(value: Any) -> Any:
    """Return a value with stars for what is secret, however deep it lies: fit for texts."""
    if isinstance(value, Mapping):
        return {
            name: "***" if name in _SECRET else without_secrets(item)
            for name, item in value.items()
        }
    if type(value) in (list, tuple):
        return type(value)(map(without_secrets, value))
    return value


class Unfit(Exception):
    """A value does not fit its field; the text says what would."""


class _Signature:
    # Computed when it is asked for, since that takes a module that few programs need.
    def __get__(self, instance: object, owner: type[Model]) -> Any:
        from inspect import Parameter, Signature

        parameters = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=getattr(owner, name, Parameter.empty))
            for name in owner._checks
        ]
        return Signature(parameters)


@dataclass_transform(kw_only_default=True)
class Model:
    """A class whose annotated fields are given by keyword, checked, compared and shown.

    A subclass lists a check for each of its fields, in order; a field without a class attribute of
    its name has no default and must be given.
    """

    _checks: ClassVar[dict[str, Check]] = {}
    __signature__ = _Signature()

    def __init__(self, **fields: Any) -> None:
        unknown = [name for name in fields if name not in self._checks]
        if unknown:
            got = without_secrets(fields)[unknown[0]]
            raise StoreConfigError(
                f"{type(self).__name__} has no field {unknown[0]!r} (got {got!r}); "
                f"its fields are {', '.join(self._checks)}"
            )
        for name in self._checks:
            if name in fields:
                setattr(self, name, fields[name])
            elif hasattr(type(self), name):
                setattr(self, name, getattr(type(self), name))
            else:
                raise StoreConfigError(
                    f"{type(self).__name__} needs the field {name!r}, which was not given"
                )

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._checks:
            raise StoreConfigError(
                f'"{type(self).__name__}" object has no field {name!r}; '
                f"its fields are {', '.join(self._checks)}"
            )
        self.__dict__[name] = self._checked(name, value)

    @classmethod
    def _checked(cls, name: str, value: Any) -> Any:
        """Return the value to keep for a field, or raise a `StoreConfigError`."""
        try:
            return cls._checks[name](value)
        except StoreConfigError as error:
            raise StoreConfigError(f"{cls.__name__}.{name}: {error}") from None
        except Unfit as error:
            raise StoreConfigError(
                f"{cls.__name__}.{name} must be {error}, not {without_secrets(value)!r} "
                f"({type(value).__name__})"
            ) from None

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"the fields of {type(self).__name__} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Model) or type(other) is not type(self):
            return NotImplemented
        return self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self.__dict__.items())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self)})"

    def model_dump(self, *, exclude_none: bool = False) -> dict[str, Any]:
        """Return the fields, those of nested configurations too, as a new dictionary.

        Args:
            exclude_none: Leave out the fields that are None.
        """
        return {
            name: value.model_dump(exclude_none=exclude_none)
            if isinstance(value, Model)
            else _plain(value)
            for name, value in self
            if value is not None or not exclude_none
        }

    @classmethod
    def model_validate(cls, obj: Any, *, strict: bool | None = None) -> Self:
        """Return a configuration made of a dictionary; one that is a configuration is returned.

        Args:
            obj: The dictionary.
            strict: For callers that pass it to pydantic's models; checks are always strict.

        Raises:
            StoreConfigError: When a field is missing, unknown, or of another type.
        """
        if isinstance(obj, cls):
            return obj
        if not isinstance(obj, Mapping):
            raise StoreConfigError(
                f"a {cls.__name__} is made of a dictionary of its fields, not {without_secrets(obj)!r}"
            )
        return cls(**obj)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy.

        Args:
            update: Fields that differ in the copy.
            deep: Copy what the fields hold too.
        """
        fields = copy.deepcopy(self.__dict__) if deep else self.__dict__
        return type(self)(**{**fields, **(update or {})})

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        # Asked by pydantic alone: lets a configuration be a field of a pydantic model.
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.model_validate,
            serialization=core_schema.plain_serializer_function_ser_schema(cls.model_dump),
        )


def _plain(value: Any) -> Any:
    if type(value) is dict:
        return {key: _plain(item) for key, item in value.items()}
    if type(value) is list:
        return [_plain(item) for item in value]
    return value


def text(value: Any) -> str:
    """Accept a string."""
    if not isinstance(value, str):
        raise Unfit("a string")
    return value


def flag(value: Any) -> bool:
    """Accept a truth value."""
    if not isinstance(value, bool):
        raise Unfit("True or False")
    return value


def size(value: Any) -> int:
    """Accept an integer that is not negative, NumPy's too."""
    message = "an integer, 0 or more"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise Unfit(message)
    number: int = value.__index__()
    if number < 0:
        raise Unfit(message)
    return number


def one_of(*choices: Any) -> Check:
    """Return a check that accepts these values alone."""

    def check(value: Any) -> Any:
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return choice
        raise Unfit(f"one of {', '.join(map(repr, choices))}")

    return check


def function(value: Any) -> Callable[..., Any] | None:
    """Accept a function, or None for none."""
    if value is not None and not callable(value):
        raise Unfit("a function, or None for the default")
    return value  # type: ignore[no-any-return]


def options(value: Any) -> dict[str, Any]:
    """Accept a dictionary with names as keys, which is copied."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise Unfit("a dictionary with strings as keys")
    return dict(value)


def names(value: Any) -> list[str] | None:
    """Accept several strings, which are copied, or None."""
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise Unfit("a list of strings, or None")
    found = list(value)
    if not all(isinstance(name, str) for name in found):
        raise Unfit("a list of strings, or None")
    return [str.__str__(name) for name in found]
