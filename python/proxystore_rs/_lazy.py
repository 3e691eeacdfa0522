"""Packages that load their modules when a name of theirs is first used.

A package that imports its modules would make a cycle of every import of one of them, since importing
a module imports its package first. Two threads that meet in such a cycle, as the threads of a worker
do when they unpickle their first proxies, get a deadlock error from the import system.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["lazy"]


def lazy(package: str, names: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], Any]]:
    """Return `__getattr__` and `__dir__` of a package.

    Args:
        package: Its name.
        names: The names it offers, and of each the module of the package that defines it.
    """

    def getattr_(name: str) -> Any:
        if name in names:
            found = getattr(import_module(f"{package}.{names[name]}"), name)
            setattr(sys.modules[package], name, found)
            return found
        # `import proxystore_rs.store` is enough to use `proxystore_rs.store.base`.
        module = f"{package}.{name}"
        if not name.startswith("_"):
            try:
                return import_module(module)
            except ModuleNotFoundError as error:
                if error.name != module:
                    raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *names})

    return getattr_, dir_
