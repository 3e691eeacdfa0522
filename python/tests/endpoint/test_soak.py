"""`make soak` runs, and half a minute of it finds nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from endpoint_daemon import REPOSITORY


def test_half_a_minute_of_soaking_finds_nothing(endpoint_binary: Path, tmp_path: Path) -> None:
    output = tmp_path / "soak.md"
    script = REPOSITORY / "bench" / "soak" / "endpoint.py"
    command = [sys.executable, script, "--minutes", "0.5", "--output", output]
    command += ["--largest", "8000000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing lost" in output.read_text()
