"""A TCP proxy between a client and any server, which fails on demand."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Self

from tests.support.servers.ports import reserve
from tools import figures

Direction = Literal["to_server", "to_client"]
Match = Callable[[bytes, Direction], bool]


@dataclass(frozen=True)
class _Trigger:
    match: Match
    after: bool
    fired: threading.Event = field(default_factory=threading.Event)


@dataclass
class _Allowance:
    direction: Direction
    left: int
    spent: threading.Event = field(default_factory=threading.Event)


class TcpProxy:
    """Forwards to ``host:port`` from a port of its own, until `cut`, `refuse` or `deaf` is called."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._kept = reserve()  # no other process gets the port while connections are refused
        self.port = int(self._kept.getsockname()[1])
        self._listener = _listen(self.port)
        self._hearing = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._trigger: _Trigger | None = None
        self._allowance: _Allowance | None = None

    def instead_of(self, url: str) -> str:
        """A url of the server, changed so that clients connect through the proxy."""
        return url.replace(f":{self._target[1]}/", f":{self.port}/")

    def __enter__(self) -> Self:
        self._hearing.set()
        self._accept_in_background()
        return self

    def __exit__(self, *exception: object) -> None:
        self.refuse()
        self.cut()
        self._hearing.set()
        self._kept.close()

    def forward(self) -> None:
        """Accept and forward again, including data held back; disarm `cut_when` and `cut_at`."""
        self._trigger = self._allowance = None
        self._hearing.set()
        if self._listener.fileno() == -1:
            self._listener = _listen(self.port)
            self._accept_in_background()

    def cut(self) -> None:
        """Break every connection; new ones are treated as before."""
        with self._lock:
            connections, self._connections = self._connections, set()
        for connection in connections:
            connection.close()

    def refuse(self) -> None:
        """Refuse new connections; open ones continue."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread, which closing would not
        self._listener.close()

    def deaf(self) -> None:
        """Accept connections and keep them open, but forward nothing in either direction."""
        self._hearing.clear()

    def cut_when(self, match: Match, *, after: bool = False) -> threading.Event:
        """Break every connection, once, at the first block of bytes that matches.

        Args:
            match: Called with each received block and its direction.
            after: False: the block is not forwarded. True: the block is forwarded. If it goes to the server, the cut
                waits for the answer, which the client does not get: the request took effect without the client knowing.

        Returns:
            Set once the connections are broken.
        """
        trigger = _Trigger(match, after)
        self._trigger = trigger
        return trigger.fired

    def cut_at(self, byte: int, direction: Direction) -> threading.Event:
        """Break every connection, once, after this many more bytes in a direction, even in the middle of a message.

        Returns:
            Set once the connections are broken.
        """
        allowance = _Allowance(direction, byte)
        self._allowance = allowance
        return allowance.spent

    def _accept_in_background(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            connection = _Connection(client, server)
            with self._lock:
                self._connections.add(connection)
            directions: tuple[Direction, Direction] = ("to_server", "to_client")
            for direction in directions:
                threading.Thread(target=self._pump, args=(connection, direction), daemon=True).start()

    def _pump(self, connection: "_Connection", direction: Direction) -> None:
        to_server = direction == "to_server"
        source, sink = connection.sockets if to_server else reversed(connection.sockets)
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                self._hearing.wait()
                self._pass_on(block, direction, connection, sink)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)  # after a reset too, or the other end would wait for ever
        with self._lock:
            connection.directions -= 1
            if connection.directions:
                return
            self._connections.discard(connection)
        connection.close()

    def _pass_on(self, block: bytes, direction: Direction, connection: "_Connection", sink: socket.socket) -> None:
        if connection.answer_is_withheld_by and direction == "to_client":
            self._fire(connection.answer_is_withheld_by)
            return
        allowed = self._allowed(block, direction)
        if allowed is not None:
            sink.sendall(block[:allowed])
            figures.count("connections cut, in the middle of a message")
            self.cut()
            return
        trigger = self._take_trigger(block, direction)
        if trigger and not trigger.after:
            self._fire(trigger)
            return
        if direction == "to_server":
            connection.answer_is_withheld_by = trigger or connection.answer_is_withheld_by
        sink.sendall(block)
        if trigger and direction == "to_client":
            self._fire(trigger)

    def _take_trigger(self, block: bytes, direction: Direction) -> _Trigger | None:
        trigger = self._trigger
        if trigger is None or not trigger.match(block, direction):
            return None
        with self._lock:
            if self._trigger is not trigger:
                return None
            self._trigger = None
        return trigger

    def _allowed(self, block: bytes, direction: Direction) -> int | None:
        """How many bytes of the block are still forwarded; None if the connections do not break in this block."""
        with self._lock:
            allowance = self._allowance
            if allowance is None or allowance.direction != direction:
                return None
            allowance.left -= len(block)
            if allowance.left >= 0:
                return None
            self._allowance = None
            allowance.spent.set()
            return allowance.left + len(block)

    def _fire(self, trigger: _Trigger) -> None:
        figures.count(f"connections cut, {'after' if trigger.after else 'before'} the message took effect")
        self.cut()
        trigger.fired.set()


class _Connection:
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.sockets = (client, server)
        self.directions = 2
        self.answer_is_withheld_by: _Trigger | None = None

    def close(self) -> None:
        """Reset both ends, as if a machine failed, and wake the threads that read them."""
        for end in self.sockets:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener
