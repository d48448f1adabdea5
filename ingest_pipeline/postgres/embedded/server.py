"""A Postgres server for users who have none. The first process that needs it starts it, and the last one stops it.

``directory`` contains ``users.lock`` (each user process has a shared lock), ``start.lock`` (one process at a time
starts or stops the server), ``server.lock`` (locked by the server's processes), ``port``, ``password``, ``server.log``
and ``data``. Only ``data`` belongs to the server's account. The account need not be able to reach ``directory``: the
server inherits a descriptor of ``data``.
"""

import contextlib
import os
import random
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO

from ingest_pipeline.errors import ConfigurationError, DatabaseUnavailableError
from ingest_pipeline.postgres.embedded import keeper
from ingest_pipeline.postgres.embedded.binaries import REMEDY, ServerAccount, find_binaries, opened, server_environment
from ingest_pipeline.postgres.embedded.server_files import flush_folder, private_file, remove_partial, try_lock
from ingest_pipeline.postgres.embedded.share import Share
from ingest_pipeline.postgres.url import write_url
from ingest_pipeline.private_folder import make_private

_NAME = "ingest_pipeline"
"""Name of the database and of its owner."""
_READY_WITHIN = 60.0
"""Seconds until the server must answer. A crashed server replays its log first."""
_STOPS_WITHIN = 60.0
_TURN_WITHIN = 200.0
"""Seconds to wait for other processes that start or stop the server; each of them takes less."""
_PORTS = range(20_000, 32_000)
"""Ports below those that the kernel gives to clients, which could take the port during a restart."""
_RETRY_FOR = 10.0
"""Seconds to retry a start, because another program may take the port between its choice and its use."""
_POLL = 0.02
_ENCRYPTION = "password_encryption=scram-sha-256"
# No client can connect as the superuser, because that role has no password.
_ADMITTED = "host all all 127.0.0.1/32 scram-sha-256\n"


