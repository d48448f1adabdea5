"""Names and looks of a corpus in Dagster: prefixes, translation, kinds, freshness and column lineage."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from click.testing import CliRunner
from dagster._core.definitions.metadata import CodeReferencesMetadataSet

from ingest_pipeline import (
    CorpusConfig,
    DagsterOptions,
    IngestPipelineComponent,
    build_resources,
    corpus_definitions,
    open_corpus,
)
from ingest_pipeline.cli.main import main
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.resources.names import DagsterNames
from tests.support.dagster.world import DagsterWorld
from tests.support.servers.databases import empty_database
from tests.support.servers.embedding_server import TEST_MODEL, EmbeddingServer
from tests.support.world import paragraphs

_ASSETS = ("chunks", "embeddings", "metadata", "head")


def _configured(directory: Path, database_url: str, embeddings: EmbeddingServer, **more: Any) -> CorpusConfig:
    (directory / "files").mkdir(parents=True, exist_ok=True)
    return CorpusConfig(
        corpus="docs",
        source=str(directory / "files"),
        state=str(directory / "state"),
        min_age_seconds=0,
        embedding_model=TEST_MODEL,
        embedding_dimensions=embeddings.dimensions,
        embedding_base_url=embeddings.base_url,
        database_url=database_url,
        **more,
    )


@dataclass(slots=True)
class Locations:
    """Two code locations with a corpus of one name, in one instance of Dagster."""

    one: CorpusConfig
    other: CorpusConfig
    instance: dg.DagsterInstance
    monkeypatch: pytest.MonkeyPatch

    def definitions(self, config: CorpusConfig) -> dg.Definitions:
        variable = f"URL_OF_{DagsterNames.of(config).qualified}"
        self.monkeypatch.setenv(variable, config.database_url or "")
        return corpus_definitions(config, build_resources(config, database_url=dg.EnvVar(variable)))

    def merged(self) -> dg.Definitions:
        return dg.Definitions.merge(*map(self.definitions, (self.one, self.other)))

    def tick(self, definitions: dg.Definitions, name: str) -> Any:
        sensor = next(one for one in definitions.sensors or () if one.name == name)
        assert isinstance(sensor, dg.SensorDefinition)
        resources = {key: (definitions.resources or {})[key] for key in sensor.required_resource_keys}
        with dg.build_sensor_context(instance=self.instance, definitions=definitions, resources=resources) as context:
            return sensor._raw_fn(context)  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def locations(  # noqa: PLR0917  pytest's fixtures come as arguments
    tmp_path: Path,
    postgres: str,
    entrance: str,
    database_url: str,
    embeddings: EmbeddingServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Generator[Locations]:
    other_url = empty_database(postgres, entrance)
    one = _configured(tmp_path / "one", database_url, embeddings, key_prefix="law")
    other = _configured(tmp_path / "other", other_url, embeddings, key_prefix=["people", "de"])
    (Path(one.source) / "law.txt").write_text(paragraphs("law", 2))
    (Path(other.source) / "people.txt").write_text(paragraphs("people", 2))
    with dg.instance_for_test() as instance:
        yield Locations(one, other, instance, monkeypatch)


def _keys(database_url: str | None) -> list[str]:
    with psycopg.connect(database_url or "") as connection:
        return [str(key) for (key,) in connection.execute("SELECT key FROM ingest_pipeline.current_document")]


@pytest.mark.promise("prefixes")
def test_two_corpora_of_one_name_are_side_by_side_in_a_code_location(locations: Locations) -> None:
    definitions, instance = locations.merged(), locations.instance
    repository = definitions.get_repository_def()
    assert set(repository.assets_defs_by_key) == {
        dg.AssetKey([*prefix, "docs", asset]) for prefix in (["law"], ["people", "de"]) for asset in _ASSETS
    }
    for job, config in (("law__docs_ingest_job", locations.one), ("people__de__docs_ingest_job", locations.other)):
        known = set(instance.all_asset_keys())
        done = definitions.resolve_job_def(job).execute_in_process(instance=instance)
        own = DagsterNames.of(config)
        assert set(instance.all_asset_keys()) - known == set(map(own.key, _ASSETS))
        assert all(own.is_own(check.asset_key) for check in done.get_asset_check_evaluations())
    assert _keys(locations.one.database_url) == ["law.txt"]
    assert _keys(locations.other.database_url) == ["people.txt"]
    assert instance.get_dynamic_partitions("law__docs_documents") == ["law.txt"]
    assert instance.get_dynamic_partitions("people__de__docs_documents") == ["people.txt"]
    for name, audit in (("law", "law__docs_audit_job"), ("people", "people__de__docs_audit_job")):
        checked = definitions.resolve_job_def(audit).execute_in_process(instance=instance)
        assert checked.success
        assert {check.asset_key.path[0] for check in checked.get_asset_check_evaluations()} == {name}


@pytest.mark.promise("prefixes")
def test_code_locations_with_a_corpus_of_one_name_do_not_wait_for_each_others_runs(locations: Locations) -> None:
    one, other = map(locations.definitions, (locations.one, locations.other))
    keys = [dg.AssetKey(["people", "de", "docs", asset]) for asset in _ASSETS]
    run = locations.instance.create_run_for_job(
        other.resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(keys)),
        asset_selection=frozenset(keys),
    )
    started = dg.DagsterEvent(event_type_value="PIPELINE_START", job_name=run.job_name)
    locations.instance.report_dagster_event(started, run_id=run.run_id)
    assert "in progress" in locations.tick(other, "people__de__docs_source_sensor").skip_message
    requested = locations.tick(one, "law__docs_source_sensor")
    assert [request.partition_key for request in requested.run_requests] == ["law.txt"]
    assert [added.partitions_def_name for added in requested.dynamic_partitions_requests] == ["law__docs_documents"]


@pytest.fixture
def prefixed(
    tmp_path: Path, database_url: str, embeddings: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> Generator[DagsterWorld]:
    with DagsterWorld.over(tmp_path, database_url, embeddings, monkeypatch, INGEST_KEY_PREFIX="law/de") as world:
        yield world


@pytest.mark.promise("prefixes")
def test_command_line_scripts_and_recovery_report_to_the_keys_with_the_prefix(prefixed: DagsterWorld) -> None:
    names, instance = DagsterNames("docs", ("law", "de")), prefixed.instance
    path = prefixed.put("a.txt", paragraphs("first", 2))
    done = CliRunner().invoke(main, ["ingest"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert {record.partition_key for record in instance.fetch_materializations(names.key("chunks"), 9).records} == {
        "a.txt"
    }
    path.write_text(paragraphs("second", 2))
    with open_corpus(CorpusConfig.from_environment()) as corpus:
        corpus.ingest()
    before = instance.fetch_materializations(names.key("head"), 9).records
    prefixed.tick("law__de__docs_recovery_sensor")
    after = instance.fetch_materializations(names.key("head"), 9).records
    assert len(after) == len(before) + 1
    rolled_back = CliRunner().invoke(main, ["rollback", "--to", "2", "a.txt"], catch_exceptions=False)
    assert rolled_back.exit_code == 0, rolled_back.output
    assert len(instance.fetch_materializations(names.key("head"), 9).records) == len(after) + 1
    assert set(instance.all_asset_keys()) == set(map(names.key, _ASSETS))
    assert set(instance.event_log_storage.get_dynamic_partitions("law__de__docs_documents")) == {"a.txt"}


@pytest.mark.promise("prefixes")
@pytest.mark.parametrize("prefix", ["law//de", "law__de", "_law", "law de", ["law", ""]])
def test_a_prefix_that_could_make_two_names_one_is_refused(prefix: str | list[str]) -> None:
    with pytest.raises(ConfigurationError, match="key_prefix has the part"):
        CorpusConfig(corpus="docs", source="files", key_prefix=prefix)


def test_a_corpus_cannot_take_the_name_of_one_with_a_prefix() -> None:
    with pytest.raises(ConfigurationError, match="two underscores in a row"):
        CorpusConfig(corpus="law__docs", source="files")


def _specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.path[-1]: spec for spec in definitions.resolve_all_asset_specs()}


def _component(attributes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    monkeypatch.chdir(tmp_path)
    component = IngestPipelineComponent.resolve_from_yaml(f"corpus: docs\nsource: files\n{attributes}")
    return component.build_defs(dg.ComponentTree.for_test().load_context)


def test_a_translation_changes_everything_but_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translation = """
key_prefix: [law, de]
tags: {domain: law}
translation:
  group_name: "layer_{{ asset }}"
  tags: {layer: "{{ asset }}"}
  owners: ["team:law"]
  kinds: [s3]
  description: "Was: {{ spec.description }}"
  metadata: {contact: desk 7}
