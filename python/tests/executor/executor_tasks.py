"""Functions that run in the workers of the engines: they know nothing of executors."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from proxystore_rs.proxy import Proxy, extract, get_factory, is_resolved
from proxystore_rs.store import get_store


def double(array: Any) -> Any:
    return array * 2


def add(one: Any, other: Any) -> Any:
    return one + other


def nothing(*_args: Any, **_kwargs: Any) -> None:
    return None


def same(item: Any) -> Any:
    return item


def ten() -> int:
    return 10


def truth(item: Any) -> bool:
    return bool(len(item))


def look(*args: Any, **kwargs: Any) -> list[Any]:
    """For each argument whether it is a proxy, and whether it is resolved."""
    return [
        (type(item).__name__, is_resolved(item) if issubclass(type(item), Proxy) else None)
        for item in (*args, *kwargs.values())
    ]


def kinds_inside(container: Any) -> list[str]:
    items = container.values() if type(container) is dict else container
    return [type(item).__name__ for item in items]


def increment(array: Any) -> Any:
    """Changes its argument and returns it."""
    array += 1
    return array


def both(one: Any, other: Any) -> Any:
    """Returns its arguments within something else."""
    return {"pair": [one, other]}


def own_proxy(array: Any) -> Any:
    store = get_store(array)
    assert store is not None
    return store.proxy(array + 1, populate_target=False)


def own_owner(array: Any) -> Any:
    store = get_store(array)
    assert store is not None
    return store.owned_proxy(array + 1)


def first_sum(arrays: Any) -> float:
    return float(arrays[0].sum())


def first_of(array: Any) -> float:
    return float(array[0])


def length(item: Any) -> int:
    return len(item)


def text_of(item: Any) -> str:
    return f"{type(item).__name__} {item!s}"


def fail(_item: Any) -> NoReturn:
    raise ZeroDivisionError("as it should")


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")  # arrives with one argument, and needs two


def fail_strangely(_item: Any) -> NoReturn:
    raise Unpicklable(1, 2)


def fail_with_lock(_item: Any) -> NoReturn:
    import threading

    raise ValueError("holds a lock", threading.Lock())


def die(_item: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def die_once(path: str, array: Any) -> float:
    """Kill the worker of the first task that is about the number 2."""
    if array[0] == 2 and not os.path.exists(path):
        Path(path).touch()
        die(array)
    return float(array[0])


def wait_for(path: str, item: Any) -> Any:
    """Say that the task runs, and wait until it may end."""
    Path(path + ".runs").touch()
    deadline = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    return item * 2


def store_of_worker(proxy: Any) -> tuple[int, int]:
    """The process, and the identity of the store a proxy resolves through."""
    factory: Any = get_factory(proxy)
    return os.getpid(), id(factory.get_store())


def use_and_tell_key(proxy: Any) -> Any:
    assert len(extract(proxy)) and is_resolved(proxy)
    factory: Any = get_factory(proxy)
    return factory.key


def is_cached(proxy: Any, key: Any) -> bool:
    factory: Any = get_factory(proxy)
    return bool(factory.get_store().is_cached(key))


def fail_once(path: str, array: Any) -> Any:
    """Makes a result, and fails the first time."""
    if not os.path.exists(path):
        Path(path).touch()
        raise OSError("try again")
    return array * 2


def fail_beside(gate: str, array: Any) -> float:
    """Fail for 1 while the task of 0 runs, which ends when the gate is open."""
    number = float(array[0])
    runs = Path(f"{gate}.0")
    if number == 0:
        runs.touch()
    deadline = time.monotonic() + 60
    awaited = {0: Path(gate), 1: runs}.get(int(number))
    while awaited is not None and not awaited.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    if number == 1:
        raise ZeroDivisionError("as it should")
    return number


def numbers(count: int) -> Any:
    return np.arange(float(count))


def take_over(predecessor: Any, future: Any) -> None:
    """Start up, take the predecessor's output, compute, and set the future to an output."""
    time.sleep(0.02)
    output = predecessor + 1
    time.sleep(0.02)
    future.set_result(output)


def fail_over(predecessor: Any, future: Any) -> None:
    """As `take_over`, and tell the successor what went wrong."""
    try:
        take_over(predecessor, future)
    except Exception as error:
        future.set_exception(error)
