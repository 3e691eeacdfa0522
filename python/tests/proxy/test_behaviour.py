"""What a proxy does besides forwarding: its names, its defaults, what travels, what never resolves."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import subprocess
import sys
import types
import weakref
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Self

import cloudpickle
import numpy as np
import pytest

from proxystore_rs.factory import Factory, LambdaFactory, SimpleFactory
from proxystore_rs.proxy import (
    Proxy,
    ProxyLocker,
    ProxyOr,
    ProxyResolveError,
    UnwantedResolveError,
    extract,
    get_factory,
    is_resolved,
    no_resolve,
    resolve,
)


class Thing:
    """A thing."""

    def __init__(self) -> None:
        self.x = 1


def thing() -> Thing:
    return Thing()


def numbers() -> list[int]:
    return [1, 2, 3]


def fails() -> Any:
    raise KeyError("gone")


class Awkward(Exception):
    """Pickles, but does not unpickle."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__("awkward")


def fails_awkwardly() -> Any:
    raise Awkward(1, 2)


def test_names() -> None:
    p = Proxy(numbers)
    assert p.__proxy_factory__ is numbers
    assert p.__proxy_resolved__ is False
    with pytest.raises(AttributeError):
        p.__proxy_target__  # noqa: B018
    assert not is_resolved(p)
    assert p.__proxy_wrapped__ == [1, 2, 3]
    assert p.__proxy_target__ is p.__proxy_wrapped__
    assert p.__proxy_resolved__ is True
    for old in ("__factory__", "__target__", "__resolved__", "__wrapped__"):
        assert not hasattr(p, old)
    for name in ("__proxy_factory__", "__proxy_resolved__", "__proxy_wrapped__"):
        assert object.__getattribute__(p, name) == getattr(p, name)


def test_wrapped_can_be_set_and_deleted() -> None:
    p = Proxy.__new__(Proxy)
    p.__proxy_wrapped__ = [1]
    assert p == [1]
    q = Proxy(numbers, target=["preset"])
    assert q[0] == "preset"
    del q.__proxy_wrapped__
    assert not is_resolved(q)
    assert q == [1, 2, 3]


def test_factory_can_be_replaced_and_missing() -> None:
    p = Proxy(fails)
    p.__proxy_factory__ = numbers
    assert len(p) == 3
    for lost in (Proxy.__new__(Proxy), Proxy(numbers), Proxy(numbers)):
        lost.__proxy_factory__ = None
        with pytest.raises(ProxyResolveError, match="not initialized"):
            len(lost)
        del lost.__proxy_factory__
        with pytest.raises(ProxyResolveError, match="__proxy_factory__ is missing"):
            len(lost)
        with pytest.raises(ProxyResolveError):
            pickle.dumps(lost)
        assert "<missing>" in repr(lost)


def test_constructor() -> None:
    with pytest.raises(TypeError, match="callable"):
        Proxy(3)  # type: ignore[arg-type]
    for arguments in ((), (len, 1)):
        with pytest.raises(TypeError):
            Proxy(*arguments)  # type: ignore[arg-type]
    assert not is_resolved(Proxy(numbers, target=None))
    assert Proxy(numbers, cache_defaults=True).__proxy_default_class__ is None
    p = Proxy(factory=numbers, cache_defaults=True, target=5)
    assert p.__proxy_default_class__ is int
    assert p.__proxy_default_hash__ == 5
    assert type(Proxy(dict, cache_defaults=True, target={}).__proxy_default_hash__) is TypeError


def test_failing_factory() -> None:
    calls: list[int] = []

    def flaky() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise LookupError("not yet")
        return 7

    p = Proxy(flaky)
    for _ in range(2):
        with pytest.raises(ProxyResolveError) as caught:
            hasattr(p, "x")
        assert isinstance(caught.value.cause, LookupError)
        assert caught.value.__cause__ is caught.value.cause
        assert not is_resolved(p)
    assert p + 1 == 8
    swallowed = (AttributeError, LookupError, TypeError, StopIteration)
    assert not issubclass(ProxyResolveError, swallowed)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_only_exceptions_are_wrapped(error: type[BaseException]) -> None:
    def stop() -> Any:
        raise error

    with pytest.raises(error):
        len(Proxy(stop))