class EmbeddedPostgres:
    """A server on 127.0.0.1, shared by all processes that use the same directory.

    Args:
        directory: Folder of the server, created with access for this account only. Its name has no line break.
        prepare: Statements of one line each that the superuser runs once, when the data are created.
    """

    def __init__(self, directory: Path, *, prepare: Sequence[str] = ()) -> None:
        self._directory = directory.absolute()
        self._data = self._directory / "data"
        self._log = self._directory / "server.log"
        self._prepare = prepare
        self._account = ServerAccount()
        self._share = Share(self._directory / "users.lock")

    def start(self) -> str:
        """Find or start the server, and register this process as a user until `release` or the end of the process.

        Returns:
            A ``postgresql://`` url with a password. Its role owns the database and has no other privileges.

        Raises:
            MissingExtraError: There are no Postgres programs on this machine.
            ConfigurationError: The directory, the account or the programs are unsuitable.
            DatabaseUnavailableError: The server does not start.
        """
        with self._one_at_a_time():
            self._share.take()
            try:
                if not self._data.exists():
                    self._initialize()
                port = self._find_or_launch()
                password = self._password()
            except BaseException:
                self._share.drop()
                raise
        parts = {"user": _NAME, "password": password, "host": "127.0.0.1", "port": str(port), "dbname": _NAME}
        # With SCRAM, another program on the port does not receive the password and cannot impersonate the server.
        return write_url(parts | {"require_auth": "scram-sha-256"})

    def release(self) -> None:
        """Unregister this process; the last user stops the server. Do nothing if `start` was not called.

        Raises:
            DatabaseUnavailableError: The server does not stop.
        """
        if not self._share.taken:
            return
        with self._one_at_a_time():
            try:
                if self._share.is_last():
                    self._stop(signal.SIGINT)
            finally:
                self._share.drop()

    def restart(self, *, immediate: bool = False) -> None:
        """Restart the server on the same port while it is in use. With ``immediate`` the stop is like a crash."""
        with self._one_at_a_time():
            self._stop(signal.SIGQUIT if immediate else signal.SIGINT)
            self._find_or_launch()

    def postmaster_pid(self) -> int | None:
        """Return the server's process id, or None if the server does not run."""
        pid = int(self._pid_file()[0] or 0)
        return pid if self._data.exists() and self._mark.encode() in _command_line(pid) else None

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Generator[None]:
        try:
            make_private(self._directory)
            lock = private_file(self._directory / "start.lock")
        except OSError as error:
            message = f"The folder {str(self._directory)!r} cannot hold a database: {error.strerror}"
            remedy = f"Set INGEST_STATE to a folder that this user may write to. {REMEDY}"
            raise ConfigurationError(message, remedy) from error
        with lock:
            deadline = time.monotonic() + _TURN_WITHIN
            while not try_lock(lock):
                if time.monotonic() > deadline:
                    raise self._failure("is being started or stopped by another process, which does not end")
                time.sleep(_POLL)
            yield

    @property
    def _mark(self) -> str:
        """The argument that distinguishes this server from a process that got its id after a reboot."""
        folder = self._data.stat()
        return f"cluster_name=ingest-{folder.st_dev:x}-{folder.st_ino:x}"

    def _initialize(self) -> None:
        binaries = self._binaries()
        for half in self._directory.glob("data.*"):  # from a process that was killed during initialization
            remove_partial(half)
        # The folder has another name until it is complete, so that a killed process leaves no partial database.
        new = Path(tempfile.mkdtemp(prefix="data.", dir=self._directory))
        self._account.own(new)
        options = ["--no-locale", "--encoding=UTF8", "--data-checksums", "--no-instructions", "--auth=reject"]
        problem = self._run([binaries / "initdb", "-U", "postgres", "--no-sync", *options], new)
        # In single-user mode, because no client can connect as the superuser. Each line is one statement.
        role = f"CREATE ROLE {_NAME} LOGIN PASSWORD '{self._password()}'"
        sessions = {
            "postgres": [role, f"CREATE DATABASE {_NAME} OWNER {_NAME}"],
            _NAME: [f"ALTER SCHEMA public OWNER TO {_NAME}", *self._prepare],
        }
        for database, statements in sessions.items():
            session: list[str | Path] = [binaries / "postgres", "--single", "-F", "-c", _ENCRYPTION, database]
            problem = problem or self._run(session, new, "".join(f"{statement}\n" for statement in statements))
        if not problem:
            (new / "pg_hba.conf").write_text(_ADMITTED)
            problem = self._run([binaries / "initdb", "--sync-only"], new)  # one sync of all files
        if problem:
            shutil.rmtree(new, ignore_errors=True)
            raise ConfigurationError(f"No database could be made in {str(self._directory)!r}: {problem}", REMEDY)
        new.rename(self._data)

    def _run(self, command: Sequence[str | Path], data: Path, text: str = "") -> str:
        """Run a program on a data directory; return its error as one line, empty if it succeeded."""
        done = self._account.run(command, data=data, text=text)
        if done.returncode == 0 and "ERROR:" not in done.stderr:
            return ""
        return _last_lines(done.stderr).replace(self._password(), "***") or f"exit status {done.returncode}"

    def _password(self) -> str:
        """Return the password of the database's owner, which is generated once."""
        password = self._directory / "password"
        if not password.exists():
            new = self._directory / "password.new"
            new.unlink(missing_ok=True)
            with private_file(new) as file:
                file.write(secrets.token_hex(16).encode())
                file.flush()
                os.fsync(file.fileno())
            new.rename(password)
        return password.read_text()

    def _find_or_launch(self) -> int:
        """Wait until the running server is ready, or start one; return its port."""
        deadline = time.monotonic() + _READY_WITHIN
        with private_file(self._directory / "server.lock") as lock:
            # The processes of a server hold the lock, also those of another account or in another container.
            while not try_lock(lock):
                if port := self._ready_port():
                    return port
                if time.monotonic() > deadline:
                    raise self._failure("does not become ready")
                time.sleep(_POLL)
            return self._launch(lock)

    def _ready_port(self) -> int | None:
        lines = self._pid_file()
        # The file alone is not enough: it still says ready for a moment after the server was killed.
        if self.postmaster_pid() and lines[7].strip() == "ready" and _answers(port := int(lines[3])):
            return port
        return None

    def _launch(self, lock: IO[bytes]) -> int:
        server = self._binaries() / "postgres"
        self._remove_stale_pid_file()
        for folder in (self._directory, *self._directory.parents):  # any of them, and what is in them, may be new
            flush_folder(folder)
        deadline = time.monotonic() + _RETRY_FOR
        while True:
            port = self._choose_port()
            options = ["-p", str(port), "-k", "", "-c", "listen_addresses=127.0.0.1", "-c", self._mark]
            if self._comes_up([str(server), *options], lock, port):
                return port
            if time.monotonic() > deadline:
                raise self._failure("does not start")
            time.sleep(0.2)

    def _comes_up(self, server: list[str], lock: IO[bytes], port: int) -> bool:
        """Start a server and its keeper; False if the server ended before it was ready."""
        ended, keepers_end = os.pipe()
        with os.fdopen(ended, "rb") as ending, private_file(self._log) as log, opened(self._data) as data:
            assert data is not None  # noqa: S101  a folder was given
            with os.fdopen(keepers_end, "wb"):
                arguments = [str(self._directory), keepers_end, *self._account.ids, *server]
                command = [sys.executable, "-I", "-S", keeper.__file__, *map(str, arguments)]
                inherited = [keepers_end, data, lock.fileno()]
                environment = server_environment(data)
                try:
                    subprocess.run(  # noqa: S603  # the command is built here
                        command,
                        env=environment,
                        cwd="/",
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        pass_fds=inherited,
                        check=False,
                    )
                except OSError as error:
                    raise self._failure(f"cannot be started by {sys.executable!r} ({error.strerror})") from error
            deadline = time.monotonic() + _READY_WITHIN
            while not select.select([ending], [], [], _POLL)[0]:
                if self._ready_port() == port:
                    return True
                if time.monotonic() > deadline:
                    raise self._failure("does not become ready")
            return False

    def _stop(self, how: signal.Signals) -> None:
        if (pid := self.postmaster_pid()) is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)
        deadline = time.monotonic() + _STOPS_WITHIN
        with private_file(self._directory / "server.lock") as lock:
            while not try_lock(lock):
                if time.monotonic() > deadline:
                    raise self._failure("does not stop")
                time.sleep(_POLL)

    def _binaries(self) -> Path:
        marker = self._data / "PG_VERSION"
        return find_binaries(self._account, marker.read_text().strip() if marker.exists() else None)

    def _choose_port(self) -> int:
        """Return the previous port, so that earlier urls remain valid, or a free one if another program took it."""
        note = self._directory / "port"
        text = note.read_text() if note.exists() else ""
        noted = [int(text)] if text.isdecimal() else []  # a power cut may have emptied the file
        for port in (*noted, *random.sample(_PORTS, len(_PORTS))):
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
                note.write_text(str(port))
                return port
        raise self._failure("finds no free port")

    def _pid_file(self) -> list[str]:
        """Return at least eight lines of ``postmaster.pid``: 0 is the process id, 3 the port, 7 the state."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            lines = []
        return lines + [""] * (8 - len(lines))

    def _remove_stale_pid_file(self) -> None:
        """Remove ``postmaster.pid`` if its process id belongs to an unrelated process.

        This happens after a reboot or in a copy of the folder, and the server would refuse to start. The caller holds
        ``server.lock``, so no embedded server runs. Postgres itself detects a server that was started manually.
        """
        holder = _command_line(int(self._pid_file()[0] or 0))
        if holder and (b"postgres" not in holder or b"cluster_name=ingest-" in holder):
            (self._data / "postmaster.pid").unlink()

    def _failure(self, what: str) -> DatabaseUnavailableError:
        log = self._log.read_text(errors="replace") if self._log.exists() else ""
        remedy = f"Its log is {str(self._log)!r}. {REMEDY}"
        return DatabaseUnavailableError(f"The embedded Postgres {what}: {_last_lines(log)}", remedy)


@contextlib.contextmanager
def served(url: str | None, directory: Path) -> Generator[str]:
    """Yield the url, or without one that of an embedded server, which is used until the block ends.

    Args:
        url: A server of the user's own.
        directory: Folder of the embedded server.

    Raises:
        MissingExtraError: There is no url, and no embedded Postgres is installed.
        DatabaseUnavailableError: The embedded server does not start.
    """
    if url:
        yield url
        return
    server = EmbeddedPostgres(directory)
    try:
        yield server.start()
    finally:
        server.release()


def _answers(port: int) -> bool:
    """Whether a Postgres server answers the TLS request, which precedes authentication."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(struct.pack("!ii", 8, 80877103))
        return connection.recv(1) in {b"S", b"N"}
    return False


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _last_lines(output: str) -> str:
    """Return the last lines of a program's output as one line, without the messages of pg_ctl."""
    lines = [line.strip() for line in output.splitlines()]
    shown = [
        line for line in lines if line and not line.startswith(("pg_ctl:", "waiting for", "stopped waiting", "Examine"))
    ]
    return " / ".join(shown[-4:])
