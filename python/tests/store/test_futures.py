"""Futures: waiting, failing, cancelling, travelling, on every channel."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from proxystore_rs.exceptions import (
    FutureAbandonedError,
    FutureCancelledError,
    FutureFailedError,
    FutureTimeoutError,
    UnsupportedOperationError,
)
from proxystore_rs.proxy import Proxy, ProxyResolveError, get_factory, is_resolved, resolve
from proxystore_rs.store import Store, get_store
from proxystore_rs.store.exceptions import ProxyResolveMissingKeyError
from proxystore_rs.store.factory import PollingStoreFactory
from proxystore_rs.store.future import Future
from proxystore_rs.store.utils import get_key, resolve_async


class OwnError(Exception):
    """With a constructor of its own."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code

    def __reduce__(self) -> Any:
        return OwnError, (self.code,)


def test_explicit_use(store: Store[Any]) -> None:
    future: Future[list[int]] = store.future()
    assert not future.done()
    future.set_result([1, 2])
    assert future.done()
    assert future.result() == [1, 2]
    assert future.exception() is None
    future.set_result([3])  # the last one counts
    assert future.result(timeout=60) == [3]


def test_consumers_may_start_first(store: Store[Any]) -> None:
    future: Future[str] = store.future()
    proxies = [future.proxy() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        lengths = [pool.submit(len, proxy) for proxy in proxies]
        future.set_result("abc")
        assert [length.result() for length in lengths] == [3] * 4


def test_a_proxy_is_lazy_and_names_its_key(store: Store[Any]) -> None:
    future: Future[str] = store.future()
    proxy = future.proxy()
    assert not is_resolved(proxy)
    assert isinstance(get_factory(proxy), PollingStoreFactory)
    sent = pickle.loads(pickle.dumps(proxy))
    assert type(sent) is Proxy and isinstance(get_factory(sent), PollingStoreFactory)
    assert get_key(sent) == get_key(proxy)
    assert get_store(sent) is store
    future.set_result("x")
    assert sent == "x"


def test_late_results(store: Store[Any]) -> None:
    future: Future[str] = store.future(polling_timeout=0.02)
    proxy = future.proxy()
    with pytest.raises(ProxyResolveError, match="not set in time") as caught:
        resolve(proxy)
    assert isinstance(caught.value.cause, FutureTimeoutError)
    with pytest.raises(TimeoutError):
        future.result()
    with pytest.raises(ProxyResolveMissingKeyError):
        future.result(timeout=0)
    future.set_result("late")
    assert proxy == "late"


def test_exceptions_keep_their_type(store: Store[Any]) -> None:
    future: Future[str] = store.future()
    proxy = future.proxy()
    future.set_exception(OwnError(7))
    assert future.done() and not future.cancelled()
    with pytest.raises(OwnError, match="code 7"):
        future.result()
    error = future.exception()
    assert isinstance(error, OwnError) and error.code == 7
    with pytest.raises(ProxyResolveError) as caught:
        str(proxy)
    assert isinstance(caught.value.cause, OwnError)


def test_an_exception_that_cannot_travel_keeps_its_text(store: Store[Any]) -> None:
    class LocalError(Exception):
        pass

    future: Future[str] = store.future()
    future.set_exception(LocalError("only here"))
    with pytest.raises(FutureFailedError, match=r"LocalError.*only here"):
        future.result()


def test_cancelling(store: Store[Any]) -> None:
    future: Future[str] = store.future()
    proxy = future.proxy()
    assert future.cancel() and future.cancelled() and future.cancel()
    with pytest.raises(FutureCancelledError):
        future.result()
    with pytest.raises(FutureCancelledError):
        future.exception()
    with pytest.raises(FutureCancelledError):
        future.set_result("x")
    with pytest.raises(ProxyResolveError, match="cancelled"):
        str(proxy)
    other: Future[str] = store.future()
    other.set_result("x")
    assert not other.cancel()
    assert other.result() == "x"


def test_evicting(store: Store[Any]) -> None:
    future: Future[str] = store.future(evict=True)
    future.set_result("once")
    assert future.result() == "once"
    assert not future.done()
    with pytest.raises(ProxyResolveMissingKeyError):
        future.result()  # known to be consumed: does not wait for ever


def test_serializers(store: Store[Any]) -> None:
    future: Future[str] = store.future(serializer=str.encode, deserializer=bytes.decode)
    proxy = pickle.loads(pickle.dumps(future.proxy()))
    pickle.loads(pickle.dumps(future)).set_result("text")
    assert proxy == "text"
    assert future.result() == "text"


def test_arguments_about_polling_are_accepted(store: Store[Any]) -> None:
    future: Future[str] = store.future(
        polling_interval=0.1, polling_backoff_factor=2, polling_interval_limit=1, polling_timeout=9
    )
    factory = get_factory(future.proxy())
    assert isinstance(factory, PollingStoreFactory)
    assert factory.polling_timeout == 9


def test_connectors_without_deferred_keys_say_so(make_store: Any) -> None:
    class Plain:
        """Has all of a connector but `new_key` and `set`."""

        def __init__(self) -> None:
            self.objects: dict[Any, Any] = {}

        put = get = exists = evict = lambda self, *_: None

        def config(self) -> dict[str, Any]:
            return {}

        def close(self) -> None:
            pass

    store = Store("plain", Plain())
    with pytest.raises(NotImplementedError, match="DeferrableConnector"):
        store.future()
    assert issubclass(UnsupportedOperationError, NotImplementedError)


def test_resolving_in_the_background_waits(store: Store[Any]) -> None:
    future: Future[str] = store.future()
    proxy = future.proxy()
    resolve_async(proxy)
    future.set_result("soon")
    assert proxy == "soon"


def _produce(future: Future[int]) -> None:
    future.set_result(os.getpid())


def _consume(proxy: Any) -> int:
    return int(proxy)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_ends_in_different_processes(shared_store: Store[Any], method: str) -> None:
    context = multiprocessing.get_context(method)
    future: Future[int] = shared_store.future()
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        consumed = pool.submit(_consume, future.proxy())
        pool.submit(_produce, future).result()
        assert consumed.result() == int(future.proxy()) != os.getpid()


_HOLD = """
import pickle, sys, time
future = pickle.loads(bytes.fromhex(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_a_dead_producer_is_noticed(shared_store: Store[Any]) -> None:
    future: Future[int] = shared_store.future(lease=0.4)
    proxy = future.proxy()
    command = [sys.executable, "-c", _HOLD, pickle.dumps(future).hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as producer:
        try:
            assert producer.stdout is not None and producer.stdout.readline() == "held\n"
            del future  # the child alone may set it now
            impatient: Any = Proxy(
                PollingStoreFactory(
                    get_key(proxy), shared_store.config(), polling_timeout=1.2, lease=0.4
                )
            )
            with pytest.raises(ProxyResolveError) as caught:
                resolve(impatient)
            assert isinstance(caught.value.cause, FutureTimeoutError)
        finally:
            producer.send_signal(signal.SIGKILL)
        with pytest.raises(ProxyResolveError) as caught:
            resolve(proxy)
        assert isinstance(caught.value.cause, FutureAbandonedError)


def test_a_lease_on_a_channel_without_is_refused(make_store: Any) -> None:
    with pytest.raises(UnsupportedOperationError, match="time to live"):
        make_store("local").future(lease=1)


def test_ctrl_c_ends_a_wait(shared_store: Store[Any]) -> None:
    proxy = shared_store.future().proxy()
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        resolve(proxy)
    timer.join()


def test_many_threads_and_futures(store: Store[Any]) -> None:
    futures: list[Future[int]] = [store.future() for _ in range(64)]
    proxies: list[Any] = [future.proxy() for future in futures]
    with ThreadPoolExecutor(16) as pool:
        sums = [pool.submit(lambda: sum(int(p) for p in proxies)) for _ in range(8)]
        for number, future in enumerate(futures):
            pool.submit(future.set_result, number)
        assert {total.result() for total in sums} == {sum(range(64))}
