"""A client that stores, reads and removes objects at an endpoint until it is killed.

    client.py NAME BOARD NUMBER LARGEST

NAME is an endpoint of `$PROXYSTORE_HOME`. BOARD is a folder with a file for each object that is stored: its key and its hash, for
the clients of all sites. The client owns the files that begin with NUMBER, also those of an earlier one that was killed. It prints a
line for whatever it did: `put SIZE`, `get SIZE`, `wrong FILE` (other bytes than were stored), `lost FILE` (no bytes, although nobody
removed them), `error TYPE TEXT`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import time
from pathlib import Path

from proxystore_rs.connectors.endpoint import EndpointConnector, EndpointKey
from proxystore_rs.exceptions import ChannelError

MOST = 8
"""How many objects a client has at once."""


class Client:
    """One of the clients."""

    def __init__(self, name: str, board: Path, number: str, largest: int) -> None:
        self.connector = EndpointConnector([name], timeout=20)
        self.board, self.number, self.largest = board, number, largest
        self.own = sorted(board.glob(f"{number}-*.json"))

    def step(self) -> None:
        """Do one thing, at random."""
        if random.random() < 0.4:
            self.put()
        else:
            self.get()

    def put(self) -> None:
        """Store an object, and remove the oldest of too many."""
        size = int(self.largest ** random.random())
        body = random.randbytes(size)
        key = self.connector.put(body)
        file = self.board / f"{self.number}-{time.time_ns()}.json"
        draft = file.with_suffix(".new")
        draft.write_text(json.dumps([list(key), hashlib.sha256(body).hexdigest()]))
        draft.rename(file)
        self.own.append(file)
        print("put", size, flush=True)
        if len(self.own) > MOST:
            oldest = self.own.pop(0)
            key, _ = read(oldest)
            oldest.unlink()  # first, so that nobody misses the object
            self.connector.evict(key)

    def get(self) -> None:
        """Read an object that anybody stored."""
        files = [name for name in os.listdir(self.board) if name.endswith(".json")]
        if not files:
            return
        file = self.board / random.choice(files)
        try:
            key, digest = read(file)
        except FileNotFoundError:  # removed meanwhile
            return
        found = self.connector.get(key)
        if found is None:
            if file.exists():
                print("lost", file.name, flush=True)
        elif hashlib.sha256(found).hexdigest() != digest:
            print("wrong", file.name, flush=True)
        else:
            print("get", len(found), flush=True)


def read(file: Path) -> tuple[EndpointKey, str]:
    key, digest = json.loads(file.read_text())
    return EndpointKey(*key), digest


def main(name: str, board: str, number: str, largest: str) -> None:
    client: Client | None = None
    while True:
        try:
            client = client or Client(name, Path(board), number, int(largest))
            client.step()
        except ChannelError as error:
            print("error", type(error).__name__, str(error).replace("\n", " "), flush=True)
            time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
