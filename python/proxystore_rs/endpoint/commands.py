"""What the command `proxystore endpoint` does, as functions.

They run the program, log what it says, and return its exit status: 0 when all went well. Without
the program, they raise a FileNotFoundError that says how to get it.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os

from proxystore_rs.endpoint import _cards
from proxystore_rs.endpoint._binary import binary, run
from proxystore_rs.endpoint.config import ENDPOINT_CONFIG_FILE

__all__ = [
    "EndpointStatus",
    "binary",
    "configure_endpoint",
    "get_status",
    "list_endpoints",
    "remove_endpoint",
    "start_endpoint",
    "stop_endpoint",
]

logger = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds for a daemon to accept a connection


class EndpointStatus(enum.Enum):
    """State of an endpoint."""

    RUNNING = 1
    """Its daemon accepts clients."""
    STOPPED = 2
    """It is configured, and has no daemon."""
    UNKNOWN = 3
    """There is no endpoint of this name, or its configuration is gone."""
    HANGING = 4
    """It should run, and nobody answers: its daemon was killed, or cannot be reached from here."""


def _logged(arguments: list[str], home: str | None, given: str = "") -> int:
    level = logging.INFO

    def told(line: str) -> None:
        nonlocal level
        if line.startswith("error:"):
            level = logging.ERROR  # and what follows says more of it
        logger.log(level, "%s", line)

    return run(["endpoint", *arguments], home, told=told, given=given)


def configure_endpoint(
    name: str,
    *,
    host: str = "ip",
    peer_channels: int = 4,
    persist_data: bool = False,
    port: int | None = None,
    proxystore_dir: str | None = None,
    relay_auth: bool = True,
    relay_server: str | None = None,
    relay_fingerprint: str | None = None,
    invitation: str | None = None,
) -> int:
    """Make an endpoint: its directory, key pair, token and `config.toml`.

    Args:
        name: Letters, digits, `-` and `_`.
        host: Where clients on other hosts connect: `'ip'` (this host's address), `'fqdn'` (its
            name), an address, or `''` for nowhere.
        peer_channels: How many parts of a large object are fetched from a peer at once.
        persist_data: Objects are there after a restart.
        port: The TCP port for these clients; None for any free one.
        proxystore_dir: The directory below which the endpoint is made.
        relay_auth: Has no effect: a relay is shown the `token` of section `[relay]`.
        relay_server: URL of the relay where it meets its peers; None for no relay.
        relay_fingerprint: SHA-256 of the relay's certificate, which is then believed whoever
            signed it.
        invitation: What `proxystore endpoint invite` or `proxystore relay --invite` printed, which
            tells it its relay and its peers, in place of `relay_server`.
    """
    arguments = ["configure", name, "--streams", str(peer_channels)]
    if host:
        arguments += ["--host", host]
        arguments += ["--port", str(port)] if port else []
    if persist_data:
        arguments.append("--persist")
    if relay_server:
        arguments += ["--relay", relay_server.replace("wss://", "https://", 1)]
        arguments += ["--relay-fingerprint", relay_fingerprint] if relay_fingerprint else []
    if invitation:
        arguments.append("--join")
    return _logged(arguments, proxystore_dir, invitation or "")


def get_status(name: str, proxystore_dir: str | None = None) -> EndpointStatus:
    """Return the state of an endpoint, by asking whether its daemon accepts a connection.

    Args:
        name: Its name, UUID or id.
        proxystore_dir: The directory below which it is configured.
    """
    found = _cards.called(name, proxystore_dir)
    if found is None or not os.path.exists(os.path.join(found[0], ENDPOINT_CONFIG_FILE)):
        return EndpointStatus.UNKNOWN
    import socket

    _, card = found
    host = card.get("host")
    if host is None:
        return EndpointStatus.STOPPED
    with contextlib.suppress(OSError, ValueError):
        if host == socket.gethostname() and "socket" in card:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(_PATIENCE)
                client.connect(card["socket"])
            return EndpointStatus.RUNNING
        if "tcp" in card:
            address, _, port = card["tcp"].rpartition(":")
            place = address.strip("[]"), int(port)
            with socket.create_connection(place, timeout=_PATIENCE):
                return EndpointStatus.RUNNING
    return EndpointStatus.HANGING


def list_endpoints(*, proxystore_dir: str | None = None) -> int:
    """Log name, state and UUID of each endpoint of this site."""
    found = _cards.below(proxystore_dir)
    if not found:
        logger.info("No valid endpoint configurations.")
        return 0
    logger.info("%-18s %-8s %s", "NAME", "STATUS", "UUID")
    logger.info("=" * 64)
    for _, card in found:
        status = get_status(card["id"], proxystore_dir)
        logger.info("%-18s %-8s %s", card["name"], status.name, card["uuid"])
    return 0


def remove_endpoint(name: str, *, proxystore_dir: str | None = None) -> int:
    """Remove the directory of a stopped endpoint, its key pair and objects with it."""
    return _logged(["remove", name, "--yes"], proxystore_dir)


def start_endpoint(
    name: str,
    *,
    detach: bool = False,
    log_level: str | None = None,
    proxystore_dir: str | None = None,
) -> int:
    """Start the daemon of an endpoint.

    Args:
        name: Its name, UUID or id.
        detach: Whether to return once it accepts clients, and not when it ends.
        log_level: What it logs, `'debug'` for instance; None for what its `config.toml` says.
        proxystore_dir: The directory below which it is configured.
    """
    arguments = ["start", name, "--detach" if detach else "--no-detach"]
    if log_level is not None:
        arguments += ["--log-level", log_level.lower().replace("warning", "warn")]
    return _logged(arguments, proxystore_dir)


def stop_endpoint(name: str, *, proxystore_dir: str | None = None) -> int:
    """Stop the daemon of an endpoint, which finishes what it began; one that does not run is fine."""
    return _logged(["stop", name], proxystore_dir)
