"""Programs in Rust that tests run: the commands and the examples of this repository."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@cache
def _build() -> Path:
    """Where the programs are, built unless `make test` has done so; skips the test without cargo."""
    if shutil.which("cargo") is None:
        reason = "there is no cargo here to build the program in Rust; see CONTRIBUTING.md"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    # Of all crates, with examples and all features, so that their dependencies have the features that
    # they have in `cargo test`: nothing is built twice.
    build = ["cargo", "build", "--quiet", "--workspace", "--all-features", "--bins", "--examples"]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug"


def rust_example(name: str) -> Path:
    """The program of an example."""
    return _build() / "examples" / name


def rust_command(name: str) -> Path:
    """The program of a command."""
    return _build() / name
