"""A package under a second name: the same module objects, and not copies of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import CodeType, ModuleType
from typing import Any

__all__ = ["alias", "replace"]


def alias(name: str, package: str) -> None:
    """Make `NAME.x` the module `PACKAGE.x`, for every `x`, however deep.

    The module NAME itself is the caller's affair. It may have a function `_explain`, which is given
    the full name of a module that the package does not have, and may say why.
    """
    finder = _Finder(name, package)
    if finder not in sys.meta_path:
        # First, since others would find the files of a subpackage under the second name, and load
        # them again.
        sys.meta_path.insert(0, finder)


def replace(name: str, package: str) -> None:
    """Put the module of the package where its alias of this full name is being imported."""
    top = name.partition(".")[0]
    alias(top, package)
    sys.modules[name] = import_module(package + name.removeprefix(top))


class _Finder:
    def __init__(self, name: str, package: str) -> None:
        self._name = name
        self._package = package

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Finder) and other._name == self._name

    def __hash__(self) -> int:
        return hash(self._name)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if path is None or not fullname.startswith(f"{self._name}."):
            return None
        # The import lock is held here, so that waiting for another thread's import would be the
        # end: this looks for files, and imports nothing.
        own = self._package + fullname.removeprefix(self._name)
        parent = sys.modules.get(own.rpartition(".")[0])
        shared = path is getattr(parent, "__path__", None)
        spec = PathFinder.find_spec(own if shared else fullname, path)
        if spec is None:
            explain = getattr(sys.modules.get(self._name), "_explain", None)
            reason = explain(fullname) if explain else None
            if reason:
                raise ModuleNotFoundError(reason, name=fullname)
            return None
        if not shared:
            return spec  # that of a module which replaces itself
        loader: Any = _Loader(spec)
        is_package = spec.submodule_search_locations is not None
        return ModuleSpec(fullname, loader, origin=spec.origin, is_package=is_package)


class _Loader:
    def __init__(self, spec: ModuleSpec) -> None:
        self._spec = spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        # The import system takes what is here now, and so never touches the attributes of the
        # module itself: its name, spec and loader stay its own.
        sys.modules[module.__name__] = import_module(self._spec.name)

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code; asked by `python -m`."""
        loader: Any = self._spec.loader
        code: CodeType | None = loader.get_code(self._spec.name)
        return code
