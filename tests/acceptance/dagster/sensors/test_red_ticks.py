"""Sensors whose stores cannot be used: the tick fails, so that alerts see it, and names the setting of the user."""

from __future__ import annotations

import dagster as dg
import pytest

from ingest_pipeline import build_resources, corpus_definitions, errors
from ingest_pipeline.config.corpus_config import CorpusConfig
from tests.support.dagster.world import DagsterWorld

pytestmark = pytest.mark.promise("dagster-deaths")

_SENSORS = ("docs_source_sensor", "docs_recovery_sensor", "docs_batch_sensor")


def definitions(config: CorpusConfig) -> dg.Definitions:
    """The definitions of a component, whose database url is in a variable."""
    bare = config.replace(database_url=None)
    return corpus_definitions(bare, build_resources(bare, database_url=dg.EnvVar("HANDBOOK_URL")))


def failure(dagster: DagsterWorld, built: dg.Definitions, name: str) -> str:
    """The one line of a tick that fails, evaluated as the daemon does it."""
    sensor = built.get_repository_def().get_sensor_def(name)
    resources = {key: (built.resources or {})[key] for key in sensor.required_resource_keys}
    with (
        dg.build_sensor_context(instance=dagster.instance, definitions=built, resources=resources) as context,
        pytest.raises(errors.IngestError) as failed,
    ):
        sensor.evaluate_tick(context)
    (line,) = str(failed.value).splitlines()
    return line


def test_ticks_fail_if_postgres_is_down_and_name_the_variable_of_the_component(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANDBOOK_URL", "postgresql://me:hunter2@127.0.0.1:1/catalog")
    for name in _SENSORS:
        line = failure(dagster, definitions(dagster.settings), name)
        assert "HANDBOOK_URL is correct" in line
        assert "INGEST_" not in line
        assert "hunter2" not in line


def test_a_tick_fails_if_the_source_is_missing_and_names_the_attribute(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANDBOOK_URL", dagster.settings.database_url or "")
    missing = dagster.settings.replace(source=f"{dagster.settings.source}/nowhere")
    line = failure(dagster, definitions(missing), "docs_source_sensor")
    assert "does not exist. Create it, or set `source`." in line


def test_without_work_a_tick_is_skipped(dagster: DagsterWorld) -> None:
    for name in _SENSORS:
        assert isinstance(dagster.tick(name), dg.SkipReason)
