"""Resolving once: threads, forks, signals and circles."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest

from proxystore_rs.proxy import Proxy, ProxyResolveError, is_resolved


def in_threads(count: int, use: Any) -> list[Any]:
    """Run `use(i)` in as many threads at once, and return what each returned or raised."""
    outcomes: list[Any] = [None] * count
    barrier = threading.Barrier(count)

    def run(i: int) -> None:
        barrier.wait()
        try:
            outcomes[i] = use(i)
        except Exception as error:
            outcomes[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


@pytest.mark.parametrize("round_", range(50))
def test_eight_threads_one_call(round_: int) -> None:
    calls: list[int] = []
    others = threading.Semaphore(0)

    def factory() -> list[int]:
        calls.append(1)
        others.acquire(timeout=0.001)
        return [1, 2]

    p = Proxy(factory)
    assert in_threads(8, lambda _: len(p)) == [2] * 8
    assert calls == [1]


def test_waiting_threads_retry_a_failing_factory() -> None:
    calls: list[int] = []

    def factory() -> Any:
        calls.append(1)
        raise KeyError("gone")

    p = Proxy(factory)
    outcomes = in_threads(4, lambda _: len(p))
    assert [type(outcome) for outcome in outcomes] == [ProxyResolveError] * 4
    assert len(calls) == 4
    assert not is_resolved(p)


def test_circle_of_two_threads() -> None:
    both = threading.Barrier(2)
    a: Proxy[Any] = Proxy(lambda: (meet(both), [len(b)])[1])
    b: Proxy[Any] = Proxy(lambda: (meet(both), [len(a)])[1])
    outcomes = in_threads(2, lambda i: len((a, b)[i]))
    assert [type(outcome) for outcome in outcomes] == [ProxyResolveError] * 2
    for error in outcomes:
        while isinstance(error, ProxyResolveError):
            error = error.cause
        assert isinstance(error, RecursionError)


def meet(barrier: threading.Barrier) -> None:
    # The first two calls are one in each thread; later ones find the barrier broken.
    with contextlib.suppress(threading.BrokenBarrierError):
        barrier.wait(timeout=1)
    barrier.abort()


def test_proxies_of_different_threads_do_not_wait_for_each_other() -> None:
    barrier = threading.Barrier(2, timeout=30)
    proxies = [Proxy(lambda: [barrier.wait()]) for _ in range(2)]
    assert in_threads(2, lambda i: len(proxies[i])) == [1, 1]


def run_script(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_fork_during_a_resolve() -> None:
    code = """
        import os, signal, threading
        from proxystore_rs.proxy import Proxy
        started, go_on = threading.Event(), threading.Event()
        parent = os.getpid()
        def factory():
            if os.getpid() == parent:
                started.set()
                go_on.wait()
            return [1]
        p = Proxy(factory)
        waiting = [threading.Thread(target=lambda: len(p)) for _ in range(3)]
        for thread in waiting: thread.start()
        started.wait()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                again = [threading.Thread(target=lambda: len(p)) for _ in range(3)]
                for thread in again: thread.start()
                for thread in again: thread.join()
                os._exit(0 if p == [1] else 1)
            assert os.waitpid(child, 0)[1] == 0
        go_on.set()
        for thread in waiting: thread.join()
        print(len(p))
    """
    assert run_script(code) == "1"


def test_fork_within_a_factory() -> None:
    code = """
        import os, signal
        from proxystore_rs.proxy import Proxy
        def factory():
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                return "child"
            assert os.waitpid(child, 0)[1] == 0
            return "parent"
        p = Proxy(factory)
        text = str(p)
        assert str(p) == text
        if text == "child": os._exit(0)
        print(text)
    """
    assert run_script(code) == "parent"


def test_a_waiting_thread_handles_signals() -> None:
    started, go_on = threading.Event(), threading.Event()

    def factory() -> list[int]:
        started.set()
        go_on.wait()
        return [1]

    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    p = Proxy(factory)
    resolving = threading.Thread(target=lambda: len(p))
    resolving.start()
    started.wait()
    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(Interrupted):
            len(p)
    finally:
        signal.signal(signal.SIGUSR1, previous)
        go_on.set()
        resolving.join()
    assert len(p) == 1


def test_interrupted_factory_can_be_called_again() -> None:
    outcomes: list[Any] = [KeyboardInterrupt, "value"]

    def factory() -> Any:
        outcome = outcomes.pop(0)
        if outcome is KeyboardInterrupt:
            raise outcome
        return outcome

    p = Proxy(factory)
    with pytest.raises(KeyboardInterrupt):
        str(p)
    assert str(p) == "value"