def test_recursive_factory() -> None:
    p: Proxy[Any] = Proxy(lambda: len(p))
    with pytest.raises(ProxyResolveError) as caught:
        len(p)
    assert isinstance(caught.value.cause, ProxyResolveError)
    assert isinstance(caught.value.cause.cause, RecursionError)


def test_isinstance() -> None:
    p = Proxy(numbers)
    assert isinstance(p, Proxy)
    assert not is_resolved(p)
    assert isinstance(p, list)
    assert is_resolved(p)
    q = pickle.loads(pickle.dumps(Proxy(numbers, cache_defaults=True, target=[])))
    assert isinstance(q, list)
    assert not is_resolved(q)
    q.__proxy_wrapped__ = "text"
    assert isinstance(q, str)


def test_class_by_name() -> None:
    p = Proxy(numbers)
    p.__proxy_default_class__ = "builtins:list"
    assert p.__proxy_default_class__ is list
    assert isinstance(p, list)
    q = pickle.loads(pickle.dumps(p))
    assert q.__reduce__()[1] == (numbers, "builtins:list")
    assert cloudpickle.loads(cloudpickle.dumps(q)) == [1, 2, 3]
    assert not is_resolved(p)
    assert not is_resolved(q)
    nested = Proxy(numbers)
    nested.__proxy_default_class__ = f"{__name__}:Outer.Inner"
    assert nested.__class__ is Outer.Inner
    assert not is_resolved(nested)


class Outer:
    class Inner:
        pass


@pytest.mark.parametrize(
    "name", ["wsgiref.validate:validator", "builtins:nothing", "builtins:len", "no colon", ":", ""]
)
def test_class_by_name_never_imports(name: str) -> None:
    p = Proxy(numbers)
    p.__proxy_default_class__ = name
    assert p.__proxy_default_class__ is None
    assert not is_resolved(p)
    assert p.__class__ is list
    assert "wsgiref.validate" not in sys.modules


def test_default_hash() -> None:
    p = Proxy(lambda: 5, cache_defaults=True, target=5)
    q = pickle.loads(pickle.dumps(Proxy(numbers, cache_defaults=True, target=5)))
    assert hash(q) == hash(p) == hash(5)
    assert not is_resolved(q)
    r = pickle.loads(pickle.dumps(Proxy(numbers, cache_defaults=True, target=[])))
    for _ in range(2):
        with pytest.raises(TypeError, match="unhashable"):
            hash(r)
    assert not is_resolved(r)


@pytest.mark.parametrize("value", ["text", b"bytes", ("a", 1), frozenset("a"), float("nan")])
def test_hash_of_this_process_does_not_travel(value: Any) -> None:
    p = Proxy(LambdaFactory(type(value), value), cache_defaults=True, target=value)
    del p.__proxy_wrapped__
    assert p.__proxy_default_hash__ == hash(value)
    q = pickle.loads(pickle.dumps(p))
    assert q.__proxy_default_hash__ is None
    assert q.__proxy_default_class__ is type(value)


def test_hash_agrees_in_another_process() -> None:
    p = Proxy(SimpleFactory("abc"), cache_defaults=True, target="abc")
    code = (
        "import pickle, sys; p = pickle.load(sys.stdin.buffer);"
        "assert hash(p) == hash('abc') and 'abc' in {p: 1} and {p: 1}[p] == 1"
    )
    for seed in "12":
        environment = {"PYTHONHASHSEED": seed}
        subprocess.run(
            [sys.executable, "-c", code], input=pickle.dumps(p), env=environment, check=True
        )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(protocol: int) -> None:
    for p in (Proxy(numbers), Proxy(numbers, target=[0])):
        data = pickle.dumps(p, protocol)
        q = pickle.loads(data)
        assert type(q) is Proxy
        assert not is_resolved(q)
        assert q == [1, 2, 3]
        if protocol > 1:
            assert sys.getsizeof(data) < 200


def test_copy_and_deepcopy() -> None:
    factory = SimpleFactory([1])
    p = Proxy(factory, target=[2])
    shallow, deep = copy.copy(p), copy.deepcopy(p)
    assert type(shallow) is type(deep) is Proxy
    assert shallow.__proxy_factory__ is factory
    assert deep.__proxy_factory__ is not factory
    assert not is_resolved(shallow)
    assert not is_resolved(deep)


