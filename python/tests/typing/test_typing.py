"""What type checkers say of programs that use the package, and of the package's stubs.

`sample.py` is right for every checker, `sample_plugin.py` for mypy with the plugin. `wrong.py` is
wrong where a comment says so, and names the checkers that notice.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CHECKERS = ("mypy", "plugin", "pyright")


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=HERE,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )


def errors(checker: str, *files: str) -> dict[tuple[str, int], str]:
    """The first error of each line that has one."""
    if checker == "pyright":
        done = run("basedpyright", "--outputjson", "--pythonpath", sys.executable, "-p", ".")
        report = json.loads(done.stdout)["generalDiagnostics"]
        found = [
            (Path(item["file"]).name, item["range"]["start"]["line"] + 1, item["message"])
            for item in report
            if item["severity"] == "error"
        ]
    else:
        config = "plugin.toml" if checker == "plugin" else "plain.toml"
        # A cache each: what is cached with the plugin is of no use without it.
        cache = str(ROOT / ".mypy_cache" / f"tests-{checker}")
        done = run("mypy", "--config-file", config, "--cache-dir", cache, *files)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        lines = re.findall(r"^(.+?):(\d+): error: (.+)$", done.stdout, re.MULTILINE)
        found = [(name, int(line), message) for name, line, message in lines]
    result: dict[tuple[str, int], str] = {}
    for name, line, message in found:
        if name in files:
            result.setdefault((name, line), message)
    return result


def marked(checker: str, name: str) -> set[tuple[str, int]]:
    lines = enumerate((HERE / name).read_text().splitlines(), 1)
    marks = {number: line.partition("# wrong:")[2].split() for number, line in lines}
    assert {mark for line in marks.values() for mark in line} == set(CHECKERS)
    return {(name, number) for number, line in marks.items() if checker in line}


@pytest.mark.parametrize("checker", CHECKERS)
def test_right_uses_pass_and_wrong_ones_do_not(checker: str) -> None:
    right = ["sample.py", *(["sample_plugin.py"] if checker == "plugin" else [])]
    found = errors(checker, *right, "wrong.py")
    expected = marked(checker, "wrong.py")
    assert {place: found[place] for place in found.keys() - expected} == {}
    assert expected - found.keys() == set(), "wrong, and not noticed"


@pytest.mark.parametrize("name", ["sample.py", "sample_plugin.py"])
def test_the_right_programs_run(name: str) -> None:
    runpy.run_path(str(HERE / name), run_name="__main__")


def test_stubs_say_what_the_modules_are() -> None:
    done = run(
        *("mypy.stubtest", "proxystore_rs", "--concise"),
        *("--mypy-config-file", str(ROOT / "pyproject.toml")),
        *("--allowlist", "stubtest-allowed.txt"),
        *(["--ignore-unused-allowlist"] if sys.version_info >= (3, 12) else []),
        MYPYPATH=str(ROOT / "python"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
