"""Objects at endpoints: daemons, one or more at each site, that exchange objects across sites."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from proxystore_rs._core import NativeConnector
from proxystore_rs.exceptions import EndpointConfigError, EndpointConnectorError

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ["EndpointConnector", "EndpointConnectorError", "EndpointKey"]


class EndpointKey(NamedTuple):
    """Key of an object at an endpoint."""

    object_id: str
    endpoint_id: str | None
    """The endpoint that has the object: its public key."""
    generation: int = 0
    size: int = 0


class EndpointConnector(NativeConnector):
    """Keeps objects at an endpoint of this site, where other sites reach them through theirs.

    The connector talks to one endpoint, its home: the first of `endpoints` that is configured on
    this site and answers. A reference made here names the endpoint that has the object; whoever
    resolves it asks the endpoint of their own site, which asks that one.

    The token that an endpoint wants from its clients stays in its directory: it is in no
    configuration and no reference.

    Args:
        endpoints: the endpoints that may be the home, by name, UUID or id. Configurations name
            them by id, which means the same on every site.
        proxystore_dir: the directory below which endpoints of this site are configured; by
            default what [`home_dir`][proxystore_rs.utils.environment.home_dir] returns. Set
            `PROXYSTORE_HOME` instead where references go to sites with other directories.
        namespace: first part of the ids, 1 to 64 letters, digits, `-` or `_`; by default random.
        hints: `ID@RELAY-URL` for endpoints that those of other sites have never met; by default
            those of `endpoints` that are configured here.
        timeout: seconds that an endpoint may be silent before that is an error.
        clear: `close` removes the objects of the namespace, unless it is told otherwise.

    Raises:
        EndpointConnectorError: No endpoint is configured here, or none answers. The text says which
            were tried.
    """

    _key_type = EndpointKey
    _scheme = "endpoint"

    def __init__(
        self,
        endpoints: Sequence[str | UUID],
        proxystore_dir: str | None = None,
        *,
        namespace: str | None = None,
        hints: Iterable[str] | None = None,
        timeout: float | None = None,
        clear: bool = False,
    ) -> None:
        if isinstance(endpoints, str) or not endpoints:
            raise EndpointConfigError(
                "an EndpointConnector needs a list of endpoints, by name, UUID or id, such as "
                "['my-site']; configure one with: proxystore endpoint configure NAME"
            )
        self.proxystore_dir = None if proxystore_dir is None else os.path.abspath(proxystore_dir)
        self.clear = clear
        given = {
            "endpoints": endpoints,
            "proxystore_dir": self.proxystore_dir,
            "namespace": namespace or os.urandom(6).hex(),
            "hints": None if hints is None else list(hints),
            "timeout": timeout,
        }
        self._open(*self._to_url(given))
        config = self.config()
        self.endpoints: list[str] = config["endpoints"]
        self.namespace: str = config["namespace"]

    def __repr__(self) -> str:
        return f"EndpointConnector(endpoints={self.endpoints!r}, namespace={self.namespace!r})"

    def close(self, clear: bool | None = None) -> None:
        """Release the connector; with `clear`, remove the objects of its namespace."""
        self._close(self.clear if clear is None else clear)

    def config(self) -> dict[str, Any]:
        """Return the arguments of an equal connector, which may be opened at another site.

        Endpoints are named by id there, and `hints` say by which relay they are reached.
        """
        config = self._from_url(self.url, self._options)
        return config | ({"clear": True} if self.clear else {})

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EndpointConnector:
        """Open a connector from `config()`."""
        return cls(**config)

    @classmethod
    def _to_url(cls, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        native = {name: value for name, value in options.items() if value is not None}
        native.pop("clear", None)
        home = native.pop("proxystore_dir", None)
        if home is not None:
            native["home"] = home
        return f"endpoint:{','.join(map(str, native.pop('endpoints')))}", native

    @classmethod
    def _from_url(cls, url: str, options: dict[str, Any]) -> dict[str, Any]:
        found = dict(options)
        if "home" in found:
            found["proxystore_dir"] = found.pop("home")
        return {"endpoints": url.removeprefix("endpoint:").split(","), **found}
