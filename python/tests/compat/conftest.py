"""An environment in which the compat distribution is installed, and the package to test is seen."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

import proxystore_rs

ROOT = Path(__file__).resolve().parents[3]

# They import `proxystore`, which this environment does not have.
collect_ignore = ["programs"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, as `make compat` builds it."""
    folder = tmp_path_factory.mktemp("dist")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", folder, ROOT / "python" / "compat"], check=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def install(wheel: Path) -> Callable[[Path], Path]:
    """A function that makes an environment with the distribution, and returns its interpreter."""

    def install(folder: Path) -> Path:
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120
        )
        python = folder / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
        subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True, timeout=120)
        packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
        seen = [str(Path(proxystore_rs.__file__).parents[1]), sysconfig.get_path("purelib")]
        (Path(packages) / "package-under-test.pth").write_text("\n".join(seen) + "\n")
        return python

    return install


@pytest.fixture(scope="session")
def python(
    install: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., str]:
    """A function that runs `python ARGUMENTS` there, and returns what it prints."""
    interpreter = install(tmp_path_factory.mktemp("environment") / "venv")

    def python(*arguments: str | Path, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [interpreter, "-W", "error", *arguments],
            cwd=cwd,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return python
