"""The command line from outside: what it prints, how it exits, and what a killed one leaves."""

from __future__ import annotations

import json
import os
import signal
import stat
import tempfile
from pathlib import Path
from unittest.mock import Mock

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ingest_pipeline.postgres.url import parts_of, write_url
from tests.support.dagster.cli import Cli
from tests.support.servers.databases import empty_database
from tests.support.servers.embedding_server import POISON, EmbeddingServer, Fault
from tests.support.world import paragraphs


def test_ingest_then_every_report(cli: Cli, embeddings: EmbeddingServer) -> None:
    cli.put("a.txt", paragraphs("alpha", 3))
    cli.put("folder/b.md", "# Beta\n\n" + paragraphs("beta", 2))
    assert {row["document"] for row in cli.json("plan")["documents"]} == {"a.txt", "folder/b.md"}
    done = cli.json("ingest")
    assert (done["published"], done["problems"]) == (2, [])
    assert done["embedded"] == embeddings.embedded > 0

    status = cli.json("status")
    assert (status["documents"], status["sagas_in_doubt"]) == (2, 0)
    assert status["head_version"] == status["latest_version"] == done["version"]
    assert cli.json("plan")["documents"] == []
    assert cli.json("audit")["violations"] == []
    published, created = cli.json("history")
    assert (published["what"], published["documents"], published["retained"]) == ("ingest", 2, True)
    assert created["what"] == "create"
    (change,) = cli.json("history", "a.txt")
    assert (change["version"], change["document"], change["retained"]) == (done["version"], "a.txt", True)
    assert cli.json("sweep", "--dry-run")["files"] == []
    maintained = cli.json("maintain")
    assert [index["unindexed"] for index in maintained["indices"] if index["name"] == "text_idx"] == [0]
    assert maintained["after"]["fragments"] == maintained["before"]["fragments"] == 1
    assert cli.json("recover")["compensated"] == []


@pytest.mark.promise("secrets")
def test_folders_with_text_are_private_or_reported_as_open(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    cli.put("a.txt", paragraphs("alpha", 1)).chmod(0o600)
    before = os.umask(0)
    try:
        cli.json("ingest")
    finally:
        os.umask(before)
    state = tmp_path / "state"
    made = {path.relative_to(state).parts[0] for path in state.rglob("*")}
    assert {"dagster", "lancedb"} <= made
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (state, state / "dagster", state / "lancedb")} == {0o700}
    assert "Other accounts" not in cli.run("status").stderr
    with tempfile.TemporaryDirectory() as shared:
        Path(shared).chmod(0o755)
        cli.environment["INGEST_LANCEDB_URI"] = shared
        cli.environment["INGEST_CORPUS"] = "shared"
        cli.json("ingest")
        assert f"{shared}/shared.lance" in cli.run("status").stderr


def test_a_hit_opened_at_its_offsets_is_the_chunk(cli: Cli) -> None:
    path = cli.put("a.txt", paragraphs("alpha", 5))
    cli.json("ingest")
    for hit in cli.json("search", "alpha 3", "--limit", "3"):
        assert path.read_text()[hit["start_offset"] : hit["end_offset"]] == hit["text"]


def test_a_search_by_words_in_some_documents(cli: Cli, embeddings: EmbeddingServer) -> None:
    cli.put("guide/a.txt", "Bread is made from flour.")
    cli.put("b.txt", "Flour is made from grain.")
    cli.json("ingest")
    requests = embeddings.requests
    (hit,) = cli.json("search", "flour", "--mode", "text", "--where", "key=guide/*")
    assert (hit["document"], hit["published_version"], hit["version"]) == ("guide/a.txt", 2, 2)
    assert embeddings.requests == requests
    assert {hit["document"] for hit in cli.json("search", "flour")} == {"guide/a.txt", "b.txt"}
    refused = cli.run("search", "flour", "--where", "colour=white")
    assert refused.exit_code == 2
    assert "last_modified" in refused.stderr


