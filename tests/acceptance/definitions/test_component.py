"""The component: what its attributes become, and what is said of wrong ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import ingest_pipeline
from ingest_pipeline import IngestPipelineComponent
from ingest_pipeline.config.corpus_config import CorpusConfig

_MINIMAL = "corpus: docs\nsource: documents\n"


def build(attributes: str, monkeypatch: pytest.MonkeyPatch, root: Path) -> dg.Definitions:
    """The definitions of a `defs.yaml` with these attributes, in a project at the root."""
    monkeypatch.chdir(root)
    component = IngestPipelineComponent.resolve_from_yaml(attributes)
    return component.build_defs(dg.ComponentTree.for_test().load_context)


def resource(definitions: dg.Definitions, key: str) -> Any:
    return (definitions.resources or {})[key]


def test_paths_are_below_the_project_wherever_the_process_was_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    definitions = build(_MINIMAL, monkeypatch, tmp_path)
    assert resource(definitions, "docs_source").url == str(tmp_path / "documents")
    assert resource(definitions, "docs_lancedb").uri == str(tmp_path / ".ingest_pipeline" / "lancedb")
    assert resource(definitions, "docs_catalog").embedded_directory == str(tmp_path / ".ingest_pipeline" / "postgres")


def test_a_url_is_not_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    definitions = build("corpus: docs\nsource: s3://a/b\nlancedb_uri: s3://a/c/\n", monkeypatch, tmp_path)
    assert resource(definitions, "docs_source").url == "s3://a/b"
    assert resource(definitions, "docs_lancedb").uri == "s3://a/c"


def test_attributes_reach_assets_and_resources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    more = (
        "chunk_size: 700\nchunk_overlap: 70\nembedding_model: text-embedding-3-small\nembedding_dimensions: 99\n"
        "embedding_base_url: http://embed.example/v1\nembedding_concurrency: 3\nembedding_pool: slow_api\n"
        "owners: ['team:law']\ngroup: texts\n"
    )
    definitions = build(_MINIMAL + more, monkeypatch, tmp_path)
    embedder = resource(definitions, "docs_embedder")
    assert (embedder.dimensions, embedder.base_url, embedder.concurrency) == (99, "http://embed.example/v1", 3)
    repository = definitions.get_repository_def()
    (step,) = set(repository.assets_defs_by_key.values())
    assert step.op.pool == "slow_api"
    assert {(spec.group_name, *spec.owners) for spec in step.specs} == {("texts", "team:law")}
    versions = {spec.code_version for spec in step.specs}
    assert "text-embedding-3-small 99" in versions
    assert any("700/70" in str(version) for version in versions)


def engine_settings(attributes: str, monkeypatch: pytest.MonkeyPatch, root: Path) -> CorpusConfig:
    """What the component tells the engine."""
    seen: list[CorpusConfig] = []

    def record(settings: CorpusConfig, *_: object) -> None:
        seen.append(settings)

    monkeypatch.setattr("ingest_pipeline.orchestration.component.corpus_definitions", record)
    build(attributes, monkeypatch, root)
    (settings,) = seen
    return settings


def test_prices_and_retention_have_the_same_effect_as_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prices = "text-embedding-3-small 0.02 USD 2026-11-01; text-embedding-3-large 0.13 USD 2026-11-01"
    more = f"embedding_prices: {prices}\nretention_days: 3\nretention_publications: 4\n"
    settings = engine_settings(_MINIMAL + more, monkeypatch, tmp_path)
    environment = {
        "INGEST_EMBEDDING_PRICES": prices,
        "INGEST_RETENTION_DAYS": "3",
        "INGEST_RETENTION_PUBLICATIONS": "4",
    }
    expected = CorpusConfig.from_environment(environment)
    assert len(settings.prices) == 2
    assert (settings.prices, settings.retention) == (expected.prices, expected.retention)


def test_filters_have_the_same_effect_as_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    more = "partition_by: folder\ninclude: ['*.md']\nexclude: ['drafts/']\nmax_bytes: 9\nmin_age_seconds: 0\n"
    settings = engine_settings(_MINIMAL + more, monkeypatch, tmp_path)
    narrowed = (settings.partition_by, settings.include, settings.exclude, settings.max_bytes, settings.min_age_seconds)
    assert narrowed == ("folder:1", ("*.md",), ("drafts/",), 9, 0)


@pytest.mark.parametrize(
    "switch",
    ["source_sensor", "recovery_sensor", "batch_sensor", "audit_schedule", "maintenance_schedule", "stale_schedule"],
)
@pytest.mark.parametrize("value", [True, False])
def test_each_switch_controls_its_own_sensor_or_schedule(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, switch: str, value: bool
) -> None:
    def running(definitions: dg.Definitions) -> dict[str, bool]:
        sensors = {sensor.name: sensor.default_status.value for sensor in definitions.sensors or ()}
        schedules = {
            schedule.name: schedule.default_status.value
            for schedule in definitions.schedules or ()
            if isinstance(schedule, dg.ScheduleDefinition)
        }
        return {name: status == "RUNNING" for name, status in (sensors | schedules).items()}

    before = running(build(_MINIMAL, monkeypatch, tmp_path))
    after = running(build(f"{_MINIMAL}{switch}: {value}\n", monkeypatch, tmp_path))
    assert after == before | {f"docs_{switch}": value}


@pytest.mark.parametrize(
    ("attribute", "key", "field"),
    [("database_url", "docs_catalog", "url"), ("embedding_api_key", "docs_embedder", "api_key")],
)
@pytest.mark.parametrize("template", ["{{ env.A_SECRET }}", "{{env('A_SECRET')}}"])
def test_a_secret_stays_the_name_of_a_variable(  # noqa: PLR0917  pytest's fixtures come as arguments
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, attribute: str, key: str, field: str, template: str
) -> None:
    monkeypatch.setenv("A_SECRET", "postgresql://user:hunter2@host/db")
    definitions = build(f'{_MINIMAL}{attribute}: "{template}"\n', monkeypatch, tmp_path)
    value = getattr(resource(definitions, key), field)
    assert isinstance(value, dg.EnvVar)
    assert value.env_var_name == "A_SECRET"
    assert "hunter2" not in str(definitions.get_repository_def().get_top_level_resources())


@pytest.mark.promise("secrets", "error-lines")
@pytest.mark.parametrize(
    ("attributes", "named", "problem"),
    [
        ("corpus: Docs\nsource: x\n", "corpus", "lower-case"),
        ("corpus: docs\n", "source", "Field required"),
        (f"{_MINIMAL}chunk_sise: 3\n", "chunk_sise", "Extra inputs"),
        (f"{_MINIMAL}chunk_size: many\n", "chunk_size", "valid integer"),
        (f"{_MINIMAL}chunk_size: 0\n", "chunk_size", "between 50 and 16384"),
        (f"{_MINIMAL}chunk_size: 100\nchunk_overlap: 100\n", "chunk_overlap", "below `chunk_size`"),
        (f"{_MINIMAL}chunk_overlap: -1\n", "chunk_overlap", "0 or more"),
        (f"{_MINIMAL}retention_days: -3\n", "retention_days", "greater than or equal to 0"),
        (f"{_MINIMAL}retention_publications: -1\n", "retention_publications", "greater than or equal to 0"),
        ("corpus: docs\nsource: ftp://host/x\n", "source", "neither a path nor s3://"),
        ("corpus: docs\nsource: s3:///x\n", "source", "neither a path nor s3://"),
        (f"{_MINIMAL}lancedb_uri: ftp://me:hunter2@host/x\n", "lancedb_uri", "neither a path nor a url"),
        (f"{_MINIMAL}embedding_base_url: https://me:hunter2@[host/v1\n", "embedding_base_url", "not an HTTP address"),
        (f"{_MINIMAL}include: ['!']\n", "include", "pattern"),
        (f"{_MINIMAL}embedding_dimensions: -1\n", "embedding_dimensions", "greater than or equal to 1"),
        (f"{_MINIMAL}partition_by: shoe size\n", "partition_by", "none of file, folder"),
        (f"{_MINIMAL}include: '*.md'\n", "include", "not allowed as a Sequence"),
        (f"{_MINIMAL}max_bytes: 0\n", "max_bytes", "greater than or equal to 1"),
        (f"{_MINIMAL}min_age_seconds: 0.5\n", "min_age_seconds", "valid integer"),
        (f"{_MINIMAL}min_age_seconds: -1\n", "min_age_seconds", "greater than or equal to 0"),
        (f"{_MINIMAL}on_unreadable: ignore\n", "on_unreadable", "skip"),
        (f"{_MINIMAL}encoding: utf-16\n", "encoding", "extend ASCII"),
        (f"{_MINIMAL}embedding_prices: cheap\n", "embedding_prices", "cheap"),
        (f"{_MINIMAL}owners: 3\n", "owners", "Input should be"),
        (f"{_MINIMAL}source_sensor: perhaps\n", "source_sensor", "valid boolean"),
        (f"{_MINIMAL}database_url: postgresql://me:hunter2@host/db\n", "database_url", "contains a password"),
        (f"{_MINIMAL}database_url: host=host password=hunter2\n", "database_url", "contains a password"),
        (f"{_MINIMAL}database_url: postgresql://host:port/db\n", "database_url", "port"),
        (f"{_MINIMAL}database_url: [postgresql://me:hunter2@host/db]\n", "database_url", "valid string"),
        (f"{_MINIMAL}database_ur: postgresql://me:hunter2@host/db\n", "database_ur", "Extra inputs"),
        (f"{_MINIMAL}embedding_api_key: sk-hunter2\n", "embedding_api_key", "is a secret"),
        ("corpus: docs\nsource: '{{ env.NOT_SET }}'\n", "source", "valid string"),
        ("corpus: docs\nsource: \"{{ env('NOT_SET') }}/x\"\n", "NOT_SET", "is not set"),
    ],
)
def test_a_wrong_attribute_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, attributes: str, named: str, problem: str
) -> None:
    with pytest.raises(Exception, match="(?s)" + problem) as caught:
        build(attributes, monkeypatch, tmp_path)
    assert named in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "INGEST_" not in str(caught.value)


def test_a_project_may_keep_an_executor_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = dg.Definitions(executor=dg.multiprocess_executor)
    theirs = build(f"{_MINIMAL}executor: code_location\n", monkeypatch, tmp_path)
    assert dg.Definitions.merge(own, theirs).executor is dg.multiprocess_executor
    assert build(_MINIMAL, monkeypatch, tmp_path).executor is dg.in_process_executor


def test_every_attribute_says_what_it_is_for() -> None:
    properties = IngestPipelineComponent.model().model_json_schema()["properties"]
    assert set(properties) == set(IngestPipelineComponent.model_fields)
    assert [name for name, schema in properties.items() if not schema.get("description")] == []


def test_the_package_offers_the_component_without_importing_dagster_first() -> None:
    assert "IngestPipelineComponent" in dir(ingest_pipeline)
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        ingest_pipeline.Nonsense  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
    program = "import sys, ingest_pipeline.maintenance.audit; sys.exit('dagster' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
