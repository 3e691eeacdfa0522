"""The public names of `proxystore` 1.1.0 are here, and are called as they are called there.

`upstream.toml` says what these are. Where this package differs, DIFFERENCES says why; an entry that
is no longer true fails as well.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import math
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import proxystore_rs

FACTS: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("upstream.toml").read_text()
)
ABSENT: list[str] = FACTS.pop("absent")["modules"]  # type: ignore[assignment]
REPLACED: list[str] = FACTS.pop("replaced")["modules"]  # type: ignore[assignment]

# Needs a package that is not among the tools of these tests; see test_extensions.py.
UNTESTED = {"proxystore.ex"}

NOT_YET: set[str] = set()
"""Modules and names still to come."""

_KEY = "keys say which generation of an object they mean, and its size; both have defaults"

_NATIVE = "endpoints are native daemons: "

DIFFERENCES = {
    "proxystore.connectors.endpoint.EndpointConnector.close": "clear, as the other connectors have it",
    "proxystore.connectors.endpoint.EndpointKey": _KEY,
    "proxystore.endpoint.commands.configure_endpoint": (
        f"{_NATIVE}they fetch large objects by four channels by default"
    ),
    "proxystore.endpoint.commands.start_endpoint": f"{_NATIVE}config.toml says what is logged",
    "proxystore.endpoint.config.EndpointRelayAuthConfig": f"{_NATIVE}relays ask for a token",
    "proxystore.endpoint.config.EndpointRelayConfig": (
        f"{_NATIVE}relays have token and fingerprint; four channels by default"
    ),
    "proxystore.endpoint.config.EndpointRelayICEServerConfig": (
        f"{_NATIVE}the relay tells addresses too"
    ),
    "proxystore.endpoint.config.EndpointStorageConfig": (
        f"{_NATIVE}memory and disk have bounds, there is no SQLite"
    ),
    "proxystore.connectors.file.FileKey": _KEY,
    "proxystore.connectors.multi.MultiConnector.close": "clear, as the other connectors have it",
    "proxystore.connectors.redis.RedisKey": _KEY,
    "proxystore.store.future.Future.result": "timeout, as futures of the standard library have it",
}
"""Names that are called in another way, and why."""


def ours(module: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module.replace("proxystore", "proxystore_rs", 1))


def signature(text: str) -> inspect.Signature:
    """The signature that a text such as `(a, *, b=1)` shows; `...` is a default nobody sees."""
    namespace: dict[str, Any] = {"inf": math.inf}
    exec(f"def function{text}: pass", namespace)
    return inspect.signature(namespace["function"])


def problem(here: inspect.Signature, there: inspect.Signature) -> str | None:
    """Say which call that is right there is wrong here, or which default differs."""
    parameters = here.parameters.values()
    positional = iter([p for p in parameters if p.kind <= p.POSITIONAL_OR_KEYWORD])
    for number, wanted in enumerate(there.parameters.values(), 1):
        if wanted.kind in (wanted.VAR_POSITIONAL, wanted.VAR_KEYWORD):
            if wanted.kind not in {p.kind for p in parameters}:
                return f"does not take {wanted}"
            continue
        if wanted.kind == wanted.KEYWORD_ONLY:
            found = here.parameters.get(wanted.name)
        else:
            found = next(positional, None)
        if found is None or (found.name != wanted.name and wanted.kind != wanted.POSITIONAL_ONLY):
            return f"argument {number} is {found}, not {wanted}"
        if found.kind == found.POSITIONAL_ONLY != wanted.kind:
            return f"{wanted} cannot be given by keyword"
        if wanted.default not in (found.default, wanted.empty, ...):
            return f"{wanted.name} is {found.default!r} by default, not {wanted.default!r}"
    for extra in positional:
        return f"takes {extra} by position too"
    for extra in parameters:
        needed = extra.kind == extra.KEYWORD_ONLY and extra.default is extra.empty
        if needed and extra.name not in there.parameters:
            return f"needs {extra}"
    return None


def check(owner: Any, name: str, fact: str) -> str | None:
    """Say what is wrong with the name, if anything is."""
    kind, _, rest = fact.partition(" ")
    kind, _, base = kind.removesuffix("]").partition("[")
    try:
        found = getattr(owner, name)
        # Packages offer names of their modules when they are asked for.
        static = found if inspect.ismodule(owner) else inspect.getattr_static(owner, name)
    except AttributeError:
        return "is missing"
    if kind == "name":
        return None
    if kind == "property":
        return None if hasattr(type(static), "__get__") and not callable(static) else "is none"
    if kind in ("class", "protocol", "namedtuple", "typeddict") and not isinstance(found, type):
        return "is no class"
    if base and base not in {parent.__name__ for parent in found.__mro__}:
        return f"is no {base}"
    if kind == "namedtuple":
        fields = [p.strip() for p in rest.strip("()").split(",")]
        return None if list(found._fields) == fields else f"has the fields {found._fields}"
    if kind == "typeddict":
        wanted = {p.strip() for p in rest.strip("()").split(",")}
        return None if found.__annotations__.keys() == wanted else "has other keys"
    if not rest:
        return None
    there = signature(rest)
    if kind in ("method", "classmethod"):
        if (kind == "classmethod") != (getattr(found, "__self__", None) is owner):
            return f"is no {kind}"
        here = inspect.signature(found)
        if kind == "method":
            here = here.replace(parameters=list(here.parameters.values())[1:])
        return problem(here, there)
    return problem(inspect.signature(found), there)


def problems(module: str) -> Iterator[tuple[str, str]]:
    try:
        imported = ours(module)
    except ModuleNotFoundError as error:
        yield module, str(error)
        return
    for name, fact in FACTS[module].items():
        class_, _, member = name.rpartition(".")
        owner = getattr(imported, class_, None) if class_ else imported
        found = check(owner, member, fact)
        if found is not None:
            yield f"{module}.{name}", found


@pytest.mark.parametrize("module", sorted(FACTS.keys() - UNTESTED))
def test_names_and_signatures(module: str) -> None:
    found = dict(problems(module))
    listed = NOT_YET | DIFFERENCES.keys()
    known = {name for name in listed if module_of(name) == module}
    assert {name: text for name, text in found.items() if name not in known} == {}
    assert known - found.keys() == set(), "no longer true: remove it from the table"


def module_of(name: str) -> str:
    return next(m for m in sorted(FACTS, reverse=True) if f"{name}.".startswith(f"{m}."))


def test_the_version_is_that_of_the_distribution() -> None:
    assert importlib.metadata.version("proxystore-rs") == proxystore_rs.__version__


@pytest.mark.parametrize("module", ABSENT)
def test_what_is_absent_is_said_to_be(module: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        ours(module)


@pytest.mark.parametrize("module", REPLACED)
def test_what_is_replaced_says_by_what(module: str) -> None:
    with pytest.raises(ImportError, match="native daemon"):
        ours(module)


def test_the_tables_speak_of_names_there_are() -> None:
    known = set(FACTS) | {f"{module}.{name}" for module in FACTS for name in FACTS[module]}
    assert (NOT_YET | DIFFERENCES.keys()) - known == set()


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        ("(a, b=1)", "(a, b=1)", None),
        ("(a, *, c=2)", "(a)", None),
        ("(a, b=None)", "(a, b)", None),
        ("(a, b)", "(a, /, b)", None),
        ("(a, *args, **kwargs)", "(a, *args, **kwargs)", None),
        ("(b, a)", "(a, b)", "argument 1 is b, not a"),
        ("(a)", "(a, b=1)", "argument 2 is None, not b=1"),
        ("(a, b=2)", "(a, b=1)", "b is 2 by default, not 1"),
        ("(a, /)", "(a)", "a cannot be given by keyword"),
        ("(a)", "(a, *, c=1)", "argument 2 is None, not c=1"),
        ("(a, *, c=1, **kwargs)", "(a, *, c=None, **kwargs)", "c is 1 by default, not None"),
        ("(a)", "(a, *args)", "does not take *args"),
        ("(a, *, c)", "(a)", "needs c"),
        ("(a, b=1)", "(a)", "takes b=1 by position too"),
    ],
)
def test_differences_are_found(here: str, there: str, expected: str | None) -> None:
    assert problem(signature(here), signature(there)) == expected
