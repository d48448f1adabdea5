"""Wrong inputs at the command line: one line that says what happened and what to do, and an honest exit status."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.dagster.cli import Cli
from tests.support.servers.embedding_server import EmbeddingServer, Fault
from tests.support.servers.s3 import S3Server
from tests.support.world import paragraphs
from tools import reference, wrong_inputs

pytestmark = pytest.mark.promise("error-lines")

_PLACES_IN_LANCE = re.compile(r"\.rs:\d|rustc|/runner/")


@pytest.fixture
def cli(cli: Cli) -> Cli:
    cli.put("a.txt", paragraphs("alpha", 2))
    cli.put("sub/b.txt", paragraphs("beta", 2))
    return cli


def fails(cli: Cli, status: int, *arguments: str, **environment: str) -> str:
    """The one line of a command that fails with this status."""
    done = cli.run(*arguments, **environment)
    assert done.exit_code == status, (done.stdout, done.stderr)
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert line.endswith((".", "?", "..."))
    assert not _PLACES_IN_LANCE.search(line)
    return line


SETTINGS = [
    ("ingest", {"INGEST_SOURCE": "nowhere"}, "does not exist"),
    ("ingest", {"INGEST_SOURCE": "ftp://host/x"}, "neither a path nor s3://"),
    ("ingest", {"INGEST_CORPUS": "My Corpus"}, "INGEST_CORPUS"),
    ("ingest", {"INGEST_PARTITION_BY": "bucket:x"}, "INGEST_PARTITION_BY"),
    ("ingest", {"INGEST_CHUNK_SIZE": "1k"}, "INGEST_CHUNK_SIZE is '1k'"),
    ("ingest", {"INGEST_CHUNK_SIZE": "0"}, "INGEST_CHUNK_SIZE between 50"),
    ("ingest", {"INGEST_CHUNK_OVERLAP": "2000"}, "below INGEST_CHUNK_SIZE"),
    ("ingest", {"INGEST_EMBEDDING_DIMENSIONS": "0"}, "1 or more"),
    ("plan", {"INGEST_RETENTION_DAYS": "-3"}, "INGEST_RETENTION_DAYS is '-3'"),
    ("plan", {"INGEST_CHUNKSIZE": "500"}, "Did you mean INGEST_CHUNK_SIZE?"),
    ("plan", {"INGEST_XYZ": "red"}, "The known ones are INGEST_ACCESS, INGEST_CHUNKER"),
    ("plan", {"INGEST_EMBEDDING_PRICES": "cheap"}, "INGEST_EMBEDDING_PRICES"),
    ("plan", {"INGEST_LANCEDB_URI": "ftp://me:hunter2@host/x"}, "INGEST_LANCEDB_URI"),
    ("plan", {"INGEST_LANCEDB_URI": "lake/docs.lance/data"}, "no other table can be in it"),
    ("plan", {"INGEST_DATABASE_URL": "sqlite:///x.db"}, "must begin with postgresql://"),
    ("plan", {"INGEST_DATABASE_URL": "postgresql://me:hunter2@host:port/db"}, "number where its port should be"),
    ("ingest", {"OPENAI_BASE_URL": "https://me:hunter2@[host/v1"}, "is not an HTTP address"),
    ("status", {"INGEST_CORPUS": "other"}, "There is no corpus 'other'"),
    ("audit", {"INGEST_CORPUS": "other"}, "There is no corpus 'other'"),
]


def test_wrong_settings_are_refused_before_anything_is_done(cli: Cli, embeddings: EmbeddingServer) -> None:
    for command, environment, said in SETTINGS:
        line = fails(cli, 2, command, **environment)
        assert said in line
        assert "hunter2" not in line
    assert embeddings.requests == 0
    assert not (cli.directory / "state/lancedb").exists()


def test_a_database_that_cannot_be_used_is_named_without_its_password(cli: Cli, database_url: str) -> None:
    parts = conninfo_to_dict(database_url)
    place = f"{parts['host']}:{parts['port']}"
    for url in (
        "postgresql://me:hunter2@127.0.0.1:1/db",
        f"postgresql://{parts['user']}:hunter2@{place}/no_such_database",
        f"postgresql://nobody_knows_me:hunter2@{place}/{parts['dbname']}",
    ):
        line = fails(cli, 1, "status", INGEST_DATABASE_URL=url)
        assert "Postgres at 127.0.0.1" in line
        assert "hunter2" not in line


def test_wrong_names_are_refused_with_a_suggestion(cli: Cli, embeddings: EmbeddingServer) -> None:
    cli.json("ingest")
    embedded = embeddings.embedded
    source = cli.environment["INGEST_SOURCE"]
    for arguments, said in [
        (("ingest", "nope.txt"), "There is no document 'nope.txt'"),
        (("ingest", "sub"), "It is a folder"),
        (("ingest", "sub/"), "It is a folder"),
        (("ingest", f"{source}/sub/b.txt"), "did you mean 'sub/b.txt'?"),
        (("rollback", "--to", "77"), "is no publication"),
        (("rollback", "--to", "2", "nope.txt"), "never had a document 'nope.txt'"),
        (("history", "nope.txt"), "never had a document 'nope.txt'"),
        (("retry", "nope.txt"), "so nothing was changed"),
        (("search", " "), "The question is empty"),
        (("search", "x", "--where", "colour=1"), "Columns are key"),
    ]:
        assert said in fails(cli, 2, *arguments)
    assert embeddings.embedded == embedded
    assert cli.json("audit")["violations"] == []


def test_a_source_without_documents_says_so(cli: Cli, s3: S3Server) -> None:
    empty = {**s3.env, "INGEST_SOURCE": s3.url("no/such/prefix")}
    planned = cli.run("plan", **empty)
    assert planned.exit_code == 0
    assert f"There is nothing to ingest in {s3.url('no/such/prefix')}" in planned.stderr
    assert "NoSuchBucket" in fails(cli, 1, "ingest", **{**empty, "INGEST_SOURCE": "s3://no-such-bucket/x"})


def test_a_refused_key_and_a_foreign_table_are_configuration_errors(cli: Cli, embeddings: EmbeddingServer) -> None:
    lance.write_dataset(pa.table({"x": [1]}), f"{cli.directory}/state/lancedb/foreign.lance")
    embeddings.fail_next(Fault.UNAUTHORIZED, times=9)
    assert "refused the key (401)" in fails(cli, 2, "ingest")
    embeddings.fail_next(Fault.UNAUTHORIZED, times=0)
    assert "was not changed" in fails(cli, 2, "ingest", INGEST_CORPUS="foreign")


def test_each_problem_of_a_table_has_its_own_remedy(cli: Cli) -> None:
    cli.json("ingest")
    table = cli.directory / "state/lancedb/docs.lance"
    shutil.move(table / "data", cli.directory / "data")
    (table / "data").mkdir()
    assert "audit --repair" in fails(cli, 1, "search", "alpha", "--mode", "vector")
    shutil.rmtree(table)
    line = fails(cli, 1, "search", "alpha", "--mode", "vector")
    assert "missing or damaged" in line
    assert "credentials" not in line


def test_an_interrupted_ingest_reports_what_was_kept_and_continues(cli: Cli, embeddings: EmbeddingServer) -> None:
    for number in range(8):
        cli.put(f"{number}.txt", paragraphs(f"topic {number}", 300))
    with (
        embeddings.holding("topic 7") as go,
        subprocess.Popen(
            [sys.executable, "-m", "ingest_pipeline.cli.main", "ingest"],
            env={**os.environ, **cli.environment},
            cwd=cli.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        while embeddings.requests < 3:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        go.set()  # answers in progress are recorded
        _, said = process.communicate(timeout=480)
    assert process.returncode == 130, said
    (line,) = said.splitlines()
    assert line.startswith("Error: `ingest` was interrupted.")
    assert line.endswith("Run `ingest-pipeline ingest` again to continue.")
    assert cli.json("ingest")["problems"] == []
    assert cli.json("audit")["violations"] == []


def test_the_page_of_wrong_inputs_has_what_is_printed(database_url: str, embeddings: EmbeddingServer) -> None:
    page = (reference.REFERENCE / "wrong_inputs.md").read_text()
    # Errors have the first characters of Lance's message, so the path is as short as that of `make reference`.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        printed = wrong_inputs.page(wrong_inputs.Stage(Path(folder) / "handbook", database_url, embeddings))
    assert reference.rendered(page, None, printed) == page, "run `make reference`"


def test_the_page_of_wrong_inputs_has_every_door_and_no_secret() -> None:
    page = (reference.REFERENCE / "wrong_inputs.md").read_text()
    inputs = [one for of_door in wrong_inputs.INPUTS.values() for one in of_door]
    assert len(inputs) >= 30
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == list(wrong_inputs.INPUTS)
    assert len(wrong_inputs.INPUTS) >= 10
    for number, (block, one) in enumerate(
        zip(re.findall(r"```text\n(.*?)```", page, re.DOTALL), inputs, strict=True), 1
    ):
        said = " ".join(block.removeprefix("$ ").removeprefix(one.line).split())
        assert "secret" not in said, number
        assert not one.is_command or re.search(r"(Error|Warning): [^ ].*[.?]$", said), number
        assert not _PLACES_IN_LANCE.search(said)