def test_errors_survive_pickling() -> None:
    for factory in (fails, fails_awkwardly):
        with pytest.raises(ProxyResolveError) as caught:
            len(Proxy(factory))
        again = pickle.loads(pickle.dumps(caught.value))
        assert type(again) is ProxyResolveError
        assert again.args == caught.value.args
        assert again.__cause__ is again.cause
    assert "Awkward" in str(again.cause)
    with no_resolve(), pytest.raises(UnwantedResolveError) as unwanted:
        len(Proxy(numbers))
    again = pickle.loads(pickle.dumps(unwanted.value))
    assert type(again) is UnwantedResolveError
    assert again.stack == unwanted.value.stack


def use(p: Any) -> int:
    return len(p)


def test_error_in_a_worker_does_not_break_the_pool() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for factory in (fails, fails_awkwardly):
            with pytest.raises(ProxyResolveError):
                pool.submit(use, Proxy(factory)).result()
        assert pool.submit(use, Proxy(numbers)).result() == 3


def test_repr() -> None:
    p = Proxy(numbers)
    assert repr(p) == f"<Proxy at {id(p):#x} with factory {numbers!r}>"
    resolve(p)
    target = f"[1, 2, 3] at {id(extract(p)):#x}"
    assert repr(p) == f"<Proxy at {id(p):#x} wrapping {target} with factory {numbers!r}>"
    assert f"{Proxy(lambda: 3.14159):.2f}" == "3.14"


def test_class_attributes() -> None:
    assert Proxy.__module__ == "proxystore_rs.proxy"
    assert Proxy.__qualname__ == "Proxy"
    assert Proxy.__doc__ is not None
    assert "stand-in" in Proxy.__doc__

    class Sub(Proxy[Any]):
        """A subclass."""

        note = "of the class"

    for kind in (Proxy, Sub):
        p = kind(thing)
        assert p.__module__ == __name__
        assert p.__doc__ == "A thing."
        assert p.__dict__ == {"x": 1}
        p.__doc__ = p.__module__ = "new"
        assert p.__doc__ == extract(p).__doc__ == extract(p).__module__ == "new"
    assert Sub.__doc__ == "A subclass."
    p = Sub(thing)
    p.note = "of the proxy"
    p.x = 2
    assert not hasattr(extract(p), "note")
    assert extract(p).x == 2
    assert object.__getattribute__(p, "__dict__") == {"note": "of the proxy"}
    del p.note
    assert p.note == "of the class"


def test_weak_references() -> None:
    p = Proxy(thing)
    reference = weakref.ref(p)
    assert reference() is p
    assert p.__weakref__ is None
    del p
    gc.collect()
    assert reference() is None


def test_subclass_hooks() -> None:
    class Plain(Proxy[Any]):
        __class__ = object.__dict__["__class__"]  # type: ignore[assignment]

    p = Plain(numbers)
    assert p.__class__ is Plain
    assert not is_resolved(p)

    class Own(Proxy[Any]):
        def __new__(cls, *args: Any) -> Self:
            self = super().__new__(cls)
            object.__setattr__(self, "label", "mine")
            return self

        def __getattr__(self, name: str) -> Any:
            return f"own {name}"

    q = Own(numbers)
    assert q.label == "mine"
    assert q.anything == "own anything"
    assert not is_resolved(q)
    object.__delattr__(q, "label")
    assert q.label == "own label"

    class Method(Proxy[Any]):
        def __len__(self) -> int:
            return 99

        @property
        def twice(self) -> Any:
            return self.__proxy_wrapped__ * 2

    r = Method(numbers)
    assert len(r) == 99
    assert r.twice == [1, 2, 3, 1, 2, 3]
    assert type(pickle.loads(pickle.dumps(r))) is Proxy
    assert type(copy.copy(r)) is Proxy


class Reduced(Proxy[Any]):
    def __reduce__(self) -> Any:
        return Reduced, (self.__proxy_factory__,)


def test_subclass_reduce() -> None:
    p = pickle.loads(pickle.dumps(Reduced(numbers)))
    assert type(p) is Reduced
    assert not is_resolved(p)


