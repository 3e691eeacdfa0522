"""Background tasks that do not fail unseen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["SafeTaskExitError", "exit_on_error", "spawn_guarded_background_task"]

logger = logging.getLogger(__name__)

# The event loop itself holds tasks weakly.
_running: set[asyncio.Task[Any]] = set()


class SafeTaskExitError(Exception):
    """Ends a guarded task, and nothing else, when raised within it."""


def exit_on_error(task: asyncio.Task[Any]) -> None:
    """Raise `SystemExit(1)` if the task failed, other than by `SafeTaskExitError`.

    To be given to the task's `add_done_callback`.
    """
    if task.cancelled():
        return
    error = task.exception()
    if error is None or isinstance(error, SafeTaskExitError):
        return
    logger.error('Exception in background task (name="%s"): %r', task.get_name(), error)
    raise SystemExit(1)


async def _log_failure(
    coro: Callable[..., Coroutine[Any, Any, None]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    try:
        await coro(*args, **kwargs)
    except SafeTaskExitError:
        raise
    except Exception:
        logger.exception("Background task failed")
        raise


def spawn_guarded_background_task(
    coro: Callable[..., Coroutine[Any, Any, None]],
    *args: Any,
    **kwargs: Any,
) -> asyncio.Task[Any]:
    """Run a coroutine function as a task that ends the program when it fails.

    The traceback is logged first. Call it while an event loop runs.

        task = spawn_guarded_background_task(serve, port=80)
    """
    task = asyncio.create_task(_log_failure(coro, args, kwargs))
    _running.add(task)
    task.add_done_callback(_running.discard)
    task.add_done_callback(exit_on_error)
    return task