"""
    specs = _specs(_component(translation, tmp_path, monkeypatch))
    assert set(specs) == set(_ASSETS)
    for name, spec in specs.items():
        assert spec.key == dg.AssetKey(["law", "de", "docs", name])
        assert (spec.group_name, spec.owners, spec.kinds) == (f"layer_{name}", ["team:law"], {"s3"})
        assert (spec.tags["layer"], spec.tags["domain"], spec.metadata["contact"]) == (name, "law", "desk 7")
        assert (spec.description or "").startswith("Was: ")


@pytest.mark.promise("prefixes")
def test_a_translated_key_is_refused_by_the_name_of_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"changes the asset key 'docs/chunks' to 'law/docs/chunks'.*key_pref"):
        _component("translation: {key_prefix: law}\n", tmp_path, monkeypatch)
    options = DagsterOptions(translation=lambda spec, asset: spec.replace_attributes(key=asset))
    with pytest.raises(ConfigurationError, match=r"'docs/chunks' to 'chunks'"):
        corpus_definitions(CorpusConfig(corpus="docs", source="files"), options=options)


@pytest.mark.filterwarnings("ignore:.*is currently in beta")
def test_post_processing_and_code_references_of_a_component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "law"\n'
    )
    folder = tmp_path / "law" / "defs" / "docs"
    folder.mkdir(parents=True)
    (tmp_path / "law" / "__init__.py").touch()
    (folder / "defs.yaml").write_text(
        """
