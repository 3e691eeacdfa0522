"""What this process believes of what it is sent.

A reference names the class of its connector, if that is written in Python, and whoever resolves it
imports the class and calls it. What this package brings and what the program knows is fine: classes
of connectors that it made itself, and those that it registers.

    >>> @register
    ... class PigeonConnector:
    ...     '''A connector written in Python; its methods are left out here.'''

What happens with other classes is said by `imports` or the environment variable
`PROXYSTORE_IMPORTS`:

- `"allow"`: they are imported.
- `"warn"`, the default: they are imported, with an `UntrustedImportWarning`, once a module.
- `"refuse"`: nothing is imported, an `UntrustedError` is raised, and pickles in references hold
  nothing but plain values and what is registered. The default with `PROXYSTORE_CODEC=data`.

A class counts as known only when it is registered or was made here: that its module is imported
already says nothing of whether the program would call it with a stranger's arguments.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Literal, TypeVar

from proxystore_rs.exceptions import StoreConfigError, UntrustedError
from proxystore_rs.utils._loaded import loaded
from proxystore_rs.warnings import UntrustedImportWarning

__all__ = [
    "UntrustedImportWarning",
    "identity",
    "imports",
    "make_identity",
    "register",
    "require_producers",
]

T = TypeVar("T")
_MODES = ("allow", "warn", "refuse")

_mode: Literal["allow", "warn", "refuse"] | None = None
_registered: dict[str, Any] = {}
_made: set[str] = set()
_warned: set[str] = set()


def register(obj: T) -> T:
    """Let references name a connector class, or the class or function that a pickle in them names.

    Returns the object, so that it can decorate a class.
    """
    _registered[_path(obj)] = obj
    return obj


def imports(
    mode: Literal["allow", "warn", "refuse"] | None = None,
) -> Literal["allow", "warn", "refuse"]:
    """Say what happens when a reference names what is not registered; return what held so far.

    >>> before = imports('refuse')
    >>> imports(before)
    'refuse'

    Args:
        mode: `"allow"`, `"warn"` or `"refuse"`; without, nothing changes.

    Raises:
        StoreConfigError: The mode, or the one in the environment, is none of these.
    """
    global _mode
    current = _mode or _from_environment()
    if mode is not None:
        _mode = _checked(mode, "imports()")
    return current


def require_producers(keys: Iterable[str | bytes] | None) -> None:
    """From now on, resolve only references that one of these producers has signed.

    The environment variable `PROXYSTORE_PRODUCERS` does the same for a whole process: keys
    separated by commas, or the path of a file with one a line.

    >>> require_producers(None)

    Args:
        keys: Public keys, 32 bytes or 64 hexadecimal digits; an empty list believes nobody, and
            `None` everybody, whatever the environment says. What this process makes itself needs
            no signature.

    Raises:
        ValueError: One of them is no public key.
    """
    from proxystore_rs._core import _require_producers

    if isinstance(keys, str | bytes):
        raise ValueError(f"the keys of producers come as a list of keys, not as {keys!r}")
    if keys is None:
        _require_producers(None)
    else:
        _require_producers([key.hex() if isinstance(key, bytes) else key for key in keys])


def make_identity(path: str | os.PathLike[str]) -> str:
    """Write a new signing key to a file that only its owner can read; return the public key.

    Give the public key to consumers, for `require_producers`, and the file to producers, for
    `identity` or the environment variable `PROXYSTORE_SIGNING_KEY`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     len(make_identity(f'{directory}/key'))
    64

    Raises:
        FileExistsError: There is a file already; a key that was lost cannot be made again.
    """
    from proxystore_rs._core import _make_identity

    seed, public = _make_identity()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(f"{seed.hex()}\n")
    return public.hex()


def identity(path: str | os.PathLike[str] | None = None) -> str:
    """Return the public key by which this process signs, after choosing it by a file if given.

    Stores with `seal="signed"` sign by it. Without a choice it is that of the file named by the
    environment variable `PROXYSTORE_SIGNING_KEY`.

    Raises:
        StoreConfigError: The file holds no key, there is none, or the process has another already.
    """
    from proxystore_rs._core import _make_identity, _public_key, _set_identity

    if path is not None:
        seed, _ = _make_identity(path)
        _set_identity(seed)
    return _public_key().hex()


def _checked(mode: Any, where: str) -> Literal["allow", "warn", "refuse"]:
    if mode not in _MODES:
        raise StoreConfigError(f"{where} must be one of {', '.join(_MODES)}, not {mode!r}")
    return mode  # type: ignore[no-any-return]


def _from_environment() -> Literal["allow", "warn", "refuse"]:
    if named := os.environ.get("PROXYSTORE_IMPORTS"):
        return _checked(named, "the environment variable PROXYSTORE_IMPORTS")
    return "refuse" if os.environ.get("PROXYSTORE_CODEC") == "data" else "warn"


def _path(obj: Any) -> str:
    return f"{obj.__module__}.{obj.__qualname__}"


def _is_known(path: str) -> bool:
    from proxystore_rs.store._kinds import SHORT_NAMES

    return path in _registered or path in _made or path in SHORT_NAMES.values()


def _know(connector: type[Any]) -> None:
    """Remember the class of a connector that this process made; called by the native code."""
    _made.add(_path(connector))


def _admit(path: str, store: str) -> None:
    """Allow a reference to name a connector class, or raise; called by the native code."""
    if not _is_known(path):
        _decide(path, path.rpartition(".")[0], f"a reference to store {store!r}")


def _decide(path: str, module: str, who: str) -> None:
    mode = imports()
    if mode == "allow":
        return
    remedy = (
        f"call proxystore_rs.trust.register({path.rpartition('.')[2]}) in this process, or allow "
        "all classes by proxystore_rs.trust.imports('allow') or PROXYSTORE_IMPORTS=allow"
    )
    if mode == "refuse":
        raise UntrustedError(
            f"{who} names {path}, which this process does not know, and it imports nothing that "
            f"it does not know; if that is wanted, {remedy}"
        )
    if module not in _warned:
        _warned.add(module)
        import warnings

        warnings.warn(
            f"{who} names {path}, which this process does not know; it is imported and used. If "
            f"that is wanted, {remedy}",
            UntrustedImportWarning,
            stacklevel=2,
        )


def _key_class(module: str, name: str) -> Any:
    """Return the named tuple of a key; called by the native code.

    Nothing of it is called, so that it need not be registered where its module is imported already.
    """
    path = f"{module}.{name}"
    found = _registered.get(path) or loaded(module, name)
    if isinstance(found, type) and issubclass(found, tuple):
        return found
    _decide(path, module, "the key in a reference")
    found = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


class _Unpickler(pickle.Unpickler):
    """Reads plain values, and what is registered."""

    def find_class(self, module: str, name: str, /) -> Any:
        path = f"{module}.{name}"
        if path in _registered:
            return _registered[path]
        if not _is_known(path):
            _decide(path, module, "a pickle in a reference")
        return super().find_class(module, name)


def _loads(pickled: bytes) -> Any:
    """Return what a pickle in a reference holds; called by the native code.

    Only refusal looks into it: proxies come by pickle themselves where imports are allowed, and
    could do anything then.
    """
    if imports() == "refuse":
        return _Unpickler(io.BytesIO(pickled)).load()
    return pickle.loads(pickled)