def test_some_documents_only(cli: Cli) -> None:
    cli.put("a.txt", paragraphs("alpha", 1))
    cli.put("b.txt", paragraphs("beta", 1))
    assert cli.json("ingest", "b.txt")["published"] == 1
    assert [row["document"] for row in cli.json("plan")["documents"]] == ["a.txt"]


@pytest.mark.promise("again")
def test_ingesting_again_embeds_nothing_and_keeps_head(cli: Cli, embeddings: EmbeddingServer) -> None:
    cli.put("a.txt", paragraphs("alpha", 2))
    cli.json("ingest")
    before = cli.json("status")["head_version"], embeddings.requests
    assert cli.json("ingest")["published"] == 0
    assert (cli.json("status")["head_version"], embeddings.requests) == before


def test_a_bad_document_fails_the_run_and_not_the_others(cli: Cli) -> None:
    cli.put("good.txt", paragraphs("good", 1))
    cli.put("bad.txt", f"{POISON} is refused by the API.")
    done = cli.run("ingest")
    assert done.exit_code == 1
    assert "1 document published" in done.stdout
    assert "'bad.txt'" in done.stderr
    status = cli.json("status")
    assert [failure["key"] for failure in status["failures"]] == ["bad.txt"]
    assert cli.json("audit")["documents"] == 1


@pytest.mark.promise("honest-reports")
def test_a_killed_run_is_settled_and_pays_nothing_again(cli: Cli, embeddings: EmbeddingServer) -> None:
    cli.put("a.txt", paragraphs("alpha", 4))
    cli.json("ingest")
    cli.put("a.txt", paragraphs("omega", 4))
    died = cli.spawn("ingest", INGEST_FAILPOINTS="lance commit:after=kill")
    assert died.returncode == -signal.SIGKILL
    embedded = embeddings.embedded
    status = cli.json("status")
    assert status["latest_version"] == status["head_version"]

    assert len(cli.json("recover")["abandoned"]) == 1
    done = cli.json("ingest")
    assert (done["published"], done["embedded"], embeddings.embedded) == (1, 0, embedded)
    cli.json("sweep")
    assert cli.json("audit")["violations"] == []


def test_an_audit_that_finds_something_exits_with_3(cli: Cli, database_url: str) -> None:
    cli.put("a.txt", paragraphs("alpha", 3))
    cli.json("ingest")
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM ingest_pipeline.chunk WHERE ordinal = 1")
    done = cli.run("audit", "--json")
    assert done.exit_code == 3
    assert {violation["document"] for violation in json.loads(done.stdout)["violations"]} == {"a.txt"}


def test_a_repair_publishes_only_documents_with_violations(
    cli: Cli, database_url: str, embeddings: EmbeddingServer
) -> None:
    cli.put("a.txt", paragraphs("alpha", 3))
    cli.put("b.txt", paragraphs("beta", 3))
    cli.json("ingest")
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM ingest_pipeline.chunk WHERE document = 'a.txt' AND ordinal = 1")
    embedded, head = embeddings.embedded, cli.json("status")["head_version"]
    refused = cli.run("audit", "--repair")
    assert (refused.exit_code, embeddings.embedded, cli.json("status")["head_version"]) == (2, embedded, head)
    assert "1 document to read" in refused.stderr
    assert "audit --repair --yes" in refused.stderr
    assert cli.json("audit", "--repair", "--yes")["violations"] == []
    assert [len(cli.json("history", key)) for key in ("a.txt", "b.txt")] == [2, 1]
    assert embeddings.embedded <= embedded + 1


def test_a_failure_is_forgotten_with_its_file(cli: Cli) -> None:
    path = cli.put("bad.txt", f"{POISON} is refused by the API.")
    assert cli.run("ingest").exit_code == 1
    path.unlink()
    cli.json("ingest")
    assert cli.json("status")["failures"] == []


def test_retry_lets_a_document_be_ingested_again(cli: Cli) -> None:
    cli.put("bad.txt", f"{POISON} is refused by the API.")
    for _ in range(3):
        cli.run("ingest")
    assert cli.json("status")["failures"][0]["attempts"] == 3
    assert "1 document will be tried again" in cli.run("retry", "bad.txt").stdout
    assert cli.json("status")["failures"] == []


