"""A program in Rust that makes and uses objects as it is told (`examples/exchange/main.rs`)."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from proxystore_rs.proxy import Proxy


class RustError(Exception):
    """What the program could not do."""

    def __init__(self, answer: str) -> None:
        super().__init__(answer)
        self.kind = answer.split(" ")[0]


class Rust:
    """The program. Its commands and answers are lines; between them, it waits or works."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, *words: object) -> None:
        """Send a command, and do not wait for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        """The answer to the oldest command that has none yet."""
        assert self.process.stdout is not None
        outcome, _, text = self.process.stdout.readline().rstrip("\n").partition(" ")
        if outcome != "ok":
            raise RustError(text)
        return text

    def ask(self, *words: object) -> str:
        """Send a command and return its answer."""
        self.tell(*words)
        return self.answer()

    def make(self, kind: str, url: str, *options: str) -> Any:
        """A proxy of an object that is made there."""
        return Proxy.from_text(self.ask("make", kind, url, *options))

    def check(self, kind: str, proxy: Any) -> None:
        """Fail unless the program finds its own object of that name behind the proxy."""
        assert self.ask("check", kind, to_text(proxy)) == "same"

    def close(self) -> None:
        """Let it end by itself."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(60) == 0


def to_text(proxy: Any) -> str:
    """The reference of a proxy, an owner or a borrow."""
    return Proxy.to_text(proxy, secret=True)


def give_away(owner: Any) -> str:
    """The reference of an owner, who is no longer responsible for the object."""
    _, (_, factory, _) = owner.__reduce__()
    return to_text(Proxy(factory))
