"""Wrong uses. A comment says who reports the line: mypy, mypy with the plugin, pyright."""

# ruff: noqa: B007, B018

from __future__ import annotations

from proxystore_rs.connectors.local import LocalConnector
from proxystore_rs.proxy import Proxy, extract, resolve
from proxystore_rs.store import Store


class Point:
    x: float = 0


def takes_text(text: str) -> None: ...


def double(number: int) -> str:
    return str(number * 2)


def never_called() -> None:
    store = Store("wrong", LocalConnector())
    point = store.proxy(Point())
    number = Proxy(lambda: 1)

    Proxy(3)  # wrong: mypy plugin pyright
    Proxy(lambda n: n)  # wrong: mypy plugin pyright
    Store("no connector")  # wrong: mypy plugin pyright
    store.proxy(1, evicted=3, evict="yes")  # wrong: mypy plugin pyright
    resolve(3)  # wrong: mypy plugin pyright
    takes_text(extract(number))  # wrong: mypy plugin pyright
    number(1)  # wrong: mypy plugin pyright
    Proxy(lambda: double)("text")  # wrong: mypy plugin pyright
    for item in number:  # wrong: mypy plugin pyright
        pass

    point.z  # wrong: plugin
    point.x.upper()  # wrong: plugin
    takes_text(point.x)  # wrong: plugin
    number[0]  # wrong: plugin
    -point  # wrong: plugin
    Proxy(lambda: [1])["text"]  # wrong: plugin
    Proxy(lambda: [1])[0] = "text"  # wrong: plugin
