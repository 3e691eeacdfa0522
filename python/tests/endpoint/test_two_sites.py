"""Two sites on one machine: what is made at one is used at the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def test_the_example_crosses_sites(endpoint_binary: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "two_sites.py", "--largest", "10000000"],
        env=os.environ | {"PROXYSTORE_BINARY": str(endpoint_binary), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert re.search("direct|relayed", done.stdout.splitlines()[0]), done.stdout
    assert "10,000,000" in done.stdout
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"


def test_the_example_says_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "two_sites.py"],
        env=os.environ | {"PROXYSTORE_BINARY": str(tmp_path / "absent")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "two_sites: $PROXYSTORE_BINARY names" in done.stderr and "Traceback" not in done.stderr
