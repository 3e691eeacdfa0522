"""A Chromium without a window, told what to do over its debugging protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest
from websockets.sync.client import connect

PATIENCE = 60.0
"""Seconds; longer than a browser takes to start or to show something, on a busy machine too."""


def need_chromium() -> str:
    """Where it is; skips the test where it is not."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        reason = "there is no Chromium here; see scripts/servers"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Browser:
    """One page in a browser with a profile of its own."""

    def __init__(self, folder: Path, *, width: int = 1180, height: int = 900) -> None:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options += ["--no-first-run", "--disable-background-networking", "--disable-extensions"]
        options += ["--remote-debugging-port=0", f"--user-data-dir={folder}"]
        options += [f"--window-size={width},{height}", "about:blank"]
        with (folder / "output.txt").open("wb") as output:
            self._process = subprocess.Popen(
                [need_chromium(), *options], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._end = ExitStack()
        self._end.callback(self._process.wait)
        self._end.callback(self._process.kill)
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        """What it told unasked."""
        try:
            port, path = self._wait_for_port(folder / "DevToolsActivePort")
            address = f"ws://127.0.0.1:{port}{path}"
            connection = connect(
                address, open_timeout=PATIENCE, max_size=None, compression=None, proxy=None
            )
            self._socket = self._end.enter_context(connection)
            (target,) = (
                target
                for target in self.tell("Target.getTargets")["targetInfos"]
                if target["type"] == "page"
            )
            attached = self.tell("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.tell(f"{domain}.enable")
        except BaseException:
            self._end.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.close()

    def _wait_for_port(self, file: Path) -> tuple[str, str]:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            lines = file.read_text().splitlines() if file.exists() else []
            if len(lines) == 2:
                return lines[0], lines[1]
            time.sleep(0.02)
        raise RuntimeError(f"no browser starts: {(file.parent / 'output.txt').read_text()}")

    def tell(self, method: str, **params: Any) -> dict[str, Any]:
        """Have it do something, and tell the result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer: dict[str, Any] = json.loads(self._socket.recv(PATIENCE))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.tell("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_until(self, script: str) -> None:
        """Wait until an expression in the page is true."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate(script):
            if time.monotonic() > end:
                raise AssertionError(
                    f"not so: {script}\n{self.evaluate('document.body.innerText')}"
                )
            time.sleep(0.05)

    def told(self, method: str) -> list[dict[str, Any]]:
        """What it told of one kind so far."""
        self.evaluate("0")  # what was told before the answer is here then
        return [event["params"] for event in self.events if event["method"] == method]

    def screenshot(self) -> bytes:
        """The page as PNG."""
        return base64.b64decode(self.tell("Page.captureScreenshot", format="png")["data"])
