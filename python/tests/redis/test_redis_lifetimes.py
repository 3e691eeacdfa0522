"""Leases end on the server."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis_server import RedisServer


def test_a_killed_process_leaks_nothing(redis: RedisServer) -> None:
    command = [sys.executable, Path(__file__).parents[1] / "leased.py", redis.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    end = time.monotonic() + 30
    while redis.keys() > 0:
        assert time.monotonic() < end, "the objects of a killed process stay"
        time.sleep(0.01)
