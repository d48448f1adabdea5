"""A Postgres server for a user who has none: started by the first process that needs it, stopped by the last.

``directory`` holds ``users.lock`` (a shared lock for each user), ``start.lock`` (one process at a time starts or
stops), ``port`` and ``server.log``. ``data`` and ``password`` lie beside them, or, where the server's account cannot
reach ``directory``, in the folder that the file ``place`` names.
"""

import contextlib
import fcntl
import hashlib
import os
import random
import secrets
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import ClassVar

from ingest_pipeline.errors import ConfigurationError, DatabaseUnavailableError
from ingest_pipeline.postgres_binaries import REMEDY, STATE, ServerAccount, find_binaries, make_folder

_NAME = "ingest_pipeline"
"""Of the database and of its owner."""
_READY_WITHIN = 60.0
"""Seconds; a crashed server replays its log before it answers."""
_PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to clients, any of which could take the server's port while it restarts."""
_RETRY_FOR = 10.0
"""Seconds; what a killed postmaster leaves behind goes away after a few."""


class EmbeddedPostgres:
    """A server on 127.0.0.1, shared by every process that names the same directory.

    Args:
        directory: Created if absent. Its name may hold anything but a line break.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._log = self._directory / "server.log"
        self._account = ServerAccount()
        self._share = _Share(self._directory / "users.lock")

    def start(self) -> str:
        """Find the running server or start it, and count this process among its users until `release` or death.

        Returns:
            A ``postgresql://`` url with the password in it.

        Raises:
            MissingExtraError: There are no Postgres programs on this machine.
            ConfigurationError: The directory, the account or the programs do not serve.
            DatabaseUnavailableError: The server does not come up.
        """
        with self._one_at_a_time():
            self._share.take()
            try:
                if not self._data.exists():
                    self._initialize()
                port = self._running_port() or self._launch()
                password = (self._place / "password").read_text()
            except BaseException:
                self._share.drop()
                raise
        return f"postgresql://{_NAME}:{password}@127.0.0.1:{port}/{_NAME}"

    def release(self) -> None:
        """Give the server up; the last user stops it. Does nothing if `start` was not called.

        Raises:
            DatabaseUnavailableError: The server does not stop.
        """
        if not self._share.taken:
            return
        with self._one_at_a_time():
            try:
                if self._share.is_last():
                    self._stop("fast")
            finally:
                self._share.drop()

    def restart(self, *, immediate: bool = False) -> None:
        """Stop the server under its users, as a crash does if ``immediate``, and start it on the same port."""
        with self._one_at_a_time():
            self._stop("immediate" if immediate else "fast")
            self._launch()

    def postmaster_pid(self) -> int | None:
        """The server's process id, or None if it does not run."""
        pid = int(self._pid_file()[0] or 0)
        return pid if self._mark.encode() in _command_line(pid) else None

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Generator[None]:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            lock = (self._directory / "start.lock").open("ab")
        except OSError as error:
            message = f"The folder {str(self._directory)!r} cannot hold a database: {error.strerror}"
            raise ConfigurationError(message, REMEDY) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @property
    def _place(self) -> Path:
        """The folder of data and password."""
        note = self._directory / "place"
        return Path(note.read_text()) if note.exists() else self._directory

    def _choose_place(self) -> None:
        """Once, and remembered: data must not seem lost when somebody changes a folder's mode."""
        if self._account.reaches(self._directory):
            return
        place = STATE / _digest(self._directory)
        make_folder(STATE)
        make_folder(place)
        (self._directory / "place").write_text(str(place))

    @property
    def _data(self) -> Path:
        return self._place / "data"

    @property
    def _mark(self) -> str:
        """What tells our server's command line from a process that got its number after a reboot."""
        return f"cluster_name=ingest-{_digest(self._data)}"

    def _initialize(self) -> None:
        self._choose_place()
        binaries = self._binaries()
        password = self._make_password()
        # Under another name until it is whole: a starter killed in here leaves nothing that passes for a database.
        new = Path(tempfile.mkdtemp(prefix="data.", dir=self._place))
        self._account.own(new)
        options = ["--no-locale", "--encoding=UTF8", "--data-checksums", "--no-instructions", "--auth=scram-sha-256"]
        initdb: list[str | Path] = [binaries / "initdb", "-U", _NAME, *options, "--pwfile", password]
        made = self._account.run(initdb, data=new)
        if made.returncode == 0:
            # Without a server, since not every installation has psql or createdb.
            server = binaries / "postgres"
            made = self._account.run([server, "--single", "postgres"], data=new, text=f"CREATE DATABASE {_NAME};\n")
        if made.returncode != 0 or "ERROR:" in made.stderr:
            shutil.rmtree(new, ignore_errors=True)
            message = f"No database could be made in {str(self._place)!r}: {_last_lines(made.stderr)}"
            raise ConfigurationError(message, REMEDY)
        new.rename(self._data)

    def _make_password(self) -> Path:
        password = self._place / "password"
        if not password.exists():
            new = self._place / "password.new"
            new.unlink(missing_ok=True)
            new.touch(mode=0o600)
            new.write_text(secrets.token_hex(16))
            self._account.own(new)
            new.rename(password)
        return password

    def _running_port(self) -> int | None:
        """The port of a server that runs already, once it is ready."""
        deadline = time.monotonic() + _READY_WITHIN
        while self.postmaster_pid() is not None:
            lines = self._pid_file()
            # Asked as well, since a server that was just killed is ready by its file until the kernel is done with it.
            if lines[7].strip() == "ready" and _answers(port := int(lines[3])):
                return port
            if time.monotonic() > deadline:
                raise self._failure("does not become ready")
            time.sleep(0.05)
        return None

    def _launch(self) -> int:
        pg_ctl = self._binaries() / "pg_ctl"
        wait = ["-w", "-t", str(int(_READY_WITHIN))]
        self._remove_stale_pid_file()
        deadline = time.monotonic() + _RETRY_FOR
        while True:
            port = self._choose_port()
            options = f"-p {port} -k '' -c listen_addresses=127.0.0.1 -c {self._mark}"
            with self._log.open("ab") as log:
                done = self._account.run([pg_ctl, "start", *wait, "-o", options], data=self._data, output=log)
            if done.returncode == 0:
                return port
            if time.monotonic() > deadline:
                raise self._failure("does not start")
            time.sleep(0.2)

    def _stop(self, mode: str) -> None:
        if self.postmaster_pid() is None:
            return
        done = self._account.run([self._binaries() / "pg_ctl", "stop", "-w", "-m", mode], data=self._data)
        if done.returncode != 0 and self.postmaster_pid() is not None:
            raise self._failure("does not stop")

    def _binaries(self) -> Path:
        marker = self._data / "PG_VERSION"
        return find_binaries(self._account, marker.read_text().strip() if marker.exists() else None)

    def _choose_port(self) -> int:
        """The port of last time, for the sake of urls handed out then, unless somebody else has it now."""
        note = self._directory / "port"
        noted = [int(note.read_text())] if note.exists() else []
        for port in (*noted, *random.sample(_PORTS, len(_PORTS))):
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
                note.write_text(str(port))
                return port
        raise self._failure("finds no free port")

    def _pid_file(self) -> list[str]:
        """Lines of ``postmaster.pid``: 0 is the process id, 3 the port, 7 the state; empty where it has none."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            lines = []
        return lines + [""] * (8 - len(lines))

    def _remove_stale_pid_file(self) -> None:
        """After a reboot any process may have the old number, and the server would refuse to start for ever."""
        holder = _command_line(int(self._pid_file()[0] or 0))
        if holder and b"postgres" not in holder:
            (self._data / "postmaster.pid").unlink()

    def _failure(self, what: str) -> DatabaseUnavailableError:
        log = self._log.read_text(errors="replace") if self._log.exists() else ""
        remedy = f"Its log is {str(self._log)!r}. {REMEDY}"
        return DatabaseUnavailableError(f"The embedded Postgres {what}: {_last_lines(log)}", remedy)


class _Share:
    """A place among the users: a shared lock that the kernel drops with the process, however it dies."""

    taken_here: ClassVar["set[_Share]"] = set()
    """By this process. Held here, for who keeps the url may not keep the object."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    @property
    def taken(self) -> bool:
        return self in self.taken_here

    def take(self) -> None:
        if not self.taken:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self.taken_here.add(self)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def is_last(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def drop(self) -> None:
        if self.taken:
            self.taken_here.remove(self)
            os.close(self._descriptor)

    @classmethod
    def drop_all(cls) -> None:
        for share in list(cls.taken_here):
            share.drop()


# A forked child has its parent's lock: it would count as a user while it lives, and stop the server under its parent.
os.register_at_fork(after_in_child=_Share.drop_all)


def _answers(port: int) -> bool:
    """Whether a server answers whether it speaks TLS, which it says before it asks who is there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(struct.pack("!ii", 8, 80877103))
        return connection.recv(1) in {b"S", b"N"}
    return False


def _digest(path: Path) -> str:
    return hashlib.sha256(bytes(path)).hexdigest()[:16]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _last_lines(output: str) -> str:
    """What a program said last, as one line, without what pg_ctl says about it."""
    lines = [line.strip() for line in output.splitlines()]
    told = [
        line for line in lines if line and not line.startswith(("pg_ctl:", "waiting for", "stopped waiting", "Examine"))
    ]
    return " / ".join(told[-4:])