type: ingest_pipeline.IngestPipelineComponent
attributes: {corpus: docs, source: files}
post_processing:
  assets:
    - target: "*"
      attributes:
        group_name: law
        owners: ["team:law"]
        tags: {reviewed: "yes"}
        automation_condition: "{{ automation_condition.eager() }}"
"""
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    specs = _specs(dg.load_from_defs_folder(path_within_project=tmp_path))
    assert set(specs) == set(_ASSETS)
    for spec in specs.values():
        assert (spec.group_name, spec.owners, spec.tags["reviewed"]) == ("law", ["team:law"], "yes")
        assert spec.automation_condition is not None
        references = CodeReferencesMetadataSet.extract(spec.metadata).code_references
        assert references is not None
        assert [getattr(one, "file_path", "") for one in references.code_references] == [str(folder / "defs.yaml")]


@pytest.mark.parametrize(
    ("embedder", "kind"),
    [
        ({}, "wordllama"),
        ({"embedding_model": "text-embedding-3-small"}, "openai"),
        ({"embedding_base_url": "http://embed.example/v1"}, "openai"),
        ({"embedder": "tests.support.user_code.ObedientEmbedder"}, "python"),
    ],
)
def test_the_kind_is_that_of_the_embedder(embedder: dict[str, str], kind: str) -> None:
    config = CorpusConfig.model_validate({"corpus": "docs", "source": "files", **embedder})
    assert _specs(corpus_definitions(config))["embeddings"].kinds == {kind, "lancedb"}


def test_a_freshness_policy_of_head_fails_when_the_corpus_did_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = _specs(_component("fresh_within_minutes: 90\n", tmp_path, monkeypatch))
    policy = specs["head"].freshness_policy
    assert isinstance(policy, dg.FreshnessPolicy)
    assert policy == dg.FreshnessPolicy.time_window(timedelta(minutes=90))
    assert [spec.freshness_policy for name, spec in specs.items() if name != "head"] == [None] * 3


def _lineage(metadata: Any) -> dict[str, list[tuple[str, str]]]:
    found = metadata["dagster/column_lineage"]
    lineage = found if isinstance(found, dg.TableColumnLineage) else found.value
    return {
        column: [(dep.asset_key.to_user_string(), dep.column_name) for dep in deps]
        for column, deps in lineage.deps_by_column.items()
    }


def test_columns_lead_from_a_vector_to_its_chunk_and_its_file(
    tmp_path: Path, database_url: str, embeddings: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _configured(tmp_path, database_url, embeddings, key_prefix="law")
    (Path(config.source) / "a.txt").write_text(paragraphs("one", 2))
    monkeypatch.setenv("URL", database_url)
    resources = build_resources(config, database_url=dg.EnvVar("URL"))
    definitions = corpus_definitions(config, resources, DagsterOptions(upstream=["raw/files"]))
    key = DagsterNames.of(config).key
    with dg.instance_for_test() as instance:
        assert definitions.resolve_job_def("law__docs_ingest_job").execute_in_process(instance=instance).success
        events = {name: instance.get_latest_materialization_event(key(name)) for name in _ASSETS}
        materialized = {
            name: event.asset_materialization.metadata
            for name, event in events.items()
            if event is not None and event.asset_materialization is not None
        }
    for found in (materialized, {name: spec.metadata for name, spec in _specs(definitions).items() if name in _ASSETS}):
        assert _lineage(found["embeddings"]) == {
            "id": [("law/docs/chunks", "id")],
            "vector": [("law/docs/chunks", "text")],
        }
        chunks = _lineage(found["chunks"])
        assert chunks["text"] == [("raw/files", "content")]
        assert chunks["document"] == [("raw/files", "key")]
        schema: Any = _specs(definitions)["chunks"].metadata["dagster/column_schema"]
        assert set(chunks) == {column.name for column in schema.columns}
