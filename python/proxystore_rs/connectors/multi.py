"""Several connectors as one: policies choose where an object goes.

Small objects stay in shared memory, large ones go to a directory, and what is tagged for another
site goes there, through one store:

>>> from proxystore_rs.connectors.memory import MemoryConnector
>>> connector = MultiConnector({
...     'small': (MemoryConnector('docs-small'), Policy(priority=1, max_size_bytes=10)),
...     'rest': (MemoryConnector('docs-rest'), Policy()),
... })
>>> connector.put(b'hello').connector_name
'small'
>>> connector.put(b'hello, world').connector_name
'rest'
>>> connector.close(clear=True)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypedDict

from proxystore_rs._core import Buffer, NativeConnector, multi_config, multi_parts
from proxystore_rs.connectors.protocols import Connector
from proxystore_rs.exceptions import MultiConnectorError, StoreConfigError
from proxystore_rs.serialize import BytesLike
from proxystore_rs.store.config import ConnectorConfig
from proxystore_rs.utils.environment import hostname
from proxystore_rs.utils.imports import get_object_path

__all__ = [
    "ConnectorPolicyConfig",
    "MultiConnector",
    "MultiConnectorError",
    "MultiKey",
    "Policy",
    "PolicyDict",
]


class MultiKey(NamedTuple):
    """Key of an object in one of several channels."""

    connector_name: str
    """Name of the connector that has the object."""
    connector_key: Any
    """That connector's own key."""


class PolicyDict(TypedDict):
    """A policy as plain values."""

    priority: int
    host_pattern: list[str] | str | None
    min_size_bytes: int
    max_size_bytes: int
    subset_tags: list[str]
    superset_tags: list[str]


ConnectorPolicyConfig: TypeAlias = tuple[str, dict[str, Any], PolicyDict]
"""Path of a connector's class, its configuration, and its policy."""


@dataclass
class Policy:
    """Which objects a connector takes, and on which hosts; by default all.

    >>> policy = Policy(min_size_bytes=100, subset_tags=['fast'])
    >>> policy.is_valid(size_bytes=100, subset_tags=['fast'])
    True
    >>> policy.is_valid(size_bytes=99), policy.is_valid(subset_tags=['fast', 'far'])
    (False, False)

    Args:
        priority: connectors of higher priority are asked first.
        host_pattern: one or more regular expressions, one of which must match the whole name of
            the host; None for every host.
        min_size_bytes: bytes, as stored, of the smallest objects.
        max_size_bytes: bytes, as stored, of the largest objects.
        subset_tags: the `subset_tags` of an object must all be among these.
        superset_tags: the `superset_tags` of an object must contain all of these.
    """

    priority: int = 0
    host_pattern: Iterable[str] | str | None = None
    min_size_bytes: int = 0
    max_size_bytes: int = sys.maxsize
    subset_tags: list[str] = field(default_factory=list)
    superset_tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not isinstance(self.host_pattern, str | None):
            self.host_pattern = list(self.host_pattern)
        self.subset_tags = list(self.subset_tags)
        self.superset_tags = list(self.superset_tags)

    def is_valid(
        self,
        *,
        size_bytes: int | None = None,
        subset_tags: Iterable[str] | None = None,
        superset_tags: Iterable[str] | None = None,
    ) -> bool:
        """Return whether an object of this size and with these tags goes here, from this host.

        Args:
            size_bytes: bytes as stored; None when it does not matter.
            subset_tags: tags that must all be among those of the policy.
            superset_tags: tags that must contain all of the policy.
        """
        return (
            (size_bytes is None or self.min_size_bytes <= size_bytes <= self.max_size_bytes)
            and set(subset_tags or ()) <= set(self.subset_tags)
            and set(superset_tags or ()) >= set(self.superset_tags)
            and self.is_valid_on_host()
        )

    def is_valid_on_host(self) -> bool:
        """Return whether the policy is for this host.

        Raises:
            StoreConfigError: When a pattern is no regular expression.
        """
        if self.host_pattern is None:
            return True
        patterns = [self.host_pattern] if isinstance(self.host_pattern, str) else self.host_pattern
        try:
            return any(re.fullmatch(pattern, hostname()) for pattern in patterns)
        except re.error as error:
            raise StoreConfigError(
                f"host_pattern {self.host_pattern!r} is no regular expression: {error}"
            ) from error

    def as_dict(self) -> PolicyDict:
        """Return the fields as plain values; `Policy(**policy.as_dict())` is an equal policy."""
        pattern = self.host_pattern
        return {
            "priority": self.priority,
            "host_pattern": pattern if isinstance(pattern, str | None) else list(pattern),
            "min_size_bytes": self.min_size_bytes,
            "max_size_bytes": self.max_size_bytes,
            "subset_tags": list(self.subset_tags),
            "superset_tags": list(self.superset_tags),
        }

    def _off_here(self) -> str | None:
        """Return why nothing is put from this host, if so."""
        if self.is_valid_on_host():
            return None
        return (
            f"its host_pattern {self.host_pattern!r} does not match the name of this host, "
            f"{hostname()!r}"
        )


