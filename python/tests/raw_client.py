"""A client of an endpoint's daemon as docs/protocol-endpoint.md describes it, so that it can also misbehave."""

from __future__ import annotations

import secrets
import socket
import struct
import tomllib
from base64 import b32decode
from pathlib import Path
from typing import Any, NamedTuple, Self

import blake3
import msgpack

PATIENCE = 60.0
"""Seconds; longer than any answer takes, on a busy machine too."""

PUT, GET, STAT, EVICT, EXPIRE, WAIT, CLEAR, HINT, PING, STATUS, STOP = range(1, 12)
DONE, OBJECT, ABSENT, STATED, PONG, WELCOME, FAILED = 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0xFF

_FRAME = struct.Struct("<BBHIQ")


def unbase32(text: str) -> bytes:
    """The bytes of base 32 without padding, in either case."""
    text = text.strip().upper()
    return b32decode(text + "=" * (-len(text) % 8))


def frame(kind: int, head: Any, body: int = 0, number: int = 1, pieces: bool = False) -> bytes:
    """A frame without its body, of so many bytes."""
    packed: bytes = msgpack.packb(head)
    return _FRAME.pack(kind, pieces, len(packed), number, body) + packed


class RawAnswer(NamedTuple):
    """What a daemon answered."""

    kind: int
    head: Any
    body: bytes


class RawClient:
    """A connection to the daemon of the endpoint in a directory."""

    def __init__(self, directory: Path, *, greet: bool = True, tcp: bool = False) -> None:
        card = tomllib.loads((directory / "address.toml").read_text())
        self.endpoint = unbase32(card["id"])
        self._token = unbase32((directory / "token").read_text())
        self.socket = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
        try:
            self.socket.settimeout(PATIENCE)
            host, _, port = card.get("tcp", ":0").rpartition(":")
            self.socket.connect((host, int(port)) if tcp else str(directory / "socket"))
            if greet:
                self.greet()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def greet(self, token: bytes | None = None) -> RawAnswer:
        """Prove to know the token, and have the daemon prove it too."""
        token = self._token if token is None else token
        nonce = secrets.token_bytes(32)
        self.socket.sendall(b"PSEP" + struct.pack("<HH", 1, 0) + nonce)
        challenge = self._exactly(72)
        magic, version, theirs, endpoint = struct.unpack("<4sHxx32s32s", challenge)
        assert (magic, version, endpoint) == (b"PSEP", 1, self.endpoint)

        def proof(role: str) -> bytes:
            label = f"proxystore endpoint 1: {role}".encode()
            return blake3.blake3(label + nonce + theirs + endpoint, key=token).digest()

        self.socket.sendall(proof("client"))
        answered = self._exactly(32)
        welcome = self.answer()
        if welcome.kind == WELCOME:
            assert answered == proof("daemon")
        return welcome

    def name(self, object_id: str, generation: int = 1) -> list[Any]:
        """The name of an object of this endpoint."""
        return [self.endpoint, object_id, generation]

    def ask(self, kind: int, head: Any, body: bytes = b"") -> RawAnswer:
        """Send a request, and wait for its answer."""
        self.socket.sendall(frame(kind, head, len(body)) + body)
        return self.answer()

    def put(self, object_id: str, body: bytes, generation: int = 1) -> RawAnswer:
        """Store an object."""
        return self.ask(PUT, [self.name(object_id, generation), None, None], body)

    def get(self, object_id: str, generation: int = 0) -> RawAnswer:
        """Read an object, through the socket."""
        return self.ask(GET, [self.name(object_id, generation), None, False])

    def answer(self) -> RawAnswer:
        """Wait for the next answer."""
        kind, pieces, head, _, left = _FRAME.unpack(self._exactly(_FRAME.size))
        decoded = msgpack.unpackb(self._exactly(head))
        if not pieces:
            return RawAnswer(kind, decoded, self._exactly(left))
        body = bytearray()
        while len(body) < left:
            (length,) = struct.unpack("<I", self._exactly(4))
            if length == 0:
                return self.answer()  # that says why there is no more of it
            body += self._exactly(length)
        return RawAnswer(kind, decoded, bytes(body))

    def _exactly(self, length: int) -> bytes:
        received = bytearray()
        while len(received) < length:
            some = self.socket.recv(min(length - len(received), 1 << 20))
            if not some:
                raise ConnectionError("the daemon hung up")
            received += some
        return bytes(received)
