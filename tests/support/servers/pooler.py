"""PgBouncer in front of the tests' Postgres, in transaction mode: no session lasts longer than its transaction."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg

from tests.support.servers.ports import free_port

WANTED = bool(os.environ.get("POOLER"))
"""Whether the tests connect through a pooler. Needs the program ``pgbouncer``."""


class Pooler:
    """A child process that ends with `stop`.

    Args:
        postgres: The url of any database of the server behind the pooler.
    """

    def __init__(self, postgres: str) -> None:
        server, port = urlsplit(postgres), free_port()
        folder = Path(tempfile.mkdtemp(prefix="pooler-"))
        folder.chmod(0o755)  # PgBouncer refuses to run as root, so another user must be able to read the configuration
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port} user={server.username} password={server.password}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            "pool_mode = transaction\nmax_client_conn = 500\nserver_idle_timeout = 5\n"
        )
        settings.chmod(0o644)
        command = ["pgbouncer", *(["-u", "nobody"] if os.geteuid() == 0 else []), str(settings)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._settings = settings
        # It lets everybody in without asking, which a client that insists on a proof of the password refuses.
        url = urlsplit(postgres.replace(f":{server.port}/", f":{port}/"))
        options = [(name, value) for name, value in parse_qsl(url.query) if name != "require_auth"]
        self.url = url._replace(query=urlencode(options)).geturl()
        self._wait()

    def _wait(self) -> None:
        for _ in range(100):
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
            except psycopg.OperationalError:
                time.sleep(0.1)
            else:
                return
        self.stop()
        raise RuntimeError("PgBouncer did not begin to listen")

    def stop(self) -> None:
        """Stop the pooler, and wait until it has ended."""
        self._process.kill()
        self._process.wait()
        self._settings.unlink()
        self._settings.parent.rmdir()
