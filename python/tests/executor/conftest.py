"""The engines: started once each, and asked for an executor by every test."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxystore_rs.store import Store
from proxystore_rs.store.executor import ProxySize, StoreExecutor

HERE = Path(__file__).resolve().parent
POOLS = ["thread", "fork", "spawn", "forkserver"]
OTHERS = {"distributed": ["dask", "dask-threads"], "ray": ["ray"], "parsl": ["parsl"]}


def _engines() -> list[str]:
    """The pools, and the engines that are installed; all of them where that is asked for."""
    missing = [name for name in OTHERS if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("PROXYSTORE_TEST_ENGINES") == "all":
        raise pytest.UsageError(f"not installed: {missing}; see requirements/engines.txt")
    return POOLS + [one for name, engines in OTHERS.items() if name not in missing for one in engines]


@dataclass
class Engine:
    """An engine that runs."""

    name: str
    make: Callable[[], Any]

    @property
    def is_dask(self) -> bool:
        return self.name.startswith("dask")

    @property
    def shares_memory(self) -> bool:
        """Whether workers are threads of this process."""
        return self.name in ("thread", "dask-threads")

    @property
    def has_dependencies(self) -> bool:
        """Whether futures can be arguments."""
        return self.is_dask or self.name in ("ray", "parsl")


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
    name = request.param
    with ExitStack() as stack:
        if name == "thread":
            yield Engine(name, lambda: ThreadPoolExecutor(2))
        elif name in POOLS:
            context = multiprocessing.get_context(name)
            yield Engine(name, lambda: ProcessPoolExecutor(2, mp_context=context))
        elif name.startswith("dask"):
            yield Engine(name, _dask(stack, processes=name == "dask"))
        elif name == "ray":
            yield Engine(name, _ray(stack))
        else:
            yield Engine(name, _parsl(stack, tmp_path_factory.mktemp("parsl")))


def _dask(stack: ExitStack, processes: bool) -> Callable[[], Any]:
    import dask
    from distributed import Client, LocalCluster

    stack.enter_context(
        dask.config.set(
            {
                "distributed.scheduler.allowed-failures": 0,
                "distributed.comm.timeouts.connect": "60s",
                "distributed.admin.system-monitor.gil.enabled": False,
            }
        )
    )
    cluster = stack.enter_context(
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=processes, dashboard_address=None
        )
    )
    return lambda: Client(cluster, set_as_default=False)


def _ray(stack: ExitStack) -> Callable[[], Any]:
    import ray

    from proxystore_rs.store.executor.ray import RayExecutor

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100_000_000,
        log_to_driver=False,
        configure_logging=False,
    )
    stack.callback(ray.shutdown)
    return lambda: RayExecutor(max_retries=0)


def _parsl(stack: ExitStack, folder: Path) -> Callable[[], Any]:
    import parsl
    from parsl.concurrent import ParslPoolExecutor
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    workers = HighThroughputExecutor(
        label="local",
        address="127.0.0.1",
        max_workers_per_node=2,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
        heartbeat_period=1,
        heartbeat_threshold=5,
    )
    kernel = parsl.load(parsl.Config([workers], run_dir=str(folder), usage_tracking=0))
    stack.callback(parsl.clear)
    stack.callback(kernel.cleanup)
    return lambda: ParslPoolExecutor(dfk=kernel)


@pytest.fixture
def file_store(make_store: Callable[..., Store[Any]]) -> Store[Any]:
    """A store whose objects can be counted, and that all workers reach."""
    return make_store("file")


def objects(store: Store[Any]) -> int:
    """How many objects the channel holds."""
    folder = Path(store.connector.store_dir)
    return sum(path.is_file() for path in folder.rglob("*")) if folder.exists() else 0


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for what happens elsewhere; fail if it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def pool(engine: Engine, file_store: Store[Any]) -> Iterator[StoreExecutor]:
    """An executor on the engine: objects of 1000 bytes and more travel by proxy."""
    with StoreExecutor(engine.make(), file_store, ProxySize(1000), close_store=False) as executor:
        yield executor
