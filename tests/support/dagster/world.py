"""The real definitions over one test's source, database and endpoint, with a Dagster instance on the same Postgres."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from ingest_pipeline.cli import _dagster, _session
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.ingestion.summary import Summary
from ingest_pipeline.maintenance.audit import AuditReport, audit
from ingest_pipeline.maintenance.repair import repair
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.planning.context import IngestContext
from tests.support.dagster.cli import environment_of
from tests.support.servers.embedding_server import EmbeddingServer

CHUNKS, EMBEDDINGS, METADATA, HEAD = (
    dg.AssetKey(["docs", name]) for name in ("chunks", "embeddings", "metadata", "head")
)


@dataclass(slots=True)
class DagsterWorld:
    settings: CorpusConfig
    instance: dg.DagsterInstance
    embeddings: EmbeddingServer
    cursor: str | None = None
    """The cursor of the sensor that was evaluated last."""
    _loaded: tuple[CorpusConfig, dg.Definitions] | None = None

    @classmethod
    @contextmanager
    def over(
        cls,
        directory: Path,
        database_url: str,
        embeddings: EmbeddingServer,
        monkeypatch: pytest.MonkeyPatch,
        **places: str,
    ) -> Generator[DagsterWorld]:
        (directory / "source").mkdir()
        environment = environment_of(directory, database_url, embeddings) | places
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings = CorpusConfig.from_environment()
        with _session.postgres(settings) as running, _dagster.instance(running) as instance:
            yield cls(running, instance, embeddings)

    @property
    def definitions(self) -> dg.Definitions:
        """The definitions of the settings, which a code location builds once, too."""
        if self._loaded is None or self._loaded[0] != self.settings:
            self._loaded = self.settings, build_definitions(self.settings)
        return self._loaded[1]

    def put(self, key: str, text: str) -> Path:
        path = Path(self.settings.source) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(
        self,
        partition: str | None = None,
        partitions: list[str] | None = None,
        *,
        tags: dict[str, str] | None = None,
        **config: object,
    ) -> dg.ExecuteInProcessResult:
        configuration = {"ops": {"docs_ingest": {"config": {"partitions": partitions or [], **config}}}}
        return self._execute(configuration, partition, tags or {})

    def launch(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Execute a run request as the daemon does."""
        keys = {"dagster/run_key": request.run_key} if request.run_key else {}
        return self._execute(request.run_config, request.partition_key, {**request.tags, **keys})

    def follow(self, name: str = "docs_source_sensor") -> list[dg.ExecuteInProcessResult]:
        """Evaluate a sensor, and execute the runs that it requests."""
        result = self.tick(name)
        if not isinstance(result, dg.SensorResult):
            return []
        for added in result.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions(added.partitions_def_name, list(added.partition_keys))
        return [self.launch(request) for request in result.run_requests or ()]

    def _execute(
        self, configuration: Mapping[str, object], partition: str | None, tags: dict[str, str]
    ) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_job_def("docs_ingest_job")
        return job.execute_in_process(
            run_config=dict(configuration),
            partition_key=partition,
            tags=tags,
            instance=self.instance,
            raise_on_error=False,
        )

    def roll_back(self, *, version: int, partitions: list[str] | None = None) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_job_def("docs_rollback_job")
        configuration = {"ops": {"docs_rollback": {"config": {"version": version, "partitions": partitions or []}}}}
        return job.execute_in_process(run_config=configuration, instance=self.instance, raise_on_error=False)

    def data_versions(self, partition: str) -> list[str]:
        """The data versions of a partition's materializations, newest first."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=METADATA, asset_partitions=[partition]), limit=100
        ).records
        found = [record.asset_materialization for record in records]
        return [(event.tags or {})["dagster/data_version"] for event in found if event is not None]

    def materialized(self, asset: dg.AssetKey) -> set[str]:
        return set(self.instance.get_materialized_partitions(asset))

    def latest(self, asset: dg.AssetKey, partition: str | None) -> dict[str, object]:
        """The metadata of the last materialization of a partition, or of an asset without partitions."""
        partitions = None if partition is None else [partition]
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=asset, asset_partitions=partitions), limit=1
        ).records
        materialization = records[0].asset_materialization
        assert materialization is not None
        return {name: value.value for name, value in materialization.metadata.items()}

    def tick(self, name: str) -> dg.SensorResult | dg.SkipReason | object:
        """Evaluate a sensor as the daemon would."""
        definitions = self.definitions
        sensor = next(sensor for sensor in definitions.sensors or () if sensor.name == name)
        assert isinstance(sensor, dg.SensorDefinition)
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            definitions=definitions,
            resources={name: (definitions.resources or {})[name] for name in sensor.required_resource_keys},
        ) as context:
            # Calling the definition would hand over each resource by name, which its function must then list.
            result = sensor._raw_fn(context)  # pyright: ignore[reportPrivateUsage]
            self.cursor = context.cursor
            return result

    def check(self) -> dict[str, bool]:
        """Run the asset checks as the schedule does; returns whether each passed."""
        job = self.definitions.resolve_job_def("docs_audit_job")
        result = job.execute_in_process(instance=self.instance, raise_on_error=False)
        return {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}

    def failed_checks(self) -> set[str]:
        """The names of the asset checks that do not pass."""
        return {name for name, passed in self.check().items() if not passed}

    def connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection to Postgres, to cause damage."""
        return psycopg.connect(self.settings.database_url or "")

    async def repair(self, context: IngestContext) -> Summary:
        endpoint = OpenAISettings(
            self.settings.embedding_model, self.settings.embedding_dimensions, base_url=self.embeddings.base_url
        )
        async with OpenAIEmbedder(endpoint) as embedder:
            return await repair(context, embedder, audit(context.corpus))

    def audit(self) -> AuditReport:
        with _session.corpus(self.settings) as corpus:
            return audit(corpus)
