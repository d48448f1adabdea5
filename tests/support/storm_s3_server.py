"""The process of `StormyS3Server`: moto behind a gate that fails a share of the requests.

It prints its port, then answers each line ``rate seed`` with the faults so far, and ends with its standard input.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, NoReturn

from moto.moto_server import threaded_moto_server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

_FAULTS = ["503", "503", "reset", "reply lost"]
_BUSY = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>'
Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class Gate:
    """A WSGI application before another."""

    def __init__(self, create: Callable[..., Any]) -> None:
        self._application = DomainDispatcherApplication(create)

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        fault = weather.draw()
        if fault == "503":
            environ["wsgi.input"].read()
            start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(_BUSY)))])
            return [_BUSY]
        if fault == "reset":
            _reset(environ)
        answer: Iterable[bytes] = self._application(environ, start if fault is None else _unheard)
        if fault is not None:
            for _ in answer:
                pass
            _reset(environ)
        return answer


class _Weather:
    def __init__(self) -> None:
        self._rate, self._random = 0.0, Random()
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def change(self, rate: float, seed: int) -> dict[str, int]:
        with self._lock:
            self._rate, self._random = rate, Random(seed)
            return dict(self._counts)

    def draw(self) -> str | None:
        with self._lock:
            self._counts["requests"] += 1
            if self._random.random() >= self._rate:
                return None
            fault = self._random.choice(_FAULTS)
            self._counts[fault] += 1
            return fault


def _unheard(*_: object) -> Callable[[bytes], None]:
    return lambda _: None


def _reset(environ: Environ) -> NoReturn:
    connection: socket.socket = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError  # the server takes it for a client that went away


weather = _Weather()


def main() -> None:
    # The server makes its application by this name.
    setattr(threaded_moto_server, "DomainDispatcherApplication", Gate)  # noqa: B010  it is imported there, not defined
    server = threaded_moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)  # noqa: T201  it is how the parent hears
    for line in sys.stdin:
        rate, seed = line.split()
        print(json.dumps(weather.change(float(rate), int(seed))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
