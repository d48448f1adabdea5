"""What `doctor` finds, and what it tells the user to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster_shared.error import SerializableErrorInfo

from ingest_pipeline.cli import _dagster
from ingest_pipeline.config.corpus_config import CorpusConfig
from tests.support.dagster.cli import Cli

Findings = dict[str, list[tuple[str, str, str]]]


def examined(cli: Cli, status: int = 0, **environment: str) -> Findings:
    """What each check found: its verdict, what it said, and the remedy."""
    done = cli.run("doctor", "--json", **environment)
    assert done.exit_code == status, done.stderr
    found: Findings = {}
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    for row in rows:
        found.setdefault(row["check"], []).append((row["verdict"], row["said"], row["remedy"]))
    return found


@pytest.fixture
def filled(cli: Cli) -> Cli:
    cli.put("a.txt", "A text.")
    assert cli.run("ingest").exit_code == 0
    return cli


def test_a_corpus_in_order_lacks_a_daemon_at_most(filled: Cli) -> None:
    found = examined(filled)
    bad = [(check, *one) for check, rows in found.items() for one in rows if one[0] != "ok"]
    assert [one[0] for one in bad if "Landlock" not in one[2]] == ["sensors"]
    assert "daemon is not running" in bad[-1][2]
    assert found.keys() == {"source", "embedding", "parsers", "table", "database", "clocks", "corpus", "sensors"}
    shown = filled.run("doctor", COLUMNS="60").stdout
    assert "0 problems, " in shown
    assert all(len(line) <= 60 for line in shown.splitlines())


def test_before_the_first_ingest_it_says_what_to_do_next(cli: Cli) -> None:
    found = examined(cli, DAGSTER_HOME=str(cli.directory / "dagster"))
    assert "has no files" in found["source"][0][1]
    assert "ingest-pipeline ingest" in found["corpus"][0][2]
    assert "never used" in found["sensors"][0][1]


def test_each_problem_names_the_setting_and_the_others_are_checked_nevertheless(cli: Cli, tmp_path: Path) -> None:
    cli.put("a.txt", "A text.")
    file = tmp_path / "file"
    file.write_text("")
    found = examined(
        cli,
        status=1,
        INGEST_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
        INGEST_EMBEDDING_DIMENSIONS="7",
        INGEST_SOURCE=str(tmp_path / "missing"),
    )
    assert {check: rows[0][0] for check, rows in found.items()} | {"parsers": "ok"} == {
        "source": "problem",
        "embedding": "problem",
        "parsers": "ok",
        "table": "ok",
        "database": "problem",
    }
    assert all(row[2] for rows in found.values() for row in rows if row[0] != "ok"), found
    assert "INGEST_EMBEDDING_DIMENSIONS" in " ".join(found["embedding"][0])


def test_a_table_that_others_may_read_is_a_warning(filled: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = next((filled.directory / "state").rglob("docs.lance"))
    # The folders of pytest above it are private.
    monkeypatch.setattr("ingest_pipeline.cli._doctor.others_may_read", folder.__eq__)
    (verdict, said, remedy), *_ = examined(filled)["table"]
    assert (verdict, "Other accounts" in said, f"chmod 700 {folder}" in remedy) == ("warning", True, True)


def test_a_sensor_that_is_off_or_fails_is_named(filled: Cli) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in filled.environment.items():
            patch.setenv(name, value)
        settings = CorpusConfig.from_environment()
        with _dagster.instance(settings) as instance:
            _add(instance, "docs_source_sensor", InstigatorStatus.RUNNING, "the store does not answer")
            _add(instance, "docs_recovery_sensor", InstigatorStatus.STOPPED)
    found = [said for _, said, _ in examined(filled)["sensors"]]
    assert "The last tick of docs_source_sensor failed: the store does not answer" in found
    assert "docs_recovery_sensor is off." in found


def _add(instance: DagsterInstance, name: str, status: InstigatorStatus, error: str | None = None) -> None:
    """The state of a sensor as the daemon records it."""
    origin = RemoteInstigatorOrigin(
        RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("ingest_pipeline.definitions"), "__repository__"), name
    )
    state = InstigatorState(origin, InstigatorType.SENSOR, status, SensorInstigatorData())
    instance.add_instigator_state(state)
    if error is not None:
        info = SerializableErrorInfo(error, [], "UnavailableError")
        data = TickData(
            state.instigator_origin_id, name, InstigatorType.SENSOR, TickStatus.FAILURE, 1.0, error=info,
            selector_id=state.selector_id,
        )  # fmt: skip
        instance.create_tick(data)
