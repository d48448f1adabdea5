"""The process of `S3Server`: moto behind a gate that fails some of the requests.

It prints its port. Then it answers each line of JSON on its standard input with a line of JSON, and ends with its
input::

    {"rate": 0.07, "seed": 7}     fail this share of the requests from now on; the answer counts requests and faults
    {"rules": [...]}              fail matching requests from now on, see `Rule`; the answer counts the faults by rule
    {"log": true}                 the requests since the last such command, as ``METHOD /bucket/key?query``
    {"bucket": "b", "keys": [..]} store an object of one byte under each key, without a request
"""

from __future__ import annotations

import json
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, NoReturn

from moto import backends
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server import threaded_moto_server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

_RANDOM_FAULTS = [*["503"] * 5, *["reset"] * 3, *["reply lost"] * 3, "silence"]
_REFUSALS = {
    "503": ("503 Slow Down", "SlowDown"),
    "429": ("429 Too Many Requests", "TooManyRequests"),
    "403": ("403 Forbidden", "AccessDenied"),
    "412": ("412 Precondition Failed", "PreconditionFailed"),
    "501": ("501 Not Implemented", "NotImplemented"),
}
_SILENCE_SECONDS = 600.0
Environ = dict[str, Any]
StartResponse = Callable[..., Any]


@dataclass(slots=True)
class Rule:
    """Fail the requests whose ``METHOD /bucket/key?query`` matches a pattern."""

    pattern: str
    fault: str
    """One of `_REFUSALS`; ``reset``: the connection breaks before the request is executed; ``reply lost``: it breaks
    after that; ``half a body``: the answer breaks off; ``silence``: no answer, and the request is not executed;
    ``condition ignored``: the request is executed as if it had no ``If-None-Match``, as some stores do."""
    times: int = 1_000_000
    skip: int = 0
    """Number of matching requests that succeed first."""
    fired: int = 0

    def fits(self, request: str) -> bool:
        if self.fired == self.times or not re.search(self.pattern, request):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.fired += 1
        return True


class Faults:
    """Decides which request fails, and how."""

    def __init__(self) -> None:
        self._rate, self._random = 0.0, Random()
        self._rules: list[Rule] = []
        self._counts: Counter[str] = Counter()
        self._log: deque[str] = deque(maxlen=10_000)
        self._lock = threading.Lock()

    def obey(self, command: dict[str, Any]) -> Any:
        """Execute a command; returns the answer."""
        with self._lock:
            if "rules" in command:
                fired = [rule.fired for rule in self._rules]
                self._rules = [Rule(**rule) for rule in command["rules"]]
                return fired
            if "log" in command:
                log = list(self._log)
                self._log.clear()
                return log
            if "keys" in command:
                store = backends.get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]
                return [store.put_object(command["bucket"], key, b"x").name for key in command["keys"]]
            self._rate, self._random = command["rate"], Random(command["seed"])
            return dict(self._counts)

    def draw(self, request: str) -> str | None:
        with self._lock:
            self._counts["requests"] += 1
            self._log.append(request)
            rule = next((rule for rule in self._rules if rule.fits(request)), None)
            if rule is not None:
                return rule.fault
            if self._random.random() >= self._rate:
                return None
            fault = self._random.choice(_RANDOM_FAULTS)
            self._counts[fault] += 1
            return fault


class Gate:
    """A WSGI application in front of another."""

    def __init__(self, create: Callable[..., Any]) -> None:
        self._application = DomainDispatcherApplication(create)

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        query = environ.get("QUERY_STRING", "")
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{'?' if query else ''}{query}"
        fault = faults.draw(request)
        if fault == "condition ignored":
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if fault in {None, "condition ignored"}:
            answer: Iterable[bytes] = self._application(environ, start)
            return answer
        if fault in _REFUSALS:
            return _refuse(environ, start, *_REFUSALS[fault])
        if fault == "silence":
            time.sleep(_SILENCE_SECONDS)
        if fault == "half a body":
            return _half(environ, self._application, start)
        if fault == "reply lost":
            for _ in self._application(environ, _unheard):
                pass
        return _reset(environ)


def _refuse(environ: Environ, start: StartResponse, status: str, code: str) -> Iterable[bytes]:
    # Read exactly the body: a read to the end would wait for the client to close.
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>By order of a test.</Message></Error>'.encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def _half(environ: Environ, application: Callable[..., Any], start: StartResponse) -> Iterable[bytes]:
    body = b"".join(application(environ, start))
    yield body[: len(body) // 2]
    _reset(environ)


def _unheard(*_: object) -> Callable[[bytes], None]:
    return lambda _: None


def _reset(environ: Environ) -> NoReturn:
    connection: socket.socket = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError  # the server treats this as a client that closed the connection


faults = Faults()


def main() -> None:
    # moto lists its folder twice for each request, which takes a quarter of the time.
    services = frozenset(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: services
    # The server creates its application by this name.
    setattr(threaded_moto_server, "DomainDispatcherApplication", Gate)  # noqa: B010  the name is imported there, not defined
    server = threaded_moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)  # noqa: T201  the parent reads the port
    for line in sys.stdin:
        print(json.dumps(faults.obey(json.loads(line))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
