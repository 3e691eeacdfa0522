"""Task engines with a number of workers, behind one way to submit."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

Submit = Callable[..., Any]
"""Takes a function and its arguments; returns a future with `result()`."""


def start(name: str, workers: int, stack: contextlib.ExitStack) -> Submit:
    """Start an engine that the stack ends, all of its workers up."""
    return STARTS[name](workers, stack)


def _pool(workers: int, stack: contextlib.ExitStack) -> Submit:
    context = multiprocessing.get_context("spawn")
    return stack.enter_context(ProcessPoolExecutor(workers, mp_context=context)).submit


def _dask(workers: int, stack: contextlib.ExitStack) -> Submit:
    import dask
    from distributed import Client, LocalCluster

    stack.enter_context(dask.config.set({"distributed.comm.timeouts.connect": "60s"}))
    cluster = LocalCluster(
        n_workers=2,
        threads_per_worker=(workers + 1) // 2,
        dashboard_address=None,
        silence_logs=logging.ERROR,
    )
    stack.enter_context(cluster)
    client = stack.enter_context(Client(cluster, set_as_default=False))
    return lambda function, *arguments: client.submit(function, *arguments, pure=False)


class _RayFuture:
    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def result(self) -> Any:
        import ray

        return ray.get(self.reference)


def _ray(workers: int, stack: contextlib.ExitStack) -> Submit:
    import ray

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        num_cpus=workers,
        include_dashboard=False,
        object_store_memory=500_000_000,
        log_to_driver=False,
        configure_logging=False,
    )
    stack.callback(ray.shutdown)
    tasks: dict[Any, Any] = {}

    def submit(function: Any, *arguments: Any) -> _RayFuture:
        task = tasks.setdefault(function, ray.remote(function))
        return _RayFuture(task.remote(*arguments))

    return submit


def _parsl(workers: int, stack: contextlib.ExitStack) -> Submit:
    import parsl
    from parsl.concurrent import ParslPoolExecutor
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    folder = stack.enter_context(tempfile.TemporaryDirectory())
    scripts = os.path.dirname(sys.executable)  # it starts some of them
    os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    executor = HighThroughputExecutor(
        label="local",
        address="127.0.0.1",
        max_workers_per_node=workers,
        cores_per_worker=0.01,  # they sleep
        provider=LocalProvider(init_blocks=1, max_blocks=1),
        heartbeat_period=1,
        heartbeat_threshold=5,
    )
    kernel = parsl.load(parsl.Config([executor], run_dir=folder, usage_tracking=0))
    stack.callback(parsl.clear)
    stack.callback(kernel.cleanup)
    return ParslPoolExecutor(dfk=kernel).submit


STARTS = {"process pool": _pool, "Dask": _dask, "Ray": _ray, "Parsl": _parsl}
DISTRIBUTIONS = {
    "process pool": (),
    "Dask": ("distributed",),
    "Ray": ("ray",),
    "Parsl": ("parsl",),
}
