"""The port of `ingest-pipeline ui`."""

from __future__ import annotations

import socket

from click.testing import CliRunner

from ingest_pipeline.cli.main import main


def test_a_port_that_another_program_has_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = CliRunner().invoke(main, ["ui", "--demo", "--port", str(port)])
    assert done.exit_code != 0
    assert f"Port {port} of 127.0.0.1 cannot be used: Address already in use. Choose another" in done.stderr
