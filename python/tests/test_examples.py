"""The examples run, small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rust_programs import rust_example

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ARGUMENTS = {
    "futures_pipeline.py": [["--tasks", "3", "--start-up", "0.05", "--compute", "0.02"]],
    "image_pipeline.py": [
        ["--exposures", "3", "--size", "256", "--repeat", "1", "--largest", "100000"],
        ["--exposures", "3", "--size", "256", "--repeat", "1", "--start-method", "spawn"],
    ],
    "rust_worker.py": [
        ["--images", "5", "--size", "128", "--dtype", "uint16", "--worker", "image_worker"],
        ["--images", "2", "--size", "64", "--dtype", "float32", "--worker", "image_worker"],
    ],
    "stream_watch.py": [["--frames", "20", "--size", "64", "--workers", "1"]],
}
RUNS = [
    (path.name, arguments)
    for path in sorted(EXAMPLES.glob("*.py"))
    if path.name != "two_sites.py"  # with the endpoints: endpoint/test_endpoint_sites.py
    for arguments in ARGUMENTS.get(path.name, [[]])
]


def program(argument: str) -> str:
    """The path of a program in Rust where its name is an argument."""
    return str(rust_example(argument)) if argument == "image_worker" else argument


@pytest.mark.parametrize(("name", "arguments"), RUNS)
def test_example(name: str, arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(program, arguments)],
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


def test_the_end_of_a_worker_is_reported(tmp_path: Path) -> None:
    worker = tmp_path / "worker"
    worker.write_text("#!/bin/sh\necho image_worker: out of stars\n")
    worker.chmod(0o755)
    program = [sys.executable, EXAMPLES / "rust_worker.py", "--images", "3", "--size", "64"]
    program += ["--worker", worker]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "the worker ended. image_worker: out of stars" in done.stderr
    assert "Traceback" not in done.stderr
