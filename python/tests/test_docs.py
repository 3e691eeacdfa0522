"""Every `python` block of the pages runs.

Each page runs in a process of its own, as a script: its blocks in order, in one namespace. A
block under the comment `<!-- not run: REASON -->` is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^(?P<skip><!-- not run: .+? -->\n+)?"
    r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


def script(text: str) -> str:
    """The blocks of a page as one program whose line numbers are those of the page."""
    lines = [""] * (text.count("\n") + 1)
    for found in BLOCK.finditer(text):
        if found["skip"]:
            continue
        first = text.count("\n", 0, found.start("code"))
        for number, line in enumerate(found["code"].splitlines()):
            lines[first + number] = line.removeprefix(found["indent"])
    return "\n".join(lines) + "\n"


def test_blocks_are_found_and_skipped() -> None:
    page = "a\n```python\nx = 1\n```\n<!-- not run: slow -->\n```python\nx = 2\n```\n"
    assert script(page).split() == ["x", "=", "1"]
    assert script(page).splitlines()[2] == "x = 1"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, tmp_path: Path) -> None:
    code = script(page.read_text())
    if not code.strip():
        pytest.skip("no code blocks")
    # A real file: process pools import it, tracebacks quote it.
    program = tmp_path / f"{page.stem.replace('-', '_').lower()}_page.py"
    program.write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    message = f"{page.relative_to(ROOT)} (line numbers are those of the page)\n{done.stderr}"
    assert done.returncode == 0, message
    assert "Traceback" not in done.stderr, message
