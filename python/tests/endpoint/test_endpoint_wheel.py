"""What the wheel of endpoints installs: one program, and scripts that give it its other names."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "endpoint" / "data" / "scripts"


@pytest.fixture
def commands(endpoint_binary: Path, tmp_path: Path) -> Path:
    """The directory of an environment's commands, as pip fills it."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "proxystore").symlink_to(endpoint_binary)
    for script in SCRIPTS.iterdir():
        text = script.read_text().replace("#!python\n", f"#!{sys.executable}\n", 1)
        (commands / script.name).write_text(text)
        shutil.copymode(script, commands / script.name)
    return commands


def run(*command: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", ["proxystore", "proxystore-endpoint", "proxystore-relay"])
def test_every_name_is_a_command(commands: Path, tmp_path: Path, name: str) -> None:
    done = run(commands / name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: {name} " in done.stdout
    assert run(commands / name, "--no-such-option").returncode == 2
    (tmp_path / name).symlink_to(commands / name)  # as tools link the commands of environments
    assert f"Usage: {name} " in run(tmp_path / name, "--help").stdout


def test_without_the_program_a_script_says_what_helps(commands: Path) -> None:
    (commands / "proxystore").unlink()
    done = run(commands / "proxystore-endpoint", "list")
    assert done.returncode == 1
    assert "error: cannot run" in done.stderr and "remedy: pip install" in done.stderr
    assert "Traceback" not in done.stderr
