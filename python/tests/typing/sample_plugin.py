"""A typed program. It runs, and mypy agrees with it when it has the plugin (see test_typing.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict, assert_type

from proxystore_rs.connectors.memory import MemoryConnector
from proxystore_rs.proxy import Proxy, ProxyOr
from proxystore_rs.store import Store
from proxystore_rs.store.ref import mut_borrow


@dataclass
class Vector:
    x: float
    y: float

    def scaled(self, factor: float) -> Vector:
        return Vector(self.x * factor, self.y * factor)

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.x + other.x, self.y + other.y)

    def __rmul__(self, factor: float) -> Vector:
        return self.scaled(factor)

    def __neg__(self) -> Vector:
        return self.scaled(-1)

    def __lt__(self, other: Vector) -> bool:
        return self.x < other.x


class Row(TypedDict):
    name: str
    size: int


class Sub(Proxy[Vector]):
    """A proxy class of a program's own."""


def x_of(vector: ProxyOr[Vector]) -> float:
    assert_type(vector.x, float)
    return vector.x


def main() -> None:
    v = Proxy(lambda: Vector(1, 2))
    assert_type(v.x, float)
    assert_type(v.scaled(2), Vector)
    assert_type(v + Vector(1, 1), Vector)
    assert_type(v + v, Vector)
    assert_type(2 * v, Vector)
    assert_type(-v, Vector)
    assert_type(v < v, bool)
    assert_type(Sub(lambda: Vector(1, 2)).scaled(3).y, float)
    assert x_of(v) == x_of(Vector(1, 2)) == 1

    with Store("typed-plugin", MemoryConnector("typed-plugin")) as store:
        owner = store.owned_proxy(Vector(1, 2))
        assert_type(owner.x, float)
        assert_type(owner + v, Vector)
        exclusive = mut_borrow(owner)
        assert_type(exclusive.scaled(2), Vector)
        del exclusive, owner

    numbers = Proxy(lambda: [1, 2, 3])
    assert_type(numbers[0], int)
    assert_type(numbers[:2], list[int])
    assert_type(numbers + ["a"], list[int | str])  # noqa: RUF005
    assert_type(numbers * 2, list[int])
    numbers.append(4)
    numbers[0] = 5
    del numbers[1]

    pair = Proxy(lambda: (1, "a"))
    assert_type(pair[1], str)
    row = Proxy(lambda: Row(name="a", size=1))
    assert_type(row["size"], int)

    integer = Proxy(lambda: 7)
    assert_type(integer + 1, int)
    assert_type(integer / 2, float)
    assert_type(integer + 0.5, float)
    assert_type(2.5 + integer, float)
    assert_type(~integer, int)
    assert_type(integer.bit_length(), int)

    untyped: Proxy[Any] = Proxy(lambda: 7)
    assert_type(untyped.real, Any)
    assert_type(untyped + 1, Any)


if __name__ == "__main__":
    main()
