"""Functions that run as the tasks of items."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from numbered_stream import gets

from proxystore_rs.proxy import Proxy, get_factory, is_resolved
from proxystore_rs.stream import StreamConsumer
from proxystore_rs.stream.brokers import open_broker
from proxystore_rs.stream.dispatch import Dispatcher


def first(array: Any) -> float:
    return float(array[0])


def same(item: Any) -> Any:
    return item


def kind_and_frame(item: Any, metadata: dict[str, Any]) -> tuple[str, int]:
    return type(item).__name__, metadata["frame"]


def is_fetched(proxy: Any) -> bool:
    """Whether the object comes though nobody uses it."""
    assert issubclass(type(proxy), Proxy) and not is_resolved(proxy)
    factory: Any = get_factory(proxy)
    store = factory.get_store()
    deadline = time.monotonic() + 60
    while gets(store) == 0 and time.monotonic() < deadline:
        time.sleep(0.005)
    return gets(store) > 0 and not is_resolved(proxy)


def fail_odd(array: Any) -> float:
    if array[0] % 2:
        raise ArithmeticError(f"{array[0]:.0f} is odd")
    return float(array[0])


def fail(_array: Any) -> NoReturn:
    raise ArithmeticError("as it should")


def fail_twice(folder: str, array: Any) -> float:
    """Fail with the first two tasks of an item, after its object was used and changed."""
    marks = Path(folder, f"{array[0]:.0f}")
    marks.mkdir(exist_ok=True)
    tries = len(list(marks.iterdir()))
    (marks / str(tries)).touch()
    value = float(array[1])
    array[1] = -1
    if tries < 2:
        raise ArithmeticError("not yet")
    return value


def die_once(mark: str, array: Any) -> float:
    """Kill the worker of the first task that is about the number 3."""
    if array[0] == 3 and not os.path.exists(mark):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return float(array[0])


def wait_for(gate: str, array: Any) -> float:
    """Say that the task runs, and wait until it may end."""
    number = float(array[0])
    Path(f"{gate}.{number:.0f}").touch()
    wait_at(gate)
    return number


def wait_at(gate: str) -> None:
    deadline = time.monotonic() + 60
    while not os.path.exists(gate) and time.monotonic() < deadline:
        time.sleep(0.01)


def use_late(gate: str, array: Any) -> float:
    """Use the object when the gate is open."""
    wait_at(gate)
    return float(array[0])


def wait_unless(number: float, gate: str, array: Any) -> float:
    """Wait for the gate, with any other number."""
    return float(array[0]) if array[0] == number else wait_for(gate, array)


def dispatch_until_killed(url: str, topic: str, folder: str) -> None:
    """Be a dispatcher whose task of the number 3 does not end, and say which items are done."""
    subscriber = open_broker(url).subscriber(topic)
    consumer: StreamConsumer[Any] = StreamConsumer(subscriber, acknowledge="manual")

    def note(_item: Any, number: float) -> None:
        Path(folder, f"{number:.0f}").touch()

    with ThreadPoolExecutor(2) as pool:
        Dispatcher(consumer, pool, never_end_3, on_result=note, max_in_flight=3).run()


def never_end_3(array: Any) -> float:
    while array[0] == 3:
        time.sleep(0.01)
    return float(array[0])


class Unpicklable:
    """A result that cannot be sent."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def make_unpicklable(_array: Any) -> Unpicklable:
    return Unpicklable()