@pytest.mark.parametrize(
    ("environment", "status", "says"),
    [
        ({"INGEST_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, 1, "INGEST_DATABASE_URL"),
        ({"INGEST_DATABASE_URL": "mysql://somewhere"}, 2, "postgresql://"),
        ({"INGEST_DATABASE_URL": "postgresql://me:hunter2/x@127.0.0.1/db"}, 2, "%2F"),
        ({"INGEST_SOURCE": "/nowhere/at/all"}, 2, "does not exist"),
        ({"INGEST_SOURCE": "ftp://somewhere"}, 2, "ftp"),
        ({"INGEST_CORPUS": "No Such-Name"}, 2, "INGEST_CORPUS"),
        ({"INGEST_CHUNK_SIZE": "many"}, 2, "INGEST_CHUNK_SIZE"),
        ({"INGEST_CHUNK_SIZE": "3"}, 2, "50"),
        ({"INGEST_PARTITION_BY": "moon"}, 2, "INGEST_PARTITION_BY"),
        ({"INGEST_EMBEDDING_DIMENSIONS": "17"}, 1, "32"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, 1, "127.0.0.1:1"),
        ({"INGEST_LANCEDB_URI": "/proc/nowhere"}, 1, "INGEST_LANCEDB_URI"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_status_2(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], status: int, says: str
) -> None:
    cli.put("a.txt", paragraphs("alpha", 1))
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)
    done = cli.run("ingest", **environment)
    assert done.exit_code == status, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, done.stderr
    assert says in lines[0]
    assert "Traceback" not in done.stderr


@pytest.mark.promise("secrets")
@pytest.mark.parametrize("form", ["url", "words"])
def test_a_password_of_any_characters_reaches_the_catalog_and_dagster_and_no_output(
    cli: Cli, postgres: str, entrance: str, form: str
) -> None:
    database_url = empty_database(postgres, entrance)  # of which the new role owns everything
    place = parts_of(database_url)
    password, name = "50%/#?@: 'hunter2", f"{place['dbname']}_{form}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), password))
        database = sql.Identifier(place["dbname"])
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, sql.Identifier(name)))
    login = place | {"user": name, "password": password}
    cli.environment["INGEST_DATABASE_URL"] = write_url(login) if form == "url" else make_conninfo(**login)
    cli.put("a.txt", paragraphs("alpha", 1))
    assert cli.json("ingest")["published"] == 1
    said = [cli.run("status"), cli.run("history")]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD 'another'").format(sql.Identifier(name)))
    said.append(cli.run("ingest"))
    assert [done.exit_code for done in said] == [0, 0, 1]
    assert not any("hunter2" in done.output for done in said)


def test_settings_that_contradict_the_corpus_are_refused(cli: Cli, tmp_path: Path) -> None:
    cli.put("a.txt", paragraphs("alpha", 1))
    cli.json("ingest")
    (tmp_path / "elsewhere").mkdir()
    for other in ({"INGEST_EMBEDDING_DIMENSIONS": "16"}, {"INGEST_EMBEDDING_MODEL": "another"}):
        done = cli.run("ingest", **other)
        assert done.exit_code == 0
        assert "keeps that model" in done.stderr
    for wrong in (
        {"INGEST_SOURCE": str(tmp_path / "elsewhere")},
        {"INGEST_LANCEDB_URI": str(tmp_path / "elsewhere")},
    ):
        done = cli.run("ingest", **wrong)
        assert done.exit_code == 2
        assert "Nothing was changed" in done.stderr
    assert cli.json("audit")["violations"] == []


def test_a_refused_key_is_reported_at_once(cli: Cli, embeddings: EmbeddingServer) -> None:
    cli.put("a.txt", paragraphs("alpha", 1))
    embeddings.fail_next(Fault.UNAUTHORIZED)
    done = cli.run("ingest", OPENAI_API_KEY="sk-secret")
    assert done.exit_code == 2
    assert "OPENAI_API_KEY" in done.stderr
    assert "sk-secret" not in done.stdout + done.stderr


def test_reading_a_corpus_that_does_not_exist_names_the_remedy(cli: Cli) -> None:
    done = cli.run("search", "anything")
    assert done.exit_code == 2
    assert "ingest-pipeline ingest" in done.stderr


def test_a_dagster_storage_that_does_not_answer_is_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagster_postgres.utils.calculate_delay", Mock(return_value=0.01))
    cli.put("a.txt", paragraphs("alpha", 1))
    home = tmp_path / "dagster_home"
    home.mkdir()
    storage = {"storage": {"postgres": {"postgres_url": "postgresql+psycopg2://nobody@127.0.0.1:1/none"}}}
    (home / "dagster.yaml").write_text(json.dumps(storage))
    done = cli.run("ingest", DAGSTER_HOME=str(home))
    assert done.exit_code == 1
    assert "Dagster's own tables in Postgres cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_source_that_contains_our_own_files_is_ingested_once(
    tmp_path: Path, database_url: str, embeddings: EmbeddingServer
) -> None:
    cli = Cli.over(tmp_path, database_url, embeddings)
    cli.environment |= {"INGEST_SOURCE": str(tmp_path)}
    cli.put("a.txt", paragraphs("alpha", 1))
    assert cli.json("ingest")["documents"] == 1
    assert cli.json("ingest")["documents"] == 0


