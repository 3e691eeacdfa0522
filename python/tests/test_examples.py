"""The examples run, small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ARGUMENTS = {
    "futures_pipeline.py": [["--tasks", "3", "--start-up", "0.05", "--compute", "0.02"]],
    "image_pipeline.py": [
        ["--exposures", "3", "--size", "256", "--repeat", "1", "--largest", "100000"],
        ["--exposures", "3", "--size", "256", "--repeat", "1", "--start-method", "spawn"],
    ],
}
RUNS = [
    (path.name, arguments)
    for path in sorted(EXAMPLES.glob("*.py"))
    for arguments in ARGUMENTS.get(path.name, [[]])
]


@pytest.mark.parametrize(("name", "arguments"), RUNS)
def test_example(name: str, arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr


def test_wrong_options_are_explained(tmp_path: Path) -> None:
    program = [sys.executable, EXAMPLES / "image_pipeline.py", "--size", "100"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--size must be a multiple of 64, not 100" in done.stderr
