"""Objects of modules that are loaded already."""

from __future__ import annotations

import sys
import types
from typing import Any

__all__ = ["loaded"]

# Past whatever modules and metaclasses put in their way: asking for an attribute of a lazy module,
# `__dict__` included, imports it.
_of_module: Any = vars(types.ModuleType)["__dict__"]
_of_class: Any = vars(type)["__dict__"]


def loaded(module: str, path: str) -> Any:
    """Return what has this name in a module, or None; runs no code, and imports nothing.

    >>> loaded('types', 'ModuleType')
    <class 'module'>
    >>> loaded('nowhere', 'Sample')
    """
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        # By the type itself: objects may lie about their class.
        if issubclass(type(found), types.ModuleType):
            found = _of_module.__get__(found).get(part)
        elif issubclass(type(found), type):
            found = _of_class.__get__(found).get(part)
        else:
            return None
    return found
