"""What an endpoint is told: the part of its `config.toml` that programs set.

An endpoint gets its directory, and the key pair that it is known by, from
[`configure_endpoint`][proxystore_rs.endpoint.commands.configure_endpoint] or `proxystore endpoint
configure`. These functions read and change the file afterwards; what they do not know in it stays.
"""

from __future__ import annotations

import logging
import os
import re
import tomllib
from typing import Any, ClassVar, Literal

from proxystore_rs.endpoint import _cards
from proxystore_rs.store import _model
from proxystore_rs.utils._toml import to_toml
from proxystore_rs.utils.data import readable_to_bytes

__all__ = [
    "ENDPOINT_CONFIG_FILE",
    "ENDPOINT_DATABASE_FILE",
    "ENDPOINT_LOG_FILE",
    "ENDPOINT_PID_FILE",
    "EndpointConfig",
    "EndpointRelayConfig",
    "EndpointStorageConfig",
    "get_configs",
    "get_log_filepath",
    "get_pid_filepath",
    "read_config",
    "validate_name",
    "write_config",
]

ENDPOINT_CONFIG_FILE = "config.toml"
"""What the endpoint is told."""
ENDPOINT_DATABASE_FILE = "objects"
"""The directory with objects on disk; there is no database."""
ENDPOINT_LOG_FILE = "log.txt"
"""What happened."""
ENDPOINT_PID_FILE = "daemon.pid"
"""The process of the daemon, and its lock."""

logger = logging.getLogger(__name__)


def _bytes(value: Any) -> int:
    if isinstance(value, str):
        try:
            return readable_to_bytes(value)
        except ValueError as error:
            raise _model.Unfit(f"a size such as '64 MiB' ({error})") from None
    return _model.size(value)


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _model.text(value)


def _port(value: Any) -> int:
    port = _model.size(value)
    if port > 65535:
        raise _model.Unfit("a port, 0 (any free one) to 65535")
    return port


def _name(value: Any) -> str:
    if not validate_name(_model.text(value)):
        raise _model.Unfit("letters, digits, '-' and '_', and not empty")
    return str(value)


def _uuid(value: Any) -> str:
    import uuid

    try:
        return str(uuid.UUID(str(value)))
    except ValueError:
        raise _model.Unfit("a UUID") from None


class EndpointRelayConfig(_model.Model):
    """Where an endpoint meets its peers.

    Args:
        address: URL of the relay, `https://HOST:PORT`; None for no relay, and then peers must be
            reachable by address.
        token: What the relay asks for, if it does.
        fingerprint: SHA-256 of the relay's certificate, which is then believed whoever signed it.
        ca_file: PEM file of the relay's certificate authority, instead of those of the system.
        peer_channels: How many parts of a large object are fetched from a peer at once.
    """

    address: str | None = None
    token: str | None = None
    fingerprint: str | None = None
    ca_file: str | None = None
    peer_channels: int = 4

    _checks: ClassVar[dict[str, _model.Check]] = {
        "address": _text_or_none,
        "token": _text_or_none,
        "fingerprint": _text_or_none,
        "ca_file": _text_or_none,
        "peer_channels": _model.size,
    }

    def __repr__(self) -> str:
        token = "'***'" if self.token else None
        return f"EndpointRelayConfig(address={self.address!r}, token={token})"


class EndpointStorageConfig(_model.Model):
    """How much an endpoint keeps, and where. Sizes are bytes, or texts such as `'64 MiB'`.

    >>> EndpointStorageConfig(memory='1 GiB').memory
    1073741824

    Args:
        memory: How much memory objects may take.
        disk: How much disk objects may take that memory has no room for; 0 for none.
        dir: Where on disk; None for `objects` in the endpoint's directory.
        persist: Whether objects are on disk before they are acknowledged, and there after a restart.
        max_object_size: The longest object; 0 for any that fits.
    """

    memory: int = 1 << 30
    disk: int = 10 << 30
    dir: str | None = None
    persist: bool = False
    max_object_size: int = 0

    _checks: ClassVar[dict[str, _model.Check]] = {
        "memory": _bytes,
        "disk": _bytes,
        "dir": _text_or_none,
        "persist": _model.flag,
        "max_object_size": _bytes,
    }


class EndpointConfig(_model.Model):
    """Configuration of an endpoint.

    Args:
        name: Its name on this site: letters, digits, `-` and `_`.
        uuid: Its public key in the form of a UUID; it cannot be chosen.
        port: The TCP port for clients on other hosts; 0 for any free one.
        host: The address for them, where `host_type` is `'static'`; None for no such clients.
        host_type: `'ip'` and `'fqdn'` stand for the address and the name of the host that the
            daemon starts on.
        relay: Where it meets its peers.
        storage: How much it keeps, and where.

    Raises:
        StoreConfigError: When a field is missing, unknown, or does not fit; also a ValueError.
    """

    name: str
    uuid: str
    port: int
    host: str | None = None
    host_type: Literal["fqdn", "ip", "static"] = "ip"
    relay: EndpointRelayConfig = EndpointRelayConfig()
    storage: EndpointStorageConfig = EndpointStorageConfig()

    _checks: ClassVar[dict[str, _model.Check]] = {
        "name": _name,
        "uuid": _uuid,
        "port": _port,
        "host": _text_or_none,
        "host_type": _model.one_of("fqdn", "ip", "static"),
        "relay": lambda value: EndpointRelayConfig.model_validate(value).model_copy(),
        "storage": lambda value: EndpointStorageConfig.model_validate(value).model_copy(),
    }


