"""What plain sockets see in a lab; a program that the lab's own tests start in its places.

natlab_probe.py reflect ADDRESSES   answers whoever asks with the address it sees, over UDP and TCP
natlab_probe.py ask ADDRESSES       what the reflectors there saw, and whether others come through
natlab_probe.py tcp ADDRESSES       what a reflector saw over TCP
natlab_probe.py punch ADDRESSES     prints its outer port, reads `HOST PORT`, and prints who answers there
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

PORT = 4000
ELSEWHERE = 4001  # a port of the reflector that nobody asks
PATIENCE = 20.0
PUBLIC = sys.argv[2:]


def udp(address: str = "", port: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    return made


def reflect() -> None:
    def serve(asked: socket.socket, other: socket.socket) -> None:
        while True:
            question, source = asked.recvfrom(100)
            if question == b"from elsewhere":
                other.sendto(b"unasked", source)
            asked.sendto(json.dumps(source).encode(), source)

    other = udp(PUBLIC[0], ELSEWHERE)
    for address in PUBLIC:
        threading.Thread(target=serve, args=(udp(address, PORT), other)).start()
    listener = socket.create_server((PUBLIC[0], PORT))
    print("ready", flush=True)
    while True:
        connection, source = listener.accept()
        with connection:
            connection.sendall(json.dumps(source).encode())


def seen_by(asker: socket.socket, address: str, question: bytes = b"") -> tuple[str, int] | None:
    """The address that a reflector sees; nothing where its answer does not come."""
    for _ in range(5):
        asker.sendto(question, (address, PORT))
        asker.settimeout(0.3)
        try:
            while True:
                answer, source = asker.recvfrom(100)
                if source == (address, PORT):
                    host, port = json.loads(answer)
                    return host, port
        except TimeoutError:
            continue
    return None


def ask() -> None:
    asker = udp()
    seen = [seen_by(asker, address) for address in PUBLIC]
    asker.sendto(b"from elsewhere", (PUBLIC[0], PORT))
    asker.settimeout(0.5)
    sources = set()
    try:
        while True:
            sources.add(asker.recvfrom(100)[1][1])
    except TimeoutError:
        print(json.dumps({"seen": seen, "unasked": ELSEWHERE in sources}))


def tcp() -> None:
    with socket.create_connection((PUBLIC[0], PORT), PATIENCE) as connection:
        print(connection.recv(100).decode())


def punch() -> None:
    ours = udp()
    seen = seen_by(ours, PUBLIC[0])
    print(json.dumps(seen), flush=True)
    host, port = input().split()
    heard = None
    rounds = 0
    end = time.monotonic() + 2
    while rounds < 10 or (heard is None and time.monotonic() < end):
        ours.sendto(b"hello", (host, int(port)))
        ours.settimeout(0.05)
        try:
            what, source = ours.recvfrom(100)
            heard = source if what == b"hello" else heard
        except TimeoutError:
            pass
        rounds += 1
    print(json.dumps(heard))


if __name__ == "__main__":
    {"reflect": reflect, "ask": ask, "tcp": tcp, "punch": punch}[sys.argv[1]]()
