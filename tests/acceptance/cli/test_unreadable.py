"""Files that cannot be read are a normal state: listed with reasons, remembered, and failing no run unless told to."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from tests.support.dagster.cli import Cli
from tests.support.dagster.world import METADATA, DagsterWorld
from tests.support.world import paragraphs

pytestmark = pytest.mark.promise("unreadable")

PNG = b"\x89PNG\r\n\x1a\n\0\0"
LATIN = "Caf\u00e9 au lait.".encode("cp1252")


def write(folder: Path, key: str, data: bytes) -> None:
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def source(cli: Cli) -> Path:
    """A text, an image, and a text of unknown encoding."""
    folder = cli.directory / "source"
    cli.put("good.txt", paragraphs("good", 1))
    write(folder, "image.png", PNG)
    write(folder, "latin.txt", LATIN)
    return folder


def test_a_plan_lists_the_first_documents_and_counts_the_others(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest_pipeline.cli.commands.ingestion.plan._MAX_ROWS", 2)
    for number in range(4):
        cli.put(f"{number}.txt", paragraphs(f"topic{number}", 1))
    shown = cli.run("plan").stdout
    assert shown.startswith("4 documents differ")
    assert [f"{number}.txt" in shown for number in range(4)] == [True, True, False, False]
    assert "2 more documents differ; `plan --json` lists all." in shown
    assert len(cli.json("plan")["documents"]) == 4


def test_a_run_skips_unreadable_files_lists_them_with_reasons_and_reads_them_once(cli: Cli, source: Path) -> None:
    reasons = {"binary": 1, "of unknown encoding": 1}
    exact = cli.json("plan", "--exact")
    assert exact["unreadable"] == reasons
    assert {row["document"] for row in exact["unreadable_documents"]} == {"image.png", "latin.txt"}
    done = cli.run("ingest")
    assert done.exit_code == 0
    assert "2 documents were skipped: 1 binary, 1 of unknown encoding." in done.stderr
    assert "1 document published" in done.stdout
    again = cli.json("ingest")
    assert (again["published"], again["skipped"], again["problems"]) == (0, reasons, [])
    status = cli.json("status")
    assert (status["unreadable_documents"], status["failed_documents"], status["stale_documents"]) == (2, 0, 0)
    assert status["unreadable"] == reasons
    found = {row["key"]: row for row in status["unreadable_failures"]}
    assert {key: row["attempts"] for key, row in found.items()} == {"image.png": 1, "latin.txt": 1}
    assert "PNG image" in found["image.png"]["error"]
    shown = cli.run("status").stdout
    assert "2 documents cannot be read: 1 binary, 1 of unknown encoding" in shown
    assert {row["change"] for row in cli.json("plan")["documents"]} == {"unreadable"}

    assert cli.run("ingest", "image.png").exit_code == 0
    attempts = {row["key"]: row["attempts"] for row in cli.json("status")["unreadable_failures"]}
    assert attempts == {"image.png": 2, "latin.txt": 1}, "named, it is read again"
    assert "1 document will be tried again" in cli.run("retry", "image.png").stdout
    write(source, "latin.txt", "Caf\u00e9 au lait.".encode())
    assert cli.json("ingest")["published"] == 1
    assert cli.json("status")["unreadable"] == {"binary": 1}


def test_an_encoding_can_be_named_and_makes_another_recipe(cli: Cli, source: Path) -> None:
    cli.json("ingest")
    assert cli.run("ingest", INGEST_ENCODING="windows-1252").exit_code == 2, "another recipe needs a confirmation"
    done = cli.json("ingest", "--confirm-recipe", INGEST_ENCODING="windows-1252")
    assert (done["published"], done["skipped"]) == (2, {"binary": 1})
    assert done["embedded"] == 1, "the text that was there is cut as before"
    assert cli.json("search", "lait", "--mode", "text")[0]["text"] == "Caf\u00e9 au lait."
    refused = cli.run("ingest", INGEST_ENCODING="utf-16")
    assert refused.exit_code == 2
    assert "extend ASCII" in refused.stderr


def test_with_fail_every_run_over_everything_fails_at_its_end_and_reads_them_once(cli: Cli, source: Path) -> None:
    cli.environment["INGEST_ON_UNREADABLE"] = "fail"
    for _ in range(2):
        done = cli.run("ingest")
        assert done.exit_code == 1
        assert "2 documents of corpus 'docs' could not be ingested" in done.stderr
    status = cli.json("status")
    assert status["documents"] == 1
    assert {row["attempts"] for row in status["unreadable_failures"]} == {1}
    assert cli.run("ingest", INGEST_ON_UNREADABLE="ignore").exit_code == 2


def test_a_file_that_became_unreadable_keeps_what_was_published_and_is_stale_since_then(cli: Cli, source: Path) -> None:
    cli.json("ingest")
    chunks = cli.json("status")["chunks"]
    write(source, "good.txt", b"\0")
    assert cli.json("ingest")["skipped"]["binary"] == 2
    status = cli.json("status")
    assert (status["chunks"], status["stale_documents"]) == (chunks, 1)
    [stale] = [row for row in status["unreadable_failures"] if row["published_version"] is not None]
    assert stale["key"] == "good.txt"
    write(source, "good.txt", b"\0 other")
    cli.json("ingest")
    [later] = [row for row in cli.json("status")["unreadable_failures"] if row["stale_since"] is not None]
    assert later["stale_since"] == stale["stale_since"], "another unreadable file makes it no fresher"
    assert later["failed_at"] > stale["failed_at"]
    assert "stale since" in " ".join(cli.run("status").stdout.split())
    cli.put("good.txt", paragraphs("mended", 1))
    cli.json("ingest")
    assert cli.json("status")["stale_documents"] == 0


def observed(result: dg.ExecuteInProcessResult, name: str) -> list[tuple[str | None, dict[str, object]]]:
    """Partition and metadata of the observations that say something of a name."""
    found = [event.asset_observation_data.asset_observation for event in result.get_asset_observation_events()]
    return [
        (one.partition, {key: value.value for key, value in one.metadata.items()})
        for one in found
        if name in one.metadata
    ]


def test_unreadable_files_have_no_partition_and_are_not_requested_again(
    dagster: DagsterWorld,
) -> None:
    source = Path(dagster.settings.source)
    dagster.put("good.txt", paragraphs("good", 1))
    write(source, "image.png", PNG)
    runs = dagster.follow()
    assert [run.success for run in runs] == [True, True]
    assert dagster.materialized(METADATA) == {"good.txt"}
    assert dagster.instance.get_dynamic_partitions("docs_documents") == ["good.txt"], "a missing one holds others back"
    skip = dagster.tick("docs_source_sensor")
    assert isinstance(skip, dg.SkipReason)
    assert "1 of them is skipped: unreadable" in str(skip.skip_message)
    [(_, said)] = [found for run in runs for found in observed(run, "skipped")]
    assert (said["skipped"], said["skipped_binary"]) == (1, 1)

    assert dagster.failed_checks() == {"quarantine"}
    write(source, "good.txt", b"\0")
    (run,) = dagster.follow()
    assert run.success
    [(partition, stale)] = observed(run, "stale_since")
    assert partition == "good.txt"
    assert "stale_documents" in stale
    assert len(dagster.data_versions("good.txt")) == 1, "what is published is what it was"
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SkipReason)
    evaluations = {one.check_name: one for one in run.get_asset_check_evaluations()}
    quarantine = evaluations["quarantine"]
    assert (quarantine.passed, quarantine.severity) == (False, dg.AssetCheckSeverity.WARN)
    counts = {name: quarantine.metadata[name].value for name in ("unreadable", "unreadable_binary", "stale")}
    assert counts == {"unreadable": 2, "unreadable_binary": 2, "stale": 1}


@pytest.mark.parametrize("scheme", ["folder"])
def test_a_folder_is_complete_without_unreadable_files_and_counts_them(dagster: DagsterWorld) -> None:
    source = Path(dagster.settings.source)
    dagster.put("a/good.txt", paragraphs("good", 1))
    write(source, "a/image.png", PNG)
    write(source, "images/1.png", PNG)
    assert dagster.run().success
    assert dagster.materialized(METADATA) == {"a/"}
    assert dagster.latest(METADATA, "a/")["unreadable"] == 1
    assert dagster.instance.get_dynamic_partitions("docs_folders") == ["a/"]
    assert dagster.run(partitions=["images/"]).success, "a partition of images alone names documents"
    assert dagster.run(partition="a/").success
    assert "1 document cannot be read" in str(dagster.latest(METADATA, "a/")["status"])
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SkipReason)


def test_in_dagster_with_fail_the_run_fails_once_and_shows_the_partition_as_failed(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_ON_UNREADABLE", "fail")
    dagster.settings = type(dagster.settings).from_environment()
    dagster.put("good.txt", paragraphs("good", 1))
    write(Path(dagster.settings.source), "image.png", PNG)
    assert sorted(run.success for run in dagster.follow()) == [False, True]
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SkipReason)
    assert dagster.materialized(METADATA) == {"good.txt"}
