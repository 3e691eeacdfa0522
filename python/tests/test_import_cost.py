"""Importing the package imports no library that a program may not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("numpy", "pandas", "polars", "pyarrow", "pydantic", "cloudpickle", "asyncio")
SLOW = ("inspect", "dataclasses", "decimal", "tomllib", "socket")


@pytest.mark.parametrize(
    "module",
    [
        "exceptions",
        "serialize",
        "proxy",
        "utils",
        "utils.config",
        "connectors.local",
        "store",
        "store.base",
        "store.future",
        "store.ref",
        "store.registry",
        "store.config",
        "store.executor",
        "store.metrics",
    ],
)
def test_heavy_libraries_stay_out(module: str) -> None:
    code = (
        f"import sys; before = set(sys.modules); import proxystore_rs.{module}; "
        f"print(*[m for m in {HEAVY + SLOW} if m in sys.modules and m not in before])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_serializing_a_plain_object_imports_none_either() -> None:
    code = (
        "import sys; from proxystore_rs.serialize import deserialize, serialize; "
        "[deserialize(serialize(o)) for o in (b'x', 'x', 1, {'a': [1]})]; "
        f"print(*[m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
