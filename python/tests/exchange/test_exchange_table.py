"""The tables of `docs/languages.md` name tests that exist, and leave no type out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from exchange_samples import ARRAYS, FRAMES, NEUTRAL, PACKED, TABLES

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[2] / "docs" / "languages.md"
CHANNELS = ("file", "shm", "redis")
COLUMNS = ("test_from_python", "test_from_rust")


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """The ids of the tests beside this file, without its folder."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=", HERE]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return {line.rpartition("/")[2] for line in done.stdout.splitlines() if "::" in line}


def cells(title: str) -> list[list[str]]:
    """The last two cells of each row of the table under a title."""
    _, _, section = PAGE.read_text().partition(f"\n## {title}\n")
    section, _, _ = section.partition("\n## ")
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 2
    return [row[-2:] for row in rows[2:]]


def test_every_cell_of_the_types_is_a_test(collected: set[str]) -> None:
    for row in cells("Types"):
        for test, cell in zip(COLUMNS, row, strict=True):
            names = re.findall(r"`\[(.+?)\]`", cell)
            assert names, row
            for name in names:
                function = test.replace("test", "test_data_frames") if name in FRAMES else test
                for channel in CHANNELS:
                    assert f"test_exchange_objects.py::{function}[{channel}-{name}]" in collected


def test_every_type_is_in_the_table() -> None:
    for column, _ in enumerate(COLUMNS):
        text = "".join(row[column] for row in cells("Types"))
        assert set(re.findall(r"`\[(.+?)\]`", text)) == {
            *NEUTRAL,
            *PACKED,
            *ARRAYS,
            *TABLES,
            *FRAMES,
        }


def test_every_cell_of_the_patterns_is_a_test(collected: set[str]) -> None:
    functions = {name.partition("[")[0] for name in collected}
    for row in cells("Patterns"):
        names = re.findall(r"`(.+?)`", "".join(row))
        assert names
        assert set(names) <= functions
