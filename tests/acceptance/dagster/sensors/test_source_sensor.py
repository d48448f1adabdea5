"""The source sensor on a real instance: what it requests, in which pages, and what it does not let go."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from uuid import uuid4

import dagster as dg
import psycopg
import pytest

from ingest_pipeline.cli import _session
from ingest_pipeline.errors import ConfigurationError, OtherDatabaseError
from ingest_pipeline.postgres.catalog import reports
from tests.support.dagster.cli import Cli, environment_of
from tests.support.dagster.world import METADATA, DagsterWorld
from tests.support.servers.embedding_server import POISON, EmbeddingServer
from tests.support.servers.s3 import S3Server
from tests.support.world import mark, paragraphs


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest_pipeline.orchestration.sensors._MAX_PAGE_DOCUMENTS", 3)


def put_many(dagster: DagsterWorld, count: int) -> None:
    for number in range(count):
        dagster.put(f"{number:02}.txt", f"Text of file {number}.")


def remove(dagster: DagsterWorld, *numbers: int) -> None:
    for number in numbers:
        (Path(dagster.settings.source) / f"{number:02}.txt").unlink()


def reason(result: object) -> str:
    assert isinstance(result, dg.SkipReason), result
    return str(result.skip_message)


def requested(result: object) -> list[str]:
    assert isinstance(result, dg.SensorResult), result
    found: list[str] = []
    for request in result.run_requests or ():
        named = request.run_config["ops"]["docs_ingest"]["config"].get("partitions", [])
        found += [request.partition_key] if request.partition_key else named
    return found


def publications(dagster: DagsterWorld) -> int:
    with _session.corpus(dagster.settings) as corpus, corpus.database.transaction() as connection:
        return int(reports.totals(connection, corpus.generation)["publications"])


def behind(dagster: DagsterWorld) -> int:
    """What the last comparison of the whole source recorded."""
    with _session.corpus(dagster.settings) as corpus, corpus.database.transaction() as connection:
        row = connection.execute("SELECT behind FROM ingest_pipeline.source_comparison").fetchone()
    assert row is not None
    return int(row["behind"])


def test_a_thousand_scattered_changes_share_a_run_and_a_publication(dagster: DagsterWorld) -> None:
    put_many(dagster, 60)
    dagster.run()
    before = publications(dagster)
    for number in range(0, 60, 2):
        dagster.put(f"{number:02}.txt", f"Other text of file {number}.")
    (run,) = dagster.follow()
    assert run.success
    assert publications(dagster) == before + 1
    assert dagster.follow() == []


@pytest.mark.usefixtures("small_pages")
def test_pages_cover_everything_and_only_the_cursor_records_the_position(dagster: DagsterWorld) -> None:
    put_many(dagster, 8)
    pages = [requested(dagster.tick("docs_source_sensor")) for _ in range(3)]
    assert [len(page) for page in pages] == [3, 3, 2]
    assert sorted(name for page in pages for name in page) == [f"{number:02}.txt" for number in range(8)]
    assert json.loads(dagster.cursor or "")["after"] == ""


@pytest.mark.usefixtures("small_pages")
def test_a_lost_cursor_loses_nothing(dagster: DagsterWorld) -> None:
    put_many(dagster, 7)
    dagster.tick("docs_source_sensor")
    for cursor in (None, "garbage"):
        dagster.cursor = cursor
        assert requested(dagster.tick("docs_source_sensor")) == ["00.txt", "01.txt", "02.txt"]
    dagster.cursor = None
    rest = [requested(dagster.tick("docs_source_sensor")) for _ in range(3)]
    assert [len(page) for page in rest] == [3, 3, 1]


@pytest.mark.usefixtures("small_pages")
def test_removals_over_several_pages_are_requested_after_a_whole_pass(dagster: DagsterWorld) -> None:
    put_many(dagster, 12)
    dagster.run()
    remove(dagster, 1, 4, 7, 9, 11)
    first = [dagster.tick("docs_source_sensor") for _ in range(2)]
    assert all(isinstance(result, dg.SkipReason) for result in first)
    assert dagster.audit().documents == 12
    # The lag is that of the whole pass.
    assert behind(dagster) == 5
    runs = [run for _ in range(2) for run in dagster.follow()]
    assert all(run.success for run in runs)
    assert dagster.audit().documents == 7


def test_a_listing_that_lacks_most_documents_removes_nothing_and_names_the_confirmation(
    dagster: DagsterWorld, tmp_path: Path, database_url: str, embeddings: EmbeddingServer
) -> None:
    put_many(dagster, 24)
    dagster.run()
    remove(dagster, *range(13))
    said = reason(dagster.tick("docs_source_sensor"))
    assert "13 of 24 documents" in said
    assert "--confirm-removals" in said
    refused = dagster.run()
    assert not refused.success
    assert dagster.audit().documents == 24
    cli = Cli(tmp_path, environment_of(tmp_path, database_url, embeddings))
    done = cli.run("ingest")
    assert done.exit_code == 1
    assert "13 of 24 documents" in done.stderr
    assert "13 of 24 documents" in cli.run("plan").stderr
    assert dagster.run(confirm_removals=True).success
    assert dagster.audit().documents == 11
    remove(dagster, *range(13, 24))
    assert "11 of 11" in reason(dagster.tick("docs_source_sensor"))
    assert cli.run("ingest", "--confirm-removals").exit_code == 0
    assert dagster.audit().documents == 0


def test_new_documents_are_published_even_if_removals_are_withheld(dagster: DagsterWorld) -> None:
    put_many(dagster, 24)
    dagster.run()
    remove(dagster, *range(13))
    dagster.put("new.txt", "Something new.")
    (run,) = dagster.follow()
    assert run.success
    assert dagster.audit().documents == 25


def test_a_missing_source_removes_nothing(dagster: DagsterWorld) -> None:
    put_many(dagster, 3)
    dagster.run()
    source = Path(dagster.settings.source)
    source.rename(source.with_name("elsewhere"))
    with pytest.raises(ConfigurationError, match="does not exist"):
        dagster.tick("docs_source_sensor")
    assert not dagster.run(partition="01.txt").success
    assert dagster.audit().documents == 3


def test_runs_over_other_partitions_are_requested_while_one_is_in_progress(dagster: DagsterWorld) -> None:
    put_many(dagster, 8)
    (request,) = list(getattr(dagster.tick("docs_source_sensor"), "run_requests", None) or ())
    job = dagster.definitions.resolve_job_def("docs_ingest_job")
    under_way = dagster.instance.create_run_for_job(
        job, run_config=request.run_config, status=dg.DagsterRunStatus.STARTED
    )
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SkipReason)
    dagster.put("new.txt", "Something new.")
    assert requested(dagster.tick("docs_source_sensor")) == ["new.txt"]
    dagster.instance.report_run_failed(under_way, "gone")
    assert len(requested(dagster.tick("docs_source_sensor"))) == 9
    dagster.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert "over all documents" in reason(dagster.tick("docs_source_sensor"))


def test_partitions_of_a_backfill_in_progress_are_not_requested(dagster: DagsterWorld) -> None:
    put_many(dagster, 4)
    names = [f"{number:02}.txt" for number in range(4)]
    dagster.instance.add_dynamic_partitions("docs_documents", names)
    for corpus, first in (("docs", 1), ("other", 0)):
        run = dg.DagsterRun(
            "__ASSET_JOB",
            status=dg.DagsterRunStatus.STARTED,
            asset_selection=frozenset({dg.AssetKey([corpus, "metadata"])}),
            tags={"dagster/asset_partition_range_start": names[first], "dagster/asset_partition_range_end": names[2]},
        )
        dagster.instance.add_run(run)
    assert requested(dagster.tick("docs_source_sensor")) == [names[0], names[3]]


def test_a_too_recent_file_waits(dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_MIN_AGE_SECONDS", "3600")
    dagster.settings = type(dagster.settings).from_environment()
    path = dagster.put("a.txt", "Half of")
    assert "1 was modified too recently" in reason(dagster.tick("docs_source_sensor"))
    past = time.time() - 7200
    os.utime(path, (past, past))
    assert requested(dagster.tick("docs_source_sensor")) == ["a.txt"]


def test_excluded_files_are_not_requested_and_their_documents_are_removed(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("a.md", "b.txt", "c.txt", "drafts/d.txt"):
        dagster.put(key, paragraphs(key, 1))
    dagster.run()
    monkeypatch.setenv("INGEST_INCLUDE", "*.txt")
    monkeypatch.setenv("INGEST_EXCLUDE", "/drafts/**:*.log")
    dagster.settings = type(dagster.settings).from_environment()
    dagster.put("e.log", "A log.")
    assert sorted(requested(dagster.tick("docs_source_sensor"))) == ["a.md", "drafts/d.txt"]
    dagster.follow()
    assert dagster.materialized(METADATA) >= {"b.txt", "c.txt"}
    assert dagster.audit().documents == 2
    assert "1 is excluded (excluded)" in reason(dagster.tick("docs_source_sensor"))


def test_dagsters_retries_and_ours_do_not_multiply(dagster: DagsterWorld, database_url: str) -> None:
    dagster.put("bad.txt", f"{POISON} is refused by the API.")
    dagster.put("good.txt", "Good.")

    def attempts() -> int:
        with psycopg.connect(database_url) as connection:
            row = connection.execute("SELECT attempts FROM ingest_pipeline.failure WHERE key = 'bad.txt'").fetchone()
        assert row is not None
        return int(row[0])

    assert not dagster.run(partitions=["bad.txt", "good.txt"]).success
    assert attempts() == 1
    for number in range(1, 5):
        retried = dagster.run(partitions=["bad.txt", "good.txt"], tags={"dagster/retry_number": str(number)})
        assert not retried.success, "the document is still as bad"
    assert attempts() == 1
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SkipReason)


def test_the_nightly_schedule_ingests_all_that_differs_in_one_run(dagster: DagsterWorld, database_url: str) -> None:
    put_many(dagster, 9)
    dagster.put("bad.txt", f"{POISON} is refused by the API.")
    (schedule,) = [found for found in dagster.definitions.schedules or () if found.name == "docs_stale_schedule"]
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    with dg.build_schedule_context(instance=dagster.instance) as context:
        (request,) = list(schedule.evaluate_tick(context).run_requests or [])
    assert not dagster.launch(request).success
    assert dagster.audit().documents == 9
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE ingest_pipeline.failure SET attempts = 3")
    dagster.put("03.txt", "Other text.")
    assert dagster.launch(request).success, "a document in quarantine is left alone"
    assert dagster.materialized(METADATA) == {f"{number:02}.txt" for number in range(9)}


def test_a_file_on_s3_that_is_reverted_and_restored_is_detected(
    tmp_path: Path, database_url: str, embeddings: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, s3: S3Server
) -> None:
    places = {**s3.env, "INGEST_SOURCE": s3.url("docs")}
    with DagsterWorld.over(tmp_path, database_url, embeddings, monkeypatch, **places) as dagster:
        first, second = (paragraphs(topic, 2).encode() for topic in ("alpha", "omega"))
        s3.put("docs/other.txt", b"Another file.")
        for body in (first, second, first):
            s3.put("docs/a.txt", body)
            runs = dagster.follow()
            assert runs
            assert all(run.success for run in runs)
        embedded = embeddings.embedded
        assert embedded == 5
        s3.delete("docs/a.txt")
        assert [run.success for run in dagster.follow()] == [True]
        assert dagster.audit().documents == 1
        s3.put("docs/a.txt", first)
        assert [run.success for run in dagster.follow()] == [True]
        assert (dagster.audit().documents, dagster.audit().violations) == (2, [])
        assert embeddings.embedded == embedded
        assert dagster.follow() == []


def test_sensors_report_a_database_older_than_the_table_and_request_nothing(dagster: DagsterWorld) -> None:
    put_many(dagster, 2)
    dagster.run()
    with _session.corpus(dagster.settings) as corpus:
        head = corpus.head().head_version
        # What a database restored from a backup finds: a version of a saga that it does not know.
        unknown = mark(corpus, uuid4(), prepared=False)
        made = corpus.table.stage_restore(head, unknown)
        assert corpus.table.install(made.number, made.manifest, unknown.saga)
    dagster.put("02.txt", "Text of another file.")
    for sensor in ("docs_source_sensor", "docs_recovery_sensor"):
        with pytest.raises(OtherDatabaseError) as refused:
            dagster.tick(sensor)
        assert "which this database does not know" in str(refused.value)
        assert "--rebuild-catalog" in str(refused.value)
    with _session.corpus(dagster.settings) as corpus:
        assert (corpus.head().head_version, corpus.table.latest_version()) == (head, head + 1)


@pytest.mark.promise("workers")
@pytest.mark.usefixtures("small_pages")
def test_a_large_difference_is_shared_among_as_many_runs_as_the_pool_allows(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest_pipeline.orchestration.sensors._LARGE_DIFFERENCE", 2)
    put_many(dagster, 12)
    dagster.run()
    for number in range(10):
        dagster.put(f"new-{number}.txt", f"Text of new file {number}.")
    remove(dagster, 11)
    before = publications(dagster)
    result = dagster.tick("docs_source_sensor")
    assert isinstance(result, dg.SensorResult)
    configs = [request.run_config["ops"]["docs_ingest"]["config"] for request in result.run_requests or ()]
    assert [(one["share"], one["shares"]) for one in configs] == [(0, 2), (1, 2)], "the pool allows two runs"
    runs = [dagster.launch(request) for request in result.run_requests or ()]
    assert all(run.success for run in runs)
    assert publications(dagster) == before + 2, "each run published its share, and removed nothing"
    assert len(dagster.materialized(METADATA)) == 12 + 10
    assert dagster.audit().documents == 12 + 10
    assert dagster.embeddings.embedded == 12 + 10, "no document is in two shares"
    for _ in range(2 * 22 // 3):
        dagster.follow()
    assert dagster.audit().documents == 11 + 10, "the removal follows a pass over all keys"


def test_a_medium_difference_is_shared_by_name(dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest_pipeline.orchestration.run_requests._MIN_SHARED_DOCUMENTS", 3)
    put_many(dagster, 12)
    result = dagster.tick("docs_source_sensor")
    assert isinstance(result, dg.SensorResult)
    assert len(result.run_requests or ()) == 2
    assert sorted(requested(result)) == [f"{number:02}.txt" for number in range(12)]
