"""What a forked child must not take over from its parent: locks, and what threads would do.

A child of `fork` inherits every lock in the state another thread left it, so an inherited lock may
be held by a thread that does not exist in the child.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that starts over in a forked child."""

    def _after_fork(self) -> None:
        """Replace the locks; called in the child, which has one thread by then."""


_all: weakref.WeakSet[Forkable] = weakref.WeakSet()


def start_over_after_fork(owner: Forkable) -> None:
    """Call `owner._after_fork()` in every forked child, as long as the owner lives."""
    _all.add(owner)


def _after_fork() -> None:
    for owner in list(_all):
        owner._after_fork()


os.register_at_fork(after_in_child=_after_fork)
