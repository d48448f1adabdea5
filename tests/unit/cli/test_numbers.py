"""What the command line says about a number that it cannot use."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from ingest_pipeline.cli.main import main

NO_VERSION = "is not the number of a version. `ingest-pipeline history` lists the versions."
NO_PORT = "is not a whole number from 0 to 65535."


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("rollback --to abc", f"Invalid value for '--to': 'abc' {NO_VERSION}"),
        ("rollback --to 0", f"'0' {NO_VERSION}"),
        ("rollback --to 99999999999999999999", f"'99999999999999999999' {NO_VERSION}"),
        ("ui --demo --port 99999", f"Invalid value for '--port': '99999' {NO_PORT}"),
        ("ui --port http", f"'http' {NO_PORT}"),
        ("mcp --http --port 99999", f"'99999' {NO_PORT}"),
        ("mcp --http --port -1", f"'-1' {NO_PORT}"),
        ("metrics --port 65536", f"'65536' {NO_PORT}"),
        ("search x --limit many", "'many' is not a whole number from 1 to 100000."),
        ("history --limit 0", "'0' is not a whole number from 1 to 100000."),
        ("eval --k 2.5", "'2.5' is not a whole number from 1 to 1000."),
        ("ingest --workers 0", "'0' is not a whole number of at least 1."),
    ],
)
def test_a_number_that_cannot_be_used_is_refused_with_those_that_can(command: str, says: str) -> None:
    done = CliRunner().invoke(main, command.split())
    assert done.exit_code == 2
    assert says in done.stderr
