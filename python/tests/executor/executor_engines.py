"""Starting the engines, and what their tests share."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxystore_rs.store import Store

POOLS = ["thread", "fork", "spawn", "forkserver"]
# Those that fork this process come first: others start threads that do not bear it.
OTHERS = {
    "globus_compute_sdk": ["globus"],
    "distributed": ["dask", "dask-threads"],
    "ray": ["ray"],
    "parsl": ["parsl"],
}


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
        """Whether tasks reach their workers without being pickled."""
        return self.name == "thread"

    @property
    def has_dependencies(self) -> bool:
        """Whether futures can be arguments."""
        return self.is_dask or self.name in ("ray", "parsl")


def start(name: str, stack: ExitStack, folder: Path) -> Callable[[], Any]:
    """Start an engine, and return what makes executors of it."""
    if name == "thread":
        return lambda: ThreadPoolExecutor(2)
    if name in POOLS:
        context = multiprocessing.get_context(name)
        return lambda: ProcessPoolExecutor(2, mp_context=context)
    if name == "globus":
        return Globus
    if name == "ray":
        return _ray(stack)
    if name == "parsl":
        return _parsl(stack, folder)
    return _dask(stack, processes=name == "dask")


class Globus(ProcessPoolExecutor):
    """Moves tasks as Globus Compute does, in text made by its serializer, and needs no service."""

    def __init__(self) -> None:
        import globus_compute_sdk.serialize  # takes seconds, which forked workers save

        del globus_compute_sdk
        super().__init__(2, mp_context=multiprocessing.get_context("fork"))

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(run_globus_task, Text(function), Text(args), Text(kwargs))


class Text:
    """Something on its way as text."""

    def __init__(self, item: Any) -> None:
        from globus_compute_sdk.serialize import ComputeSerializer

        self.text = ComputeSerializer().serialize(item)

    def __reduce__(self) -> Any:
        return read_text, (self.text,)


def read_text(text: str) -> Any:
    from globus_compute_sdk.serialize import ComputeSerializer

    return ComputeSerializer().deserialize(text)


def run_globus_task(function: Callable[..., Any], args: Any, kwargs: Any) -> Text:
    """Be the worker of Globus Compute."""
    return Text(function(*args, **kwargs))


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
        LocalCluster(n_workers=2, threads_per_worker=1, processes=processes, dashboard_address=None)
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
