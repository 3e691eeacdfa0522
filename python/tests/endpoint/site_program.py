"""A consumer at a site, told by lines of words; each is answered by a line.

hash REFERENCE          SHA-256 of the array behind a reference
set REFERENCE WORD      sets the future behind a reference
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

from proxystore_rs.proxy import Proxy, get_factory
from proxystore_rs.store.future import Future


def obey(command: str, text: str, *words: str) -> str:
    proxy: Any = Proxy.from_text(text)
    if command == "hash":
        return hashlib.sha256(proxy.tobytes()).hexdigest()
    future: Future[str] = Future(get_factory(proxy))  # type: ignore[arg-type]
    future.set_result(*words)
    return "done"


if __name__ == "__main__":
    for line in sys.stdin:
        try:
            print("ok", obey(*line.split()), flush=True)
        except Exception as error:
            print(type(error).__name__, str(error).replace("\n", " "), flush=True)
