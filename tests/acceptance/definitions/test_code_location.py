"""What the code location offers, by name: a change here is a change for its users."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from ingest_pipeline.cli import _session
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.orchestration.build import build_definitions

_ROOT = Path(__file__).parents[3]
_INSTANCES = ("dagster.yaml", "celery/dagster.yaml")


def test_the_names_of_everything() -> None:
    repository = build_definitions(CorpusConfig.from_environment({})).get_repository_def()
    assert {key.to_user_string() for key in repository.assets_defs_by_key} == {
        "documents/chunks",
        "documents/embeddings",
        "documents/metadata",
        "documents/head",
    }
    assert {job.name for job in repository.get_all_jobs()} >= {
        "documents_ingest_job",
        "documents_audit_job",
        "documents_maintenance_job",
        "documents_rollback_job",
    }
    assert {schedule.name for schedule in repository.schedule_defs} == {
        "documents_audit_schedule",
        "documents_maintenance_schedule",
        "documents_stale_schedule",
    }
    assert {f"{key.asset_key.to_user_string()}:{key.name}" for key in repository.asset_graph.asset_check_keys} == {
        "documents/chunks:texts_match",
        "documents/embeddings:unique_chunk_ids",
        "documents/embeddings:valid_vectors",
        "documents/metadata:audit",
        "documents/metadata:freshness",
        "documents/metadata:on_hold",
        "documents/metadata:single_publication",
        "documents/metadata:quarantine",
        "documents/metadata:chunks_match",
        "documents/metadata:run_audit",
        "documents/metadata:run_freshness",
    }
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "documents_source_sensor",
        "documents_recovery_sensor",
        "documents_batch_sensor",
    }
    assert set(repository.get_top_level_resources()) == {
        "documents_catalog",
        "documents_embedder",
        "documents_head",
        "documents_lancedb",
        "documents_source",
    }


def test_all_assets_are_one_step_and_any_of_them_can_be_selected() -> None:
    """A step that could not be split would show a dialog for each asset, and could have no head without partitions."""
    repository = build_definitions(CorpusConfig.from_environment({})).get_repository_def()
    (definition,) = set(repository.assets_defs_by_key.values())
    assert isinstance(definition, dg.AssetsDefinition)
    assert definition.can_subset
    assert [spec.key.path[-1] for spec in definition.specs if spec.partitions_def is None] == ["head"]
    for spec in definition.specs:
        assert spec.description
        assert spec.kinds
        assert spec.owners
        assert spec.group_name == "documents"
        assert spec.code_version
        assert "dagster/column_schema" in spec.metadata or spec.partitions_def is None


@pytest.mark.parametrize("setting", ["INGEST_CHUNK_SIZE", "INGEST_EMBEDDING_DIMENSIONS"])
def test_settings_of_the_environment_reach_the_code_version(setting: str) -> None:
    plain = build_definitions(CorpusConfig.from_environment({})).get_repository_def()
    other = build_definitions(CorpusConfig.from_environment({setting: "777"})).get_repository_def()

    def versions(repository: dg.RepositoryDefinition) -> set[str | None]:
        return {spec.code_version for d in set(repository.assets_defs_by_key.values()) for spec in d.specs}

    assert versions(plain) != versions(other)


def test_the_ready_code_location_has_the_corpora_of_a_configuration_file_and_hides_their_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ingest-pipeline.toml").write_text(
        """
[corpora.letters]
source = "files"
database_url = "{{ env.LETTERS_URL }}"
embedding_api_key = "{{ env.LETTERS_KEY }}"
embedding_model = "text-embedding-3-small"

[corpora.laws]
source = "laws"
"""
    )
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("INGEST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LETTERS_URL", "postgresql://me:hunter2@127.0.0.1:1/letters")
    monkeypatch.setenv("LETTERS_KEY", "sk-hunter3")
    monkeypatch.delitem(sys.modules, "ingest_pipeline.definitions", raising=False)
    defs = importlib.import_module("ingest_pipeline.definitions").defs
    keys = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    assert keys == {
        f"{name}/{one}" for name in ("letters", "laws") for one in ("chunks", "embeddings", "metadata", "head")
    }
    catalog, embedder = defs.resources["letters_catalog"], defs.resources["letters_embedder"]
    assert "hunter" not in str(catalog._resolved_config_dict) + str(embedder._resolved_config_dict)
    assert catalog.process_config_and_initialize().url == "postgresql://me:hunter2@127.0.0.1:1/letters"
    assert embedder.process_config_and_initialize().api_key == "sk-hunter3"
    assert defs.resources["laws_lancedb"].uri == str(tmp_path / ".ingest_pipeline" / "lancedb")


def test_workspace_yaml_loads(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dagster"), "definitions", "validate", "-w", str(_ROOT / "workspace.yaml")],
        env={"DAGSTER_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted((_ROOT / "deploy").rglob("*.yaml"), key=str))
def test_deployment_files_are_valid_yaml_without_duplicate_keys(path: Path) -> None:
    def names(node: yaml.Node | None) -> None:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(set(keys)) == len(keys), f"{path.name}{node.start_mark}: of two equal keys the last one counts"
        for child in node.value if isinstance(node, yaml.CollectionNode) else ():
            for one in child if isinstance(child, tuple) else (child,):
                names(one)

    node = yaml.compose(path.read_text())
    assert isinstance(node, yaml.MappingNode)
    names(node)


def test_a_backfill_has_half_an_hour_to_start_wherever_it_runs() -> None:
    deploy = _ROOT / "deploy"
    said = [
        yaml.safe_load(text)["run_monitoring"]["start_timeout_seconds"]
        for text in (_session.DAGSTER_YAML, *((deploy / name).read_text() for name in _INSTANCES))
    ]
    chart = yaml.safe_load((deploy / "kubernetes" / "values.yaml").read_text())
    said.append(chart["dagsterDaemon"]["runMonitoring"]["startTimeoutSeconds"])
    assert said == [1800] * 4
