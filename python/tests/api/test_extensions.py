"""`ex` is the package of extensions, or says how to get it; `dim` says where its modules went."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60
    )


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path) -> None:
    done = run("import proxystore_rs.ex", tmp_path)
    assert "ImportError: proxystore_rs.ex is the package proxystore_ex" in done.stderr
    assert "pip install proxystore-ex" in done.stderr


def test_with_it_the_modules_are_the_same(tmp_path: Path) -> None:
    package = tmp_path / "proxystore_ex" / "connectors"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("answer = 42\n")
    (package / "__init__.py").touch()
    (package / "daos.py").write_text("class DAOSConnector: ...\n")
    code = (
        "from proxystore_rs.ex import answer\n"
        "from proxystore_rs.ex.connectors.daos import DAOSConnector as a\n"
        "from proxystore_ex.connectors.daos import DAOSConnector as b\n"
        "import proxystore_ex, proxystore_rs.ex\n"
        "assert a is b and proxystore_rs.ex is proxystore_ex and answer == 42\n"
    )
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_dim_warns_of_having_moved(tmp_path: Path) -> None:
    done = run("import proxystore_rs.connectors.dim", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "UserWarning: The connectors for distributed memory" in done.stderr
    assert "proxystore_ex.connectors.dim" in done.stderr