def test_attributes_of_the_proxy_itself() -> None:
    p = Proxy(thing)
    object.__setattr__(p, "note", 1)
    assert p.note == 1
    assert not is_resolved(p)
    assert not hasattr(extract(p), "note")
    object.__setattr__(p, "__proxy_factory__", numbers)
    assert get_factory(p) is numbers


def test_generic() -> None:
    assert isinstance(Proxy[int], types.GenericAlias)
    p = Proxy[list[int]](numbers)
    assert not is_resolved(p)
    assert ProxyOr[int] is not None

    class Sub(Proxy[int]):
        pass

    assert Sub(lambda: 5) + 1 == 6


PROBES = [
    "__dask_graph__",
    "_repr_html_",
    "_repr_mimebundle_",
    "_ipython_display_",
    "_ipython_canary_method_should_not_exist_",
]


@pytest.mark.parametrize("name", PROBES)
def test_probes_do_not_resolve(name: str) -> None:
    target = types.SimpleNamespace(**{name: "the target's"})
    p = Proxy(lambda: target)
    assert not hasattr(p, name)
    assert not is_resolved(p)
    resolve(p)
    assert getattr(p, name) == "the target's"


def test_in_place_rebinds() -> None:
    p = q = Proxy(lambda: 5)
    p += 1
    p **= 2
    assert p is q
    assert extract(q) == 36
    target = np.ones(2)
    r = Proxy(lambda: target)
    r += 1
    assert extract(r) is target
    assert target.tolist() == [2, 2]


def test_index_falls_back_to_int() -> None:
    class OnlyInt:
        def __int__(self) -> int:
            return 1

    assert ["a", "b"][Proxy(OnlyInt)] == "b"
    with pytest.raises(TypeError):
        ["a", "b"][Proxy(lambda: 1.0)]  # type: ignore[call-overload]


def test_async() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 42

    @types.coroutine
    def old_style() -> Any:
        yield from asyncio.sleep(0).__await__()
        return 43

    async def run() -> Any:
        task = asyncio.ensure_future(work())
        return (
            await Proxy(work),
            await asyncio.gather(Proxy(work), Proxy(lambda: task)),
            await Proxy(old_style),
            await asyncio.create_task(Proxy(work)),
        )

    assert asyncio.run(run()) == (42, [42, 42], 43, 42)

    async def not_awaitable() -> Any:
        return await Proxy(lambda: iter([]))

    with pytest.raises(TypeError, match="await"):
        asyncio.run(not_awaitable())


def test_locker() -> None:
    p = Proxy(numbers)
    locker = ProxyLocker(p)
    with pytest.raises(AttributeError):
        locker._proxy  # noqa: B018
    locker.other = 1  # type: ignore[attr-defined]
    assert locker.other == 1  # type: ignore[attr-defined]
    assert locker.unlock() is p
    assert pickle.loads(pickle.dumps(locker)).unlock() == [1, 2, 3]
    assert not is_resolved(p)


def test_factories() -> None:
    assert SimpleFactory(1)() == 1
    assert LambdaFactory(pow, 2, 3)() == LambdaFactory(pow, 2, exp=3).resolve() == 8
    with pytest.raises(NotImplementedError):
        Factory()
    assert pickle.loads(pickle.dumps(Proxy(LambdaFactory(pow, 2, 3)))) == 8


def test_functions() -> None:
    p = Proxy(numbers)
    assert get_factory(p) is numbers
    assert not is_resolved(p)
    resolve(p)
    assert is_resolved(p)
    assert extract(p) is p.__proxy_target__


def test_long_chains_are_freed() -> None:
    p: Any = Proxy(numbers)
    for _ in range(200_000):
        p = Proxy(numbers, target=p)
    del p


def test_the_text_of_an_error_names_the_cause() -> None:
    from proxystore_rs.exceptions import ProxyStoreError

    def failing() -> None:
        raise OSError("the network is down")

    with pytest.raises(ProxyStoreError, match="OSError: the network is down") as caught:
        len(Proxy(failing))
    assert "OSError: the network is down" in str(pickle.loads(pickle.dumps(caught.value)))
