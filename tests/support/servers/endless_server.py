"""A server whose answers never end, though it is never silent for long."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from itertools import cycle
from threading import Event, Thread

_HEAD = b"HTTP/1.1 200 OK\r\n"
_BODY = _HEAD + (
    b'ETag: "1"\r\nLast-Modified: Sat, 28 Nov 2026 07:00:00 GMT\r\nContent-Type: application/json\r\n'
    b"Content-Length: 1000000\r\n\r\n"
)
ENDLESS = {
    "header": (_HEAD, [bytes([byte]) for byte in b"X-More: of this\r\n"]),
    "interim": (b"", [b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"]),
    "body": (_BODY, [b" "]),
}
"""The beginning of an answer, and the bytes that are then repeated without end."""


@contextmanager
def endless_server(kind: str, pause: float = 0.05) -> Generator[str]:
    """The url of a server that answers every connection in one of these ways, until the block ends."""
    ended = Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            begin, more = ENDLESS[kind]
            connection.sendall(begin)
            for part in cycle(more):
                connection.sendall(part)
                if ended.wait(pause):
                    return

    def serve() -> None:
        with suppress(OSError):  # closed
            while True:
                Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
