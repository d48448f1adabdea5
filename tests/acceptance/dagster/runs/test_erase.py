"""After an erasure, other programs find nothing of the document: grep in all files, pg_dump, and Dagster's own API."""

from __future__ import annotations

import subprocess
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from ingest_pipeline.ingestion.context import find_corpus
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.embedded.binaries import ServerAccount, find_binaries
from tests.support.dagster.world import CHUNKS, METADATA, DagsterWorld
from tests.support.world import paragraphs

pytestmark = pytest.mark.promise("erasure")

KEY = "zanzibarova.txt"
PERSON = "Wilhelmina Quincehazel lives at 12 Marmalade Street"


def found_by_grep(*folders: Path) -> set[str]:
    """Files with the person or the key, outside of the log of Postgres."""
    patterns = ["-e", "Quincehazel", "-e", "quincehazel", "-e", "Marmalade", "-e", KEY.removesuffix(".txt")]
    done = subprocess.run(
        ["grep", "-raliF", *patterns, *map(str, folders)], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return set(done.stdout.splitlines())


def folder_of_database(server: Path, url: str) -> Path:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return server / "data" / "base" / str(row[0])


def dump_of(url: str) -> str:
    """All rows and definitions of the database, as pg_dump writes them."""
    done = subprocess.run(
        [find_binaries(ServerAccount(), None) / "pg_dump", url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def erase(dagster: DagsterWorld) -> dg.ExecuteInProcessResult:
    configuration = {"ops": {"docs_erase": {"config": {"keys": [KEY], "reason": "a request"}}}}
    job = dagster.definitions.resolve_job_def("docs_erase_job")
    return job.execute_in_process(run_config=configuration, instance=dagster.instance, raise_on_error=False)


def test_grep_and_pg_dump_find_nothing_after_the_job(
    dagster: DagsterWorld, postgres_folder: Path, tmp_path: Path
) -> None:
    dagster.put(KEY, f"{PERSON}\n\n{paragraphs('alpha', 1)}")
    dagster.put("b.txt", paragraphs("beta", 1))
    assert dagster.run().success
    dagster.put(KEY, f"{paragraphs('alpha', 1)}\n\n{PERSON}, as ever")
    assert dagster.run(KEY).success
    url = dagster.settings.database_url or ""
    rows = folder_of_database(postgres_folder, url)
    places = (tmp_path / "state", rows)
    assert any(name.startswith(str(tmp_path / "state")) for name in found_by_grep(*places)), "the table has it"
    with psycopg.connect(url, autocommit=True) as connection:
        # The server keeps changed pages in memory for minutes. This writes the rows to the disk.
        connection.execute("VACUUM (FULL) ingest_pipeline.document")
    before = dump_of(url)
    assert any(name.startswith(str(rows)) for name in found_by_grep(*places)), "Postgres has it on the disk"
    assert "Quincehazel" in before, "Dagster has a preview of the text"
    assert KEY in before
    done = erase(dagster)
    assert done.success, [event.message for event in done.all_events if event.is_failure]
    assert found_by_grep(*places) == set()
    after = dump_of(url)
    for word in ("Quincehazel", "Marmalade", KEY):
        assert word not in after, [line for line in after.splitlines() if word in line]
    assert dagster.audit().violations == []
    check_dagster_works(dagster)


def check_dagster_works(dagster: DagsterWorld) -> None:
    """Dagster shows the rest as before, and the sensor does not request the document again."""
    assert set(dagster.instance.get_dynamic_partitions("docs_documents")) == {"b.txt"}
    assert dagster.materialized(METADATA) == {"b.txt"}
    assert dagster.latest(CHUNKS, "b.txt")
    for run in dagster.instance.get_runs():
        assert dagster.instance.all_logs(run.run_id) is not None
        assert KEY not in str(run)
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SkipReason)
    assert isinstance(dagster.tick("docs_recovery_sensor"), dg.SkipReason)
    assert dagster.run().success
    with Database(dagster.settings.database_url or "") as database:
        texts = find_corpus(database, dagster.settings).table
        assert texts.count(texts.latest_version(), f"document = '{KEY}'") == 0
