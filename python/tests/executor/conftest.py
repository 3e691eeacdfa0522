"""The engines: started once each, and asked for an executor by every test."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from executor_engines import OTHERS, POOLS, Engine, start

from proxystore_rs.store import Store
from proxystore_rs.store.executor import ProxySize, StoreExecutor

HERE = Path(__file__).resolve().parent


def _engines() -> list[str]:
    """The pools, and the engines that are installed; where the environment asks, all but pools."""
    missing = [name for name in OTHERS if importlib.util.find_spec(name) is None]
    others = [one for name, engines in OTHERS.items() if name not in missing for one in engines]
    if os.environ.get("PROXYSTORE_TEST_ENGINES") != "all":
        return POOLS + others
    if missing:
        raise pytest.UsageError(f"not installed: {missing}; see requirements/engines.txt")
    return others


@pytest.fixture(scope="session")
def _paths() -> Iterator[None]:
    """Workers that are not children of this process import the functions of the tests too."""
    with pytest.MonkeyPatch.context() as patch:
        roots = [str(HERE), str(HERE.parents[1])]
        known = os.environ.get("PYTHONPATH")
        patch.setenv("PYTHONPATH", os.pathsep.join(roots + ([known] if known else [])))
        scripts = str(Path(sys.executable).parent)
        patch.setenv("PATH", os.pathsep.join([scripts, os.environ.get("PATH", "")]))
        yield


@pytest.fixture(scope="session", params=_engines())
def engine(
    request: pytest.FixtureRequest, _paths: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """Every engine in turn."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("engine")
        yield Engine(request.param, start(request.param, stack, folder))


@pytest.fixture
def file_store(make_store: Callable[..., Store[Any]]) -> Store[Any]:
    """A store whose objects can be counted, and that all workers reach."""
    return make_store("file")


@pytest.fixture
def pool(engine: Engine, file_store: Store[Any]) -> Iterator[StoreExecutor]:
    """An executor on the engine: objects of 1000 bytes and more travel by proxy."""
    with StoreExecutor(engine.make(), file_store, ProxySize(1000), close_store=False) as executor:
        yield executor
