"""The part of `make soak` about streams runs, and some seconds of it find nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from redis_server import need_redis

ROOT = Path(__file__).resolve().parents[3]


def test_some_seconds_of_soaking_find_nothing(tmp_path: Path) -> None:
    need_redis()
    output = tmp_path / "soak.md"
    script = ROOT / "bench" / "soak" / "streams.py"
    command = [sys.executable, script, "--minutes", "0.1", "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every event came" in output.read_text()
