"""Task engines with a number of workers, as executors."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import harness

NAMES = ("process pool", "Dask", "Ray", "Parsl")
DISTRIBUTIONS = {"process pool": (), "Dask": ("distributed",), "Ray": ("ray",), "Parsl": ("parsl",)}


def start(name: str, workers: int, stack: contextlib.ExitStack) -> Any:
    """Start an engine that the stack ends; return what submits to it.

    Workers find our package, and the modules of the benches, by path.
    """
    scripts = str(Path(sys.executable).parent)  # Parsl starts some
    os.environ["PATH"] = os.pathsep.join([scripts, os.environ["PATH"]])
    paths = [str(Path(__file__).parent), str(harness.ROOT / "python")]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    return {"process pool": _pool, "Dask": _dask, "Ray": _ray, "Parsl": _parsl}[name](
        workers, stack
    )


def _pool(workers: int, stack: contextlib.ExitStack) -> Any:
    context = multiprocessing.get_context("spawn")
    return stack.enter_context(ProcessPoolExecutor(workers, mp_context=context))


def _dask(workers: int, stack: contextlib.ExitStack) -> Any:
    import dask
    from distributed import Client, LocalCluster

    stack.enter_context(dask.config.set({"distributed.comm.timeouts.connect": "60s"}))
    cluster = LocalCluster(
        n_workers=min(workers, 2),
        threads_per_worker=(workers + 1) // 2,
        processes=True,
        dashboard_address=None,
        silence_logs=logging.ERROR,
    )
    stack.enter_context(cluster)
    return stack.enter_context(Client(cluster, set_as_default=False))


def _ray(workers: int, stack: contextlib.ExitStack) -> Any:
    import ray

    from proxystore_rs.store.executor.ray import RayExecutor

    ray.init(
        num_cpus=workers,
        include_dashboard=False,
        object_store_memory=500_000_000,
        log_to_driver=False,
    )
    stack.callback(ray.shutdown)
    return RayExecutor()


def _parsl(workers: int, stack: contextlib.ExitStack) -> Any:
    import parsl
    from parsl.concurrent import ParslPoolExecutor
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    folder = stack.enter_context(tempfile.TemporaryDirectory())
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
    return ParslPoolExecutor(dfk=kernel)
