"""Batch jobs inside Dagster, and from the command line."""

from __future__ import annotations

import json
from collections.abc import Generator

import dagster as dg
import pytest
from click.testing import CliRunner

from ingest_pipeline.cli.main import main
from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.postgres.database import Database
from tests.support.dagster.world import METADATA, DagsterWorld
from tests.support.servers.batch_api import BatchServer
from tests.support.servers.embedding_server import TEST_MODEL
from tests.support.world import mark_served, paragraphs

pytestmark = pytest.mark.promise("batch-jobs")


@pytest.fixture
def embeddings() -> Generator[BatchServer]:
    with BatchServer() as server:
        yield server


@pytest.fixture
def dagster(dagster: DagsterWorld, database_url: str) -> DagsterWorld:
    server = dagster.embeddings
    with Database(database_url) as database:
        mark_served(database, OpenAISettings(TEST_MODEL, server.dimensions, base_url=server.base_url))
    return dagster


def api(world: DagsterWorld) -> BatchServer:
    assert isinstance(world.embeddings, BatchServer)
    return world.embeddings


def test_documents_of_a_batch_job_wait_for_their_vectors_and_are_published_at_no_further_cost(
    dagster: DagsterWorld,
) -> None:
    dagster.put("a.txt", paragraphs("alpha", 12))
    job = dagster.definitions.resolve_job_def("docs_batch_job")
    assert job.execute_in_process(instance=dagster.instance).success
    assert dagster.follow() == []
    assert isinstance(dagster.tick("docs_batch_sensor"), dg.SkipReason)
    assert dagster.follow() == []
    api(dagster).finish()
    dagster.tick("docs_batch_sensor")
    dagster.cursor = None
    (run,) = dagster.follow()
    assert run.success
    assert dagster.materialized(METADATA) == {"a.txt"}
    assert dagster.embeddings.requests == 0
    assert max(dagster.embeddings.texts.values()) == 1
    assert dagster.audit().violations == []


def test_the_command_submits_collects_and_shows_batch_jobs(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 12))
    given = json.loads(CliRunner().invoke(main, ["batch", "--json"], catch_exceptions=False).stdout)
    assert (given["submitted"], given["batch_jobs"][0]["state"]) == (1, "submitted")
    status = json.loads(CliRunner().invoke(main, ["status", "--json"], catch_exceptions=False).stdout)
    assert status["vectors_in_batch_jobs"] == dagster.embeddings.embedded > 0
    api(dagster).finish()
    ended = json.loads(CliRunner().invoke(main, ["batch", "--collect", "--json"], catch_exceptions=False).stdout)
    assert ended["ended"][0]["collected"] == status["vectors_in_batch_jobs"]
    assert ended["submitted"] == 0
