"""Factories: picklable callables that produce the target of a proxy.

Any callable without arguments will do as a factory; these are a base class and two simple ones.

    >>> from proxystore_rs.factory import LambdaFactory
    >>> from proxystore_rs.proxy import Proxy
    >>> p = Proxy(LambdaFactory(pow, 2, 10))
    >>> p + 1
    1025
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Factory", "LambdaFactory", "SimpleFactory"]

T = TypeVar("T")


class Factory(Generic[T], metaclass=ABCMeta):
    """Base class of factories: a call resolves. The factories of stores count as subclasses.

    >>> class Answer(Factory[int]):
    ...     def __init__(self) -> None:
    ...         pass
    ...
    ...     def resolve(self) -> int:
    ...         return 42
    >>> Answer()()
    42
    """

    def __init__(self) -> None:
        raise NotImplementedError("Factory is a base class: a subclass needs its own __init__")

    def __call__(self) -> T:
        """Return what `resolve` returns."""
        return self.resolve()

    def resolve(self) -> T:
        """Produce the object."""
        raise NotImplementedError(f"{type(self).__qualname__} does not define resolve()")


class SimpleFactory(Factory[T]):
    """Holds the object, so that it travels with the proxy.

    >>> SimpleFactory([1, 2])()
    [1, 2]
    """

    def __init__(self, obj: T) -> None:
        self._obj = obj

    def __repr__(self) -> str:
        return f"SimpleFactory({self._obj!r})"

    def resolve(self) -> T:
        """Return the object."""
        return self._obj


class LambdaFactory(Factory[T]):
    """Calls a function with fixed arguments.

    >>> LambdaFactory(sorted, [3, 1, 2], reverse=True)()
    [3, 2, 1]
    """

    def __init__(self, target: Callable[..., T], *args: Any, **kwargs: Any) -> None:
        self._target = target
        self._args = args
        self._kwargs = kwargs

    def __repr__(self) -> str:
        return f"LambdaFactory({self._target!r})"

    def resolve(self) -> T:
        """Return the function's result."""
        return self._target(*self._args, **self._kwargs)
