"""Stores objects at an endpoint for ever, and keeps a record of those that were acknowledged.

    load_writer.py DIRECTORY NUMBER     DIRECTORY is the endpoint's; prints `ID SHA256` for each object

When the daemon is not there, it tries again. The program that tests of killed daemons start several times.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import sys
import time
from pathlib import Path

from raw_client import DONE, RawClient

SIZES = (1, 100, 5_000, 70_000, 300_000, 1_500_000)


def main(directory: Path, number: str) -> None:
    chance = random.Random(number)
    client: RawClient | None = None
    for count in itertools.count():
        body = chance.randbytes(chance.randint(1, chance.choice(SIZES)))
        name = f"load.{number}-{count}"
        try:
            client = client or RawClient(directory)
            answer = client.put(name, body)
        except OSError:
            if client is not None:
                client.close()
            client = None
            time.sleep(0.02)
            continue
        assert answer.kind == DONE, answer
        print(name, hashlib.sha256(body).hexdigest(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