def test_unknown_arguments_are_refused_in_one_line(
    tmp_path: Path, database_url: str, embeddings: EmbeddingServer
) -> None:
    cli = Cli.over(tmp_path, database_url, embeddings)
    cli.put("a.txt", paragraphs("alpha", 1))
    with open(os.fsencode(tmp_path / "source") + b"/\xff.txt", "wb") as file:  # noqa: PTH123  a path is text
        file.write(b"beta")
    no_text = os.fsdecode(b"\xff.txt")
    done = cli.run("ingest")
    assert (done.exit_code, "1 inaccessible" in done.stderr) == (0, True)
    assert "Rename the object" in cli.json("status")["unreadable_failures"][0]["error"]
    assert cli.run("ingest", no_text, INGEST_ON_UNREADABLE="fail").exit_code == 1
    assert cli.run("retry", no_text).output == "1 document will be tried again by the next ingest or sensor run\n"
    assert cli.run("history", no_text).exit_code == 2
    for wrong in (
        ["rollback", "--to", "99999999999999999999"],
        ["rollback", "--to", "0"],
        ["history", "--limit", "99999999999999999999"],
        ["search", "alpha", "--limit", "-1"],
    ):
        assert cli.run(*wrong).exit_code == 2, wrong


@pytest.mark.promise("unreadable")
def test_a_document_in_quarantine_is_skipped_by_a_plain_ingest_and_tried_by_name(
    cli: Cli, embeddings: EmbeddingServer
) -> None:
    cli.put("bad.txt", f"{POISON} is refused by the API.")
    cli.put("good.txt", paragraphs("good", 1))
    assert [cli.run("ingest").exit_code for _ in range(3)] == [1, 1, 1]
    requests = embeddings.requests
    done = cli.run("ingest")
    assert (done.exit_code, embeddings.requests) == (0, requests)
    assert "1 document was skipped: 1 in quarantine." in done.stderr
    assert [found["document"] for found in cli.json("ingest")["skipped_documents"]] == ["bad.txt"]
    assert {row["change"] for row in cli.json("plan")["documents"]} == {"in quarantine"}
    assert cli.json("plan", "--exact")["estimate"]["documents"] == 0
    assert cli.json("status")["failures"][0]["attempts"] == 3
    assert cli.run("ingest", "bad.txt").exit_code == 1
    assert embeddings.requests > requests


def test_a_too_recent_empty_file_is_named_and_fails_nothing(cli: Cli) -> None:
    cli.put("a.txt", "")
    done = cli.run("ingest", INGEST_MIN_AGE_SECONDS="3600")
    assert done.exit_code == 0
    assert "1 document was skipped: 1 too recent." in done.stderr
    assert cli.json("status")["documents"] == 0
    assert cli.json("ingest")["published"] == 1
    assert (cli.json("status")["documents"], cli.json("status")["chunks"]) == (1, 0)
