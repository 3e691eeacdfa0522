"""Objects in a Redis server or cluster."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes

from proxystore_rs._core import NativeConnector
from proxystore_rs.exceptions import StoreConfigError

_PORT = 6379


class RedisKey(NamedTuple):
    """Key of an object in Redis."""

    redis_key: str
    generation: int = 0
    size: int = 0


class RedisConnector(NativeConnector):
    """Keeps objects in a Redis server or cluster, which all processes with access to it reach.

    Each connector has a namespace, which travels in its configuration: workers that open it from a
    reference write into the same one. Any connector to the server reads any key, and `close` with
    `clear` removes the objects of the namespace and nothing else.

    User and password stay in this process: they are in `config()`, and thus in references, only
    with `share_credentials`. Whoever opens a configuration without them takes them from the
    environment variables `PROXYSTORE_REDIS_USERNAME` and `PROXYSTORE_REDIS_PASSWORD`, and so does
    this constructor. Where `PROXYSTORE_REDIS_HOSTS` lists servers (patterns of hosts, separated by
    commas), no others get what is in the environment, whatever a reference names.

    Args:
        hostname: the server.
        port: its port.
        clear: `close` removes the objects of the namespace, unless it is told otherwise.
        username: who logs in; without, Redis takes the default user.
        password: the password.
        database: the number of the database.
        tls: whether the connection is encrypted; the server's certificate is checked.
        ca_file: PEM file of the server's certificate authority, instead of those of the system;
            without, the file that `PROXYSTORE_REDIS_CA_FILE` names.
        cert_file: PEM file of this client's certificate, else `PROXYSTORE_REDIS_CERT_FILE`.
        key_file: PEM file of its key, else `PROXYSTORE_REDIS_KEY_FILE`.
        unix_socket: path of the server's socket, instead of host and port.
        cluster: some servers of a cluster, as `"HOST:PORT"`, instead of host and port.
        namespace: first part of the ids, 1 to 64 letters, digits, `-` or `_`; by default random.
        ttl: seconds that objects live which are put without a time to live; by default for ever.
        share_credentials: whether references carry user and password.
        timeout: seconds that a server may be silent before that is an error; 20.
        retries: how often an operation is repeated when the connection breaks; 4.
        whole_bytes: longer objects are stored in parts; 500 MiB, which is near what Redis can do.
        part_bytes: length of a part; 64 MiB.

    Raises:
        ChannelError: There is no server, or it does not answer.
        ChannelPermissionError: It refuses user and password.
    """

    _key_type = RedisKey
    _scheme = "redis"

    def __init__(
        self,
        hostname: str = "localhost",
        port: int = _PORT,
        clear: bool = False,
        *,
        username: str | None = None,
        password: str | None = None,
        database: int = 0,
        tls: bool = False,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        unix_socket: str | None = None,
        cluster: Iterable[str] | None = None,
        namespace: str | None = None,
        ttl: float | None = None,
        share_credentials: bool = False,
        timeout: float | None = None,
        retries: int | None = None,
        whole_bytes: int | None = None,
        part_bytes: int | None = None,
    ) -> None:
        self.hostname = hostname
        self.port = port
        self.clear = clear
        self.database = database
        self.tls = tls
        self.unix_socket = None if unix_socket is None else os.path.abspath(unix_socket)
        self.cluster = None if cluster is None else list(cluster)
        self.namespace = namespace or os.urandom(6).hex()
        self.share_credentials = share_credentials
        paths = {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file}
        self._settings: dict[str, Any] = {
            **{name: os.path.abspath(path) for name, path in paths.items() if path is not None},
            "ttl": ttl,
            "timeout": timeout,
            "retries": retries,
            "whole_bytes": whole_bytes,
            "part_bytes": part_bytes,
        }
        self._shared = {"username": username, "password": password} if share_credentials else {}
        url, options = self._to_url(self.config())
        given = {"username": username, "password": password}
        self._open(url, {**options, **_given(given)})

    def __repr__(self) -> str:
        url, _ = self._to_url(self.config())
        return f"RedisConnector(url={url!r}, namespace={self.namespace!r})"

    @classmethod
    def from_url(cls, url: str, **options: Any) -> RedisConnector:
        """Open a connector by its URL; the options are the constructor's keyword arguments.

        Args:
            url: `redis://HOST:PORT/DATABASE`, `rediss://HOST:PORT/DATABASE` (TLS),
                `redis+unix:///PATH`, `redis+cluster://HOST:PORT,HOST:PORT` or
                `rediss+cluster://HOST:PORT,HOST:PORT`. Before the host there may be
                `USER:PASSWORD@`, which is used and forgotten.
        """
        return cls(**{**cls._from_url(url, {}), **options})

    def close(self, clear: bool | None = None) -> None:
        """Release the connector; with `clear`, remove the objects of its namespace."""
        self._close(self.clear if clear is None else clear)

    def config(self) -> dict[str, Any]:
        """Return the arguments of an equal connector.

        User and password are among them with `share_credentials` only; without, the equal connector
        takes them from the environment.
        """
        where = _given({"unix_socket": self.unix_socket, "cluster": self.cluster})
        if not where:
            where = {"hostname": self.hostname, "port": self.port}
        if self.database:
            where["database"] = self.database
        if self.tls:
            where["tls"] = True
        if self.share_credentials:
            where["share_credentials"] = True
        return {
            **where,
            "clear": self.clear,
            "namespace": self.namespace,
            **_given(self._settings),
            **_given(self._shared),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RedisConnector:
        """Open a connector from `config()`."""
        return cls(**config)

    @classmethod
    def _to_url(cls, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        native = dict(options)
        tls = "s" if native.pop("tls", False) else ""
        database = native.pop("database", 0)
        hostname, port = native.pop("hostname", "localhost"), native.pop("port", _PORT)
        unix_socket, cluster = native.pop("unix_socket", None), native.pop("cluster", None)
        native.pop("clear", None)
        if cluster is not None and (database or unix_socket is not None):
            raise StoreConfigError("a cluster of Redis has neither databases nor a socket")
        if unix_socket is not None and tls:
            raise StoreConfigError("a socket of Redis is on this host, and has no TLS")
        if unix_socket is not None:
            path = quote(os.fsencode(os.path.abspath(unix_socket)))
            return f"redis+unix://{path}" + (f"?db={database}" if database else ""), _given(native)
        if cluster is not None:
            nodes = sorted({_node(*_host_and_port(node)) for node in cluster})
            return f"redis{tls}+cluster://{','.join(nodes)}", _given(native)
        return f"redis{tls}://{_node(hostname, port)}/{database}", _given(native)

    @classmethod
    def _from_url(cls, url: str, options: dict[str, Any]) -> dict[str, Any]:
        scheme, _, rest = url.partition("://")
        authority, slash, path = rest.partition("/")
        user, at, hosts = authority.rpartition("@")
        found: dict[str, Any] = {}
        if at:
            username, _, password = user.partition(":")
            found |= {"username": unquote(username) or None, "password": unquote(password) or None}
        if scheme.startswith("rediss"):
            found["tls"] = True
        if scheme == "redis+unix":
            path, _, database = path.partition("?db=")
            found["unix_socket"] = os.fsdecode(unquote_to_bytes(slash + path))
        elif scheme.endswith("+cluster"):
            database = path
            found["cluster"] = hosts.split(",")
        elif scheme in ("redis", "rediss"):
            database = path.rstrip("/")
            found["hostname"], found["port"] = _host_and_port(hosts)
        else:
            raise StoreConfigError(
                f"a URL of kind {scheme.partition(':')[0]!r} is not one of Redis; write redis://HOST:PORT/DATABASE, "
                "rediss://, redis+unix:///PATH or redis+cluster://HOST:PORT,HOST:PORT"
            )
        if database:
            if not database.isdecimal() or scheme.endswith("+cluster"):
                raise StoreConfigError(
                    f"the URL of Redis names the database {database!r}; it is a number, and a "
                    "cluster has none"
                )
            found["database"] = int(database)
        return _given({**found, **options})


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _node(hostname: str, port: int) -> str:
    host = hostname.lower()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host_and_port(node: str) -> tuple[str, int]:
    """Return the parts of `HOST:PORT`, `HOST` or `[IPV6]:PORT`."""
    host, colon, port = node.rpartition(":")
    if not colon or node.endswith("]"):
        host, port = node, str(_PORT)
    if not port.isdecimal() or not host:
        raise StoreConfigError(f"{node!r} does not name a server of Redis: write HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)