def validate_name(name: str) -> bool:
    """Whether an endpoint may have this name: letters, digits, dashes and underscores.

    >>> validate_name('my-site_1'), validate_name('my site'), validate_name('')
    (True, False, False)
    """
    return re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None


def get_log_filepath(endpoint_dir: str) -> str:
    """Return the path of the log in an endpoint's directory."""
    return os.path.join(endpoint_dir, ENDPOINT_LOG_FILE)


def get_pid_filepath(endpoint_dir: str) -> str:
    """Return the path of the file with the daemon's process in an endpoint's directory."""
    return os.path.join(endpoint_dir, ENDPOINT_PID_FILE)


def get_configs(proxystore_dir: str) -> list[EndpointConfig]:
    """Return the configurations of all endpoints below a directory; bad ones are logged."""
    found = []
    for directory, _ in _cards.below(proxystore_dir):
        try:
            found.append(read_config(directory))
        except (OSError, ValueError) as error:
            logger.error("%s", error)
    return found


# What a field is called in the file: section and name.
_RELAY = {
    "address": ("relay", "url"),
    "token": ("relay", "token"),
    "fingerprint": ("relay", "fingerprint"),
    "ca_file": ("relay", "ca_file"),
    "peer_channels": ("peers", "streams"),
}
_STORAGE = {
    "memory": ("storage", "memory"),
    "disk": ("storage", "disk"),
    "dir": ("storage", "dir"),
    "persist": ("storage", "persist"),
    "max_object_size": ("storage", "max_object"),
}


def _load(endpoint_dir: str) -> tuple[dict[str, Any], str]:
    """Return what the file says, and the UUID of the endpoint."""
    path = os.path.join(endpoint_dir, ENDPOINT_CONFIG_FILE)
    card = _cards.read(endpoint_dir)
    if card is None or not os.path.exists(path):
        raise FileNotFoundError(
            f"there is no endpoint in {endpoint_dir}; make one with: proxystore endpoint configure"
        )
    with open(path, "rb") as file:
        try:
            return tomllib.load(file), str(card["uuid"])
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error


def read_config(endpoint_dir: str) -> EndpointConfig:
    """Return the configuration in an endpoint's directory.

    Raises:
        FileNotFoundError: There is no endpoint there.
        ValueError: The file says something that has no meaning.
    """
    data, uuid = _load(endpoint_dir)

    def fields(names: dict[str, tuple[str, str]]) -> dict[str, Any]:
        found = {field: data.get(section, {}).get(name) for field, (section, name) in names.items()}
        return {field: value for field, value in found.items() if value not in (None, "")}

    clients = data.get("clients", {})
    host = clients.get("host", "")
    kind: Any = host if host in ("ip", "fqdn") else "static"
    return EndpointConfig(
        name=data.get("name", ""),
        uuid=uuid,
        port=clients.get("port", 0),
        host=host if host and kind == "static" else None,
        host_type=kind,
        relay=EndpointRelayConfig(**fields(_RELAY)),
        storage=EndpointStorageConfig(**fields(_STORAGE)),
    )


def write_config(cfg: EndpointConfig, endpoint_dir: str) -> None:
    """Change the configuration of an endpoint; it takes effect when the daemon starts again.

    What the file says beyond the fields of an `EndpointConfig` stays; comments in it do not.

    Raises:
        FileNotFoundError: There is no endpoint there: nothing can be written for one without a key.
        ValueError: It is another endpoint.
    """
    data, uuid = _load(endpoint_dir)
    if uuid != cfg.uuid:
        raise ValueError(
            f"the endpoint in {endpoint_dir} is {uuid}, and the configuration is of {cfg.uuid}: the "
            "UUID is that of the endpoint's key, and cannot be set"
        )
    data["name"] = cfg.name
    clients = data.setdefault("clients", {})
    clients["host"] = cfg.host_type if cfg.host_type != "static" else cfg.host or ""
    clients["port"] = cfg.port
    for model, names in ((cfg.relay, _RELAY), (cfg.storage, _STORAGE)):
        for field, (section, name) in names.items():
            value = getattr(model, field)
            data.setdefault(section, {})[name] = "" if value is None else value
    path = os.path.join(endpoint_dir, ENDPOINT_CONFIG_FILE)
    temporary = f"{path}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(to_toml(data))
    os.replace(temporary, path)
