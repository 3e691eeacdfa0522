"""Ray as an executor."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from typing import Any, TypeVar

__all__ = ["RayExecutor", "RayFuture"]

T = TypeVar("T")


class RayFuture(Future[T]):
    """The future of a task of Ray. `ref` is its `ObjectRef`, for `ray.wait` and other tasks."""

    def __init__(self, ref: Any) -> None:
        super().__init__()
        self.ref = ref
        ref.future().add_done_callback(self._arrived)

    def _arrived(self, inner: Future[T]) -> None:
        if not self.set_running_or_notify_cancel():
            return
        error = inner.exception()
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(inner.result())

    def cancel(self) -> bool:
        """Cancel the task, also one that runs."""
        if not super().cancel():
            return False
        importlib.import_module("ray").cancel(self.ref)
        return True


def _call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


class RayExecutor(Executor):
    """Runs functions as tasks of Ray.

    Args:
        options: What `ray.remote` takes, such as `num_cpus=1` or `max_retries=3`.

    Ray is started by the first task unless `ray.init` was called; `shutdown` leaves it running.
    A future of this executor among the arguments of a task is a dependency of it.
    """

    def __init__(self, **options: Any) -> None:
        ray: Any = importlib.import_module("ray")
        self._remote = ray.remote(**options)(_call) if options else ray.remote(_call)
        self._futures: set[Future[Any]] = set()
        self._closed = False

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> RayFuture[T]:
        """Start a task."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        ref = self._remote.remote(
            function,
            *(_ref(item) for item in args),
            **{name: _ref(item) for name, item in kwargs.items()},
        )
        future: RayFuture[T] = RayFuture(ref)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks, and wait for those there are."""
        self._closed = True
        if cancel_futures:
            for future in list(self._futures):
                future.cancel()
        if wait:
            _wait_for(list(self._futures))


_wait_for = wait


def _ref(item: Any) -> Any:
    return item.ref if isinstance(item, RayFuture) else item
