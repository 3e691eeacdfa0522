"""The directories of the endpoints of this site, and the card in each: how its daemon is reached."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from typing import Any

from proxystore_rs.utils.environment import home_dir

__all__ = ["below", "called", "read"]

CARD = "address.toml"
_DEPTH = 4  # of directories below the home, as the native code has it


def read(directory: str) -> dict[str, Any] | None:
    """Return the card in a directory; None when there is none, or it cannot be read."""
    try:
        with open(os.path.join(directory, CARD), "rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError):
        return None


def below(home: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Return the directories with their cards, in the order of the paths."""
    return sorted(_walk(home or home_dir(), _DEPTH), key=lambda found: found[0])


def _walk(directory: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    card = read(directory)
    if card is not None:
        yield directory, card  # what is below is the endpoint's own
        return
    try:
        inner = [entry.path for entry in os.scandir(directory) if entry.is_dir()] if depth else []
    except OSError:
        return
    for path in inner:
        yield from _walk(path, depth - 1)


def called(name: str, home: str | None = None) -> tuple[str, dict[str, Any]] | None:
    """Return directory and card of the endpoint of this name, UUID or id."""
    for directory, card in below(home):
        if name in (card.get("name"), card.get("uuid"), card.get("id")):
            return directory, card
    return None