class ConnectorPolicy(NamedTuple):
    """A connector and its policy."""

    connector: Connector[Any]
    policy: Policy


class MultiConnector(NativeConnector):
    """Puts each object where the policies say.

    An object goes to the connector of the highest priority whose policy takes it, the earlier of
    two equals. If that connector fails, the put fails. The key names the connector, so that
    everything else goes there directly.

    A connector opened from a configuration on a host that its policy is not for, or where its class
    cannot be imported, is dormant: it stays in the configuration, and using its keys is an error.

    Args:
        connectors: connectors, native or written in Python, and their policies by name.
        dormant_connectors: configurations by name, as in `config()`, that are carried along.

    Attributes:
        connectors: connectors and policies by name.
        dormant_connectors: the configurations of the dormant ones by name.
        connectors_by_priority: names, in the order in which they are asked.

    Raises:
        StoreConfigError: when a name is empty or used twice.
    """

    _key_type = MultiKey
    _scheme = "multi"

    def __init__(
        self,
        connectors: Mapping[str, tuple[Connector[Any], Policy]],
        dormant_connectors: Mapping[str, ConnectorPolicyConfig] | None = None,
        *,
        _order: Sequence[str] | None = None,
        _why: Mapping[str, str] | None = None,
    ) -> None:
        self.connectors = {name: ConnectorPolicy(*given) for name, given in connectors.items()}
        self.dormant_connectors = dict(dormant_connectors or {})
        self.connectors_by_priority = sorted(
            self.connectors, key=lambda name: -self.connectors[name].policy.priority
        )
        self._order = list(_order or (*self.connectors, *self.dormant_connectors))
        for name, (connector, _) in self.connectors.items():
            missing = [
                method for method in ("put", "get", "config") if not hasattr(connector, method)
            ]
            if missing:
                raise TypeError(f"{name!r} is not a connector: it has no {', '.join(missing)}")
        self._open_parts([self._part(name, (_why or {}).get(name)) for name in self._order])

    def _part(self, name: str, why: str | None) -> tuple[Any, ...]:
        if name in self.connectors:
            connector, policy = self.connectors[name]
            return name, connector, None, _settings(policy), policy._off_here()
        config = self.dormant_connectors[name]
        policy = Policy(**config[2])
        off = why or policy._off_here() or "it was given as such"
        return name, None, _channel(config), _settings(policy), off

    def __repr__(self) -> str:
        return (
            f"MultiConnector({ {name: tuple(given) for name, given in self.connectors.items()} })"
        )

    def put(
        self,
        obj: BytesLike | Buffer,
        subset_tags: Iterable[str] = (),
        superset_tags: Iterable[str] = (),
        *,
        ttl: float | None = None,
    ) -> Any:
        """Store bytes under a new key, which is returned.

        Args:
            obj: the bytes.
            subset_tags: tags that must all be among those of the connector's policy.
            superset_tags: tags that must contain all of the connector's policy.
            ttl: the object vanishes after so many seconds; passes over connectors that cannot do
                that.

        Raises:
            MultiConnectorError: When no policy takes it; the text has each one's reason.
        """
        return super().put(obj, subset_tags=subset_tags, superset_tags=superset_tags, ttl=ttl)

    def put_batch(
        self,
        objs: Iterable[BytesLike | Buffer],
        subset_tags: Iterable[str] = (),
        superset_tags: Iterable[str] = (),
        *,
        ttl: float | None = None,
    ) -> list[Any]:
        """`put` for many objects, keys in the same order; all or none."""
        return super().put_batch(
            objs, subset_tags=subset_tags, superset_tags=superset_tags, ttl=ttl
        )

    def close(self, clear: bool | None = None) -> None:
        """Close all connectors.

        Args:
            clear: whether native connectors remove their objects, each as it was told itself if
                None. Those written in Python are closed as they close themselves.
        """
        with ExitStack() as stack:  # one that fails does not keep the others open
            stack.callback(self._close, False)
            for connector, _ in self.connectors.values():
                if clear is None or not isinstance(connector, NativeConnector):
                    stack.callback(connector.close)
                else:
                    stack.callback(connector.close, clear=clear)  # type: ignore[call-arg]

    def config(self) -> dict[str, ConnectorPolicyConfig]:
        """Return class, configuration and policy of every connector by name, dormant ones too."""
        config = dict(self.dormant_connectors)
        for name, (connector, policy) in self.connectors.items():
            config[name] = (get_object_path(type(connector)), connector.config(), policy.as_dict())
        return {name: config[name] for name in self._order}

    @classmethod
    def from_config(cls, config: dict[str, ConnectorPolicyConfig]) -> MultiConnector:
        """Open the connectors of a configuration that are for this host."""
        connectors = {}
        dormant: dict[str, ConnectorPolicyConfig] = {}
        why = {}
        for name, (kind, options, fields) in config.items():
            policy = Policy(**fields)
            part = ConnectorConfig(kind=kind, options=options)
            missing = _why_not_importable(part)
            if missing is None and policy.is_valid_on_host():
                connectors[name] = (part.get_connector(), policy)
                continue
            dormant[name] = (kind, options, fields)
            if missing is not None:
                why[name] = missing
        return cls(connectors, dormant, _order=list(config), _why=why)

    @classmethod
    def _to_url(cls, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        parts = []
        for name, config in options.items():
            parts.append((name, *_channel(config), _settings(Policy(**config[2]))))
        return multi_config(parts)

    @classmethod
    def _from_url(cls, url: str, options: dict[str, Any]) -> dict[str, Any]:
        config = {}
        for name, part_url, part_options, policy in multi_parts(url, options):
            part = ConnectorConfig._from_native(part_url, part_options)
            config[name] = (part.kind, part.options, Policy(**policy).as_dict())
        return config


def _settings(policy: Policy) -> dict[str, Any]:
    return {name: value for name, value in policy.as_dict().items() if value is not None}


def _channel(config: ConnectorPolicyConfig) -> tuple[str, dict[str, Any]]:
    """Return URL and options of a part that need not be open."""
    part = ConnectorConfig(kind=config[0], options=config[1])
    if _why_not_importable(part) is not None:
        return f"python:{part.kind}", part.options
    return part._native()


def _why_not_importable(part: ConnectorConfig) -> str | None:
    try:
        part.get_connector_type()
    except ImportError as error:
        return f"{part.kind} cannot be imported here: {error}"
    except StoreConfigError as error:
        if isinstance(error.__cause__, ImportError):
            return str(error)
        raise  # a short name that is misspelled everywhere
    return None
