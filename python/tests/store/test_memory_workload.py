"""What a workflow leaves in its store: the bench on it, small, without a look at its times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STAGE = 4 * (100_000 + 10_000)  # inputs and outputs of the mappers of one round
ALL = 4 * (STAGE + 1_000)
HEADERS = 1.05  # a stored object is a little longer than its array


def test_owners_free_what_a_careful_driver_frees(tmp_path: Path) -> None:
    bench = ROOT / "bench" / "python" / "memory.py"
    done = subprocess.run(
        [sys.executable, bench, "--quick", "--output", tmp_path],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = json.loads((tmp_path / "memory.json").read_text())
    (found,) = (value for key, value in numbers.items() if "all objects" in key)
    assert found["all objects"] == ALL

    assert found["owned"]["end"] == found["manual"]["end"] == found["no proxies"]["end"] == 0
    assert ALL < found["default"]["end"] < ALL * HEADERS
    assert found["default"]["peak"] == found["default"]["end"]
    # Samples may miss the top, but nothing is ever there beyond one round.
    for mode in ("manual", "owned"):
        assert found[mode]["peak"] < STAGE * HEADERS
