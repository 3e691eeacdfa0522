"""Objects by the path they can be imported from."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["get_object_path", "import_from_path"]


def get_object_path(obj: Any) -> str:
    """Return the path of a class or function: its module and its name there.

    >>> from collections import OrderedDict
    >>> get_object_path(OrderedDict)
    'collections.OrderedDict'
    """
    return f"{obj.__module__}.{obj.__qualname__}"


def import_from_path(path: str) -> Any:
    """Return the object that a path made by `get_object_path` names.

    >>> import_from_path('collections.OrderedDict')
    <class 'collections.OrderedDict'>

    Raises:
        ImportError: When there is no such module, or no such object in it.
    """
    parts = path.split(".")
    if len(parts) < 2 or not all(parts):
        raise ImportError(f"Object path must contain at least one module. Got {path!r}.")
    if "<locals>" in parts:
        raise ImportError(
            f"{path!r} is defined inside a function, where it cannot be imported from; "
            "define it at the top level of a module."
        )
    # Everything but the last name is a module, unless the object is nested in a class.
    for end in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:end])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            # A module on the path itself, and not one that it needs.
            missing = error.name or ""
            if end > 1 and (module == missing or module.startswith(f"{missing}.")):
                continue
            raise
        for name in parts[end:]:
            try:
                found = getattr(found, name)
            except AttributeError:
                raise ImportError(
                    f"Cannot import {path!r}: {module!r} has no {'.'.join(parts[end:])!r}.",
                    name=module,
                ) from None
        return found
    raise AssertionError("unreachable")
