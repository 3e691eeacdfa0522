"""Programs in Rust that tests talk to: the examples of the library."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@cache
def rust_example(name: str) -> Path:
    """The program, built unless `make test` has done so; skips the test where there is no cargo."""
    if shutil.which("cargo") is None:
        reason = "there is no cargo here to build the program in Rust; see CONTRIBUTING.md"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    # With the features of all crates, as `make test` builds it: nothing is built twice.
    build = ["cargo", "build", "--quiet", "--workspace", "--all-features", "--example", name]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return ROOT / target / "debug" / "examples" / name
