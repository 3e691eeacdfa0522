"""The interpreter ends at once and quietly, whatever is still going on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHANNELS = ("memory", "file", "shm")

BEGIN = """
import sys, threading, time
from proxystore_rs.proxy import resolve
from proxystore_rs.store import open_store
from proxystore_rs.store.lifetimes import ContextLifetime, LeaseLifetime
from proxystore_rs.store.ref import borrow
from proxystore_rs.store.utils import resolve_async
store = open_store(sys.argv[1])
"""

WAITED_FOR = """
future = store.future()
proxies = [future.proxy() for _ in range(3)]
for proxy in proxies:
    threading.Thread(target=resolve, args=(proxy,), daemon=True).start()
time.sleep(0.1)
"""

RENEWED = """
future = store.future(lease=0.03)
owner = store.owned_proxy([1], lease=0.03)
time.sleep(0.1)
"""

LIFETIMES = """
context, lease = ContextLifetime(store), LeaseLifetime(store, 3600)
proxies = [store.proxy([1], lifetime=lifetime) for lifetime in (context, lease)]
"""

IN_THE_BACKGROUND = """
proxies = [store.future().proxy() for _ in range(3)]
for proxy in proxies:
    resolve_async(proxy)
"""

IN_A_CYCLE = """
store.owner = store.owned_proxy([1, 2])
store.borrowed = [borrow(store.owner)]
store.borrowed.append(store.borrowed)
"""

ALL = WAITED_FOR + RENEWED + LIFETIMES + IN_THE_BACKGROUND + IN_A_CYCLE


def run(code: str, url: str) -> None:
    """Run a program, which has to end well and say nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGIN + code, url],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")


def url_of(channel: str, folder: Path) -> str:
    return f"file://{folder}" if channel == "file" else f"{channel}://test-exit-{folder.name}"


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize(
    "code",
    [WAITED_FOR, RENEWED, LIFETIMES, IN_THE_BACKGROUND, IN_A_CYCLE, ALL],
    ids=["waited for", "renewed", "lifetimes", "in the background", "in a cycle", "all"],
)
def test_the_interpreter_ends(code: str, channel: str, tmp_path: Path) -> None:
    run(code, url_of(channel, tmp_path))
    if channel == "file" and code is IN_A_CYCLE:
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
