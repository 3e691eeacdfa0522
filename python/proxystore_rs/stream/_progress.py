"""A line on a terminal that tells how far a stream is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxystore_rs.stream.dispatch import Counts

__all__ = ["Line"]


class Line:
    """Counts and rates in one line, written over and over; nothing where there is no terminal."""

    every = 0.2
    """Seconds between two looks."""

    def __init__(self) -> None:
        self._out = sys.stderr
        self._is_live = self._out.isatty()
        self._shown = self._rated = time.monotonic()
        self._done = 0
        self._rate = 0.0

    def show(self, counts: Counts) -> None:
        """Show the counts, if the last ones were shown a while ago."""
        if self._is_live and time.monotonic() - self._shown >= self.every:
            self._write(counts)

    def end(self, counts: Counts) -> None:
        """Show the last counts, and leave the line."""
        if self._is_live:
            self._write(counts)
            print(file=self._out, flush=True)

    def _write(self, counts: Counts) -> None:
        self._shown = now = time.monotonic()
        over = counts.done + counts.skipped
        if now - self._rated >= 1:
            self._rate = (over - self._done) / (now - self._rated)
            self._rated, self._done = now, over
        parts = [f"{counts.done} done", f"{counts.in_flight} in flight", f"{self._rate:.1f}/s"]
        parts += [f"{counts.retries} retries"] if counts.retries else []
        parts += [f"{counts.skipped} skipped"] if counts.skipped else []
        # What is written over may have been longer.
        print("\r" + ", ".join(parts) + "\x1b[K", end="", file=self._out, flush=True)
