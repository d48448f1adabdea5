"""Dagster's real daemon and web server, started as a user starts them, watching a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass

import pytest

from ingest_pipeline.cli import _session
from ingest_pipeline.config.corpus_config import CorpusConfig
from tests.support.dagster.cli import Cli
from tests.support.dagster.web_ui import WebUi, eventually
from tests.support.servers.databases import empty_database
from tests.support.servers.embedding_server import POISON, EmbeddingServer
from tests.support.world import paragraphs

pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True, slots=True)
class WatchedFolder:
    """A folder and the web server and daemon that watch it."""

    cli: Cli
    web: WebUi


@pytest.fixture(scope="module")
def watched(postgres: str, entrance: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[WatchedFolder]:
    """Two tests share it, because web server, daemon and code servers take half a minute of CPU to start."""
    with EmbeddingServer() as embeddings:
        cli = Cli.over(tmp_path_factory.mktemp("watched"), empty_database(postgres, entrance), embeddings)
        with WebUi.over(cli) as web:
            yield WatchedFolder(cli, web)


def test_added_changed_bad_and_removed_files_are_shown(watched: WatchedFolder) -> None:
    cli, web = watched.cli, watched.web
    path = cli.put("a.txt", paragraphs("alpha", 2))
    cli.put("b.txt", paragraphs("beta", 2))
    cli.put("bad.txt", f"{POISON} is refused by the API.")
    eventually(lambda: web.partitions() == {"numMaterialized": 2, "numFailed": 1, "numPartitions": 3})
    before = cli.json("history", "a.txt")[0]["version"]
    path.write_text(paragraphs("omega", 2))
    (cli.directory / "source" / "bad.txt").unlink()
    (cli.directory / "source" / "b.txt").unlink()
    eventually(lambda: cli.json("history", "a.txt")[0]["version"] > before and cli.json("status")["documents"] == 1)
    assert cli.json("audit")["violations"] == []


def test_a_backfill_from_dagsters_own_command_line_goes_partition_by_partition(watched: WatchedFolder) -> None:
    cli, web = watched.cli, watched.web
    cli.put("a.txt", paragraphs("alpha", 2))
    cli.put("b.txt", paragraphs("beta", 2))
    eventually(lambda: web.partitions() == {"numMaterialized": 2, "numFailed": 0, "numPartitions": 2})
    cli.put("a.txt", POISON)
    job = ["-m", "ingest_pipeline.definitions", "-j", "docs_ingest_job"]
    command = [sys.executable, "-m", "dagster", "job", "backfill", *job, "--all", "all", "--noprompt"]
    environment = cli.environment | _session.dagster_environment(CorpusConfig.from_environment(cli.environment))
    subprocess.run(command, env={**os.environ, **environment}, check=True)
    # Each partition is a run of its own there, and to the backfill all have ended alike.
    eventually(lambda: web.backfills() == [{"status": "COMPLETED", "numPartitions": 2}])
    eventually(lambda: web.partitions() == {"numMaterialized": 1, "numFailed": 1, "numPartitions": 2})


def test_a_run_repeated_from_its_failure_does_the_rest(cli: Cli, embeddings: EmbeddingServer) -> None:
    # The source sensor leaves young files alone: what is done is what the runs do.
    cli.environment["INGEST_MIN_AGE_SECONDS"] = "86400"
    cli.put("a.txt", paragraphs("alpha", 2))
    cli.put("b.txt", POISON)
    with WebUi.over(cli) as web:
        run = web.launch()
        eventually(lambda: web.status(run) == "FAILURE")
        assert web.partitions() == {"numMaterialized": 1, "numFailed": 1, "numPartitions": 2}
        embedded = embeddings.embedded
        cli.put("b.txt", paragraphs("beta", 2))
        again = web.execute_again(run)
        eventually(lambda: web.status(again) == "SUCCESS")
        assert web.partitions() == {"numMaterialized": 2, "numFailed": 0, "numPartitions": 2}
    assert embeddings.embedded - embedded == cli.json("history", "b.txt")[0]["chunks"]
    assert len(cli.json("history", "a.txt")) == 1


@pytest.mark.promise("shown-in-dagster")
def test_runs_of_the_command_line_are_on_the_page_of_their_job_and_on_the_timeline(cli: Cli) -> None:
    # The source sensor leaves young files alone: what is done is what the command does.
    cli.environment["INGEST_MIN_AGE_SECONDS"] = "86400"
    cli.put("a.txt", paragraphs("alpha", 2))
    cli.put("b.txt", paragraphs("beta", 2))
    with WebUi.over(cli) as web:
        whole, one = cli.json("ingest")["run_id"], cli.json("ingest", "a.txt")["run_id"]
        version = cli.json("history")[0]["version"]
        cli.put("a.txt", paragraphs("omega", 2))
        again = cli.json("ingest")["run_id"]
        done = cli.run("rollback", "--to", str(version))
        assert done.exit_code == 0, done.stderr
        place = '{key: ".dagster/repository", value: "__repository__@ingest_pipeline.definitions"}'
        for job, runs in {"docs_ingest_job": {whole, one, again}, "docs_rollback_job": None}.items():
            listed = web.runs(f'{{pipelineName: "{job}", tags: [{place}]}}')
            assert runs is None or {run["runId"] for run in listed} == runs
            assert listed
        # The timeline has a row for each job of a code location, and leaves out runs that belong to none.
        for run in web.runs("{statuses: [SUCCESS]}"):
            assert run["repositoryOrigin"] == {
                "repositoryName": "__repository__",
                "repositoryLocationName": "ingest_pipeline.definitions",
            }
        assert web.runs('{tags: [{key: "dagster/partition", value: "a.txt"}]}')[0]["runId"] == one
