"""Two corpora in one code location, each with a source, a database and an embedding endpoint of its own."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.local import LocalEmbedder
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.orchestration.build import corpus_definitions
from ingest_pipeline.resources.catalog import PostgresCatalogResource
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.keys import CorpusResources, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.resources.source import DocumentSourceResource
from tests.support.servers.embedding_server import TEST_MODEL, EmbeddingServer
from tests.support.world import paragraphs


@dataclass(slots=True)
class Side:
    """One of the two corpora."""

    name: str
    source: Path
    database_url: str
    embeddings: EmbeddingServer

    @property
    def definitions(self) -> dg.Definitions:
        lancedb, model, width = str(self.source.parent / "lancedb"), TEST_MODEL, self.embeddings.dimensions
        catalog = PostgresCatalogResource(url=self.database_url)
        resources = CorpusResources(
            catalog=catalog,
            source=DocumentSourceResource(url=str(self.source)),
            lancedb=VersionedLanceDBResource(uri=lancedb, catalog=catalog),
            embedder=OpenAIEmbedderResource(model=model, dimensions=width, base_url=self.embeddings.base_url),
        )
        return corpus_definitions(
            CorpusConfig(
                corpus=self.name,
                source=str(self.source),
                lancedb_uri=lancedb,
                embedding_model=model,
                embedding_dimensions=width,
            ),
            resources,
        )

    def documents(self) -> list[str]:
        with psycopg.connect(self.database_url) as connection:
            rows = connection.execute("SELECT corpus || '/' || key FROM ingest_pipeline.current_document").fetchall()
        return [str(row[0]) for row in rows]


@dataclass(slots=True)
class Both:
    one: Side
    other: Side
    instance: dg.DagsterInstance

    @property
    def definitions(self) -> dg.Definitions:
        return dg.Definitions.merge(self.one.definitions, self.other.definitions)

    def run(self, side: Side, **configuration: Any) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_job_def(f"{side.name}_ingest_job")
        return job.execute_in_process(run_config=configuration, instance=self.instance, raise_on_error=False)


@pytest.fixture
def both(
    tmp_path: Path, postgres: str, database_url: str, embeddings: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> Generator[Both]:
    second_url = f"{database_url}_other"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{second_url.rpartition("/")[2]}"'.encode())
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/nobody")
    with EmbeddingServer() as second, dg.instance_for_test() as instance:
        one = Side("docs", tmp_path / "docs" / "files", database_url, embeddings)
        other = Side("laws", tmp_path / "laws" / "files", second_url, second)
        for side in (one, other):
            side.source.mkdir(parents=True)
            (side.source / f"{side.name}.txt").write_text(paragraphs(side.name, 2))
        yield Both(one, other, instance)


def test_each_corpus_uses_its_own_source_database_and_endpoint(both: Both) -> None:
    for side, idle in ((both.one, both.other), (both.other, both.one)):
        embedded = idle.embeddings.embedded
        assert both.run(side).success
        assert side.documents() == [f"{side.name}/{side.name}.txt"]
        assert side.embeddings.embedded > 0
        assert idle.embeddings.embedded == embedded


def test_the_definitions_of_both_corpora_are_combined(both: Both) -> None:
    merged = both.definitions.get_repository_def()
    apart = [side.definitions.get_repository_def() for side in (both.one, both.other)]

    def names(repository: dg.RepositoryDefinition) -> list[str]:
        return [
            *(key.to_user_string() for key in repository.assets_defs_by_key),
            *(str(key) for key in repository.asset_checks_defs_by_key),
            *(job.name for job in repository.get_all_jobs() if job.name != "__ASSET_JOB"),
            *(sensor.name for sensor in repository.sensor_defs),
            *(schedule.name for schedule in repository.schedule_defs),
            *repository.get_top_level_resources(),
        ]

    assert sorted(names(merged)) == sorted(names(apart[0]) + names(apart[1]))


def test_a_run_may_be_launched_with_another_resource(both: Both, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    server = both.one.embeddings
    # What is given replaces all of the resource's values, as everywhere in Dagster.
    embedder = {"model": TEST_MODEL, "dimensions": server.dimensions, "base_url": server.base_url, "batch_inputs": 1}
    resources = {"docs_embedder": {"config": embedder}, "docs_lancedb": {"config": {"uri": str(elsewhere)}}}
    assert both.run(both.one, resources=resources).success
    assert (elsewhere / "docs.lance").is_dir()
    assert server.requests == server.embedded > 1


def test_the_local_model_of_one_corpus_is_not_requested_from_the_endpoint_of_the_other(
    monkeypatch: pytest.MonkeyPatch, embeddings: EmbeddingServer
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", embeddings.base_url)
    local = OpenAIEmbedderResource()
    assert isinstance(local.create_embedder(), LocalEmbedder)
    assert local.create_embedder(f"{TEST_MODEL}/32").endpoint == f"{embeddings.base_url}/"
    assert isinstance(OpenAIEmbedderResource(model=TEST_MODEL).create_embedder("wordllama-l2-256/256"), LocalEmbedder)
    assert (
        OpenAIEmbedderResource(base_url="http://127.0.0.1:9/v1").create_embedder().endpoint == "http://127.0.0.1:9/v1/"
    )


def test_a_resource_of_another_class_under_a_corpus_key_is_named(both: Both) -> None:
    class Resources:
        docs_source = both.one

    with pytest.raises(ConfigurationError, match="'docs_source' is a Side, not a DocumentSourceResource"):
        resource_of(Resources, DagsterNames("docs"), DocumentSourceResource)
