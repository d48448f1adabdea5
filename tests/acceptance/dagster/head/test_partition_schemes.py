"""Partitions that several documents share, and what Dagster is told of them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import dagster as dg
import pytest
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from ingest_pipeline.errors import CorpusMismatchError
from tests.support.dagster.cli import Cli, environment_of
from tests.support.dagster.world import CHUNKS, EMBEDDINGS, METADATA, DagsterWorld
from tests.support.servers.embedding_server import POISON, EmbeddingServer
from tests.support.world import paragraphs


@pytest.fixture
def scheme() -> str:
    return "folder"


def remove(dagster: DagsterWorld, key: str) -> None:
    (Path(dagster.settings.source) / key).unlink()


def folders(dagster: DagsterWorld) -> set[str]:
    return set(dagster.instance.get_dynamic_partitions("docs_folders"))


def data_version(dagster: DagsterWorld, partition: str) -> str:
    record = dagster.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=METADATA, asset_partitions=[partition]), limit=1
    ).records[0]
    assert record.asset_materialization is not None
    assert record.asset_materialization.tags is not None
    return record.asset_materialization.tags["dagster/data_version"]


def status(dagster: DagsterWorld, asset: dg.AssetKey) -> tuple[set[str], set[str]]:
    """Partitions that the UI shows as materialized, and as failed."""
    definition = dagster.definitions.resolve_asset_graph().get(asset).partitions_def
    found = get_and_update_asset_status_cache_value(dagster.instance, asset, definition)
    assert found is not None
    assert definition is not None
    made = found.deserialize_materialized_partition_subsets(definition)
    failed = found.deserialize_failed_partition_subsets(definition)
    return set(made.get_partition_keys()), set(failed.get_partition_keys())


def test_a_folder_is_a_partition_and_lists_its_documents(dagster: DagsterWorld) -> None:
    for key in ("a/1.txt", "a/deep/2.txt", "b/1.txt", "top.txt"):
        dagster.put(key, paragraphs(key, 2))
    assert dagster.run().success
    assert folders(dagster) == {"a/", "b/", "top.txt"}
    for asset in (CHUNKS, EMBEDDINGS, METADATA):
        assert dagster.materialized(asset) == {"a/", "b/", "top.txt"}
    chunks, embeddings, metadata = (dagster.latest(asset, "a/") for asset in (CHUNKS, EMBEDDINGS, METADATA))
    assert chunks["documents"] == metadata["documents"] == metadata["published"] == 2
    assert chunks["chunks"] == embeddings["embedded"]
    assert "a/1.txt 0." in str(chunks["preview"])
    assert "a/deep/2.txt" in str(metadata["changed"])


def test_only_what_differs_in_a_folder_is_read_and_paid(dagster: DagsterWorld) -> None:
    for number in range(6):
        dagster.put(f"a/{number}.txt", paragraphs(f"topic {number}", 1))
    dagster.run()
    before, version = dagster.embeddings.embedded, data_version(dagster, "a/")
    dagster.put("a/3.txt", paragraphs("other", 1))
    (run,) = dagster.follow()
    assert run.success
    assert dagster.embeddings.embedded == before + 1
    assert dagster.latest(METADATA, "a/")["published"] == 1
    assert dagster.latest(METADATA, "a/")["documents"] == 6
    assert data_version(dagster, "a/") != version


def test_a_folder_with_a_bad_document_is_not_materialized_until_it_is_fixed(dagster: DagsterWorld) -> None:
    dagster.put("a/good.txt", paragraphs("good", 1))
    dagster.put("a/bad.txt", f"{POISON} is refused by the API.")
    dagster.put("b/good.txt", paragraphs("better", 1))
    result = dagster.run()
    assert not result.success
    failure = next(event.step_failure_data for event in result.all_events if event.is_step_failure)
    assert failure.user_failure_data is not None
    (failed,) = cast("dg.TableMetadataValue", failure.user_failure_data.metadata["failed"]).records
    assert (failed.data["partition"], failed.data["document"]) == ("a/", "a/bad.txt")
    assert dagster.materialized(METADATA) == {"b/"}
    assert dagster.audit().documents == 2
    dagster.put("a/bad.txt", "Mended.")
    assert dagster.run().success
    assert dagster.materialized(METADATA) == {"a/", "b/"}


def test_the_partition_of_a_folder_is_deleted_with_its_last_document(dagster: DagsterWorld) -> None:
    for key in ("a/1.txt", "a/2.txt", "b/1.txt"):
        dagster.put(key, paragraphs(key, 1))
    dagster.run()
    remove(dagster, "a/1.txt")
    (run,) = dagster.follow()
    assert run.success
    assert folders(dagster) == {"a/", "b/"}
    assert dagster.latest(METADATA, "a/")["removed"] == 1
    remove(dagster, "a/2.txt")
    (run,) = dagster.follow()
    assert run.success
    assert folders(dagster) == {"b/"}
    assert dagster.audit().documents == 1


def test_a_folder_whose_run_died_before_its_report_is_compared_again(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.put("a/1.txt", paragraphs("alpha", 1))
    dagster.put("b/1.txt", paragraphs("beta", 1))

    def die(*_: object) -> None:
        raise dg.Failure("the process ends here", allow_retries=False)

    with monkeypatch.context() as patch:
        patch.setattr("ingest_pipeline.assets.run_report.RunReport._log", die)
        assert not dagster.run().success
    embedded = dagster.embeddings.embedded
    with monkeypatch.context() as patch:
        patch.setattr("ingest_pipeline.assets.run_report.RunReport._log", die)
        assert [run.success for run in dagster.follow("docs_recovery_sensor")] == [False]
    assert [run.success for run in dagster.follow("docs_recovery_sensor")] == [True]
    assert dagster.materialized(METADATA) == {"a/", "b/"}
    assert dagster.embeddings.embedded == embedded
    assert isinstance(dagster.tick("docs_recovery_sensor"), dg.SkipReason)
    assert dagster.tick("docs_recovery_sensor") == dg.SkipReason("No saga is in doubt.")


@pytest.mark.parametrize("scheme", ["bucket:4"])
def test_buckets_exist_from_the_start_and_may_be_empty(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 1))
    assert dagster.run().success
    (bucket,) = dagster.materialized(METADATA)
    empty = next(name for name in ("0", "1", "2", "3") if name != bucket)
    assert dagster.run(partition=empty).success
    assert dagster.latest(METADATA, empty)["status"] == "no document belongs to this partition"
    embedded = dagster.embeddings.embedded
    assert dagster.run(partition=bucket).success
    assert dagster.embeddings.embedded == embedded
    assert str(dagster.latest(METADATA, bucket)["status"]).startswith("unchanged")


@pytest.mark.parametrize("scheme", ["bucket:4"])
def test_a_range_of_buckets_with_one_bad_document_counts_exactly(dagster: DagsterWorld) -> None:
    for number in range(16):
        dagster.put(f"{number}.txt", paragraphs(f"topic {number}", 1))
    dagster.put("bad.txt", f"{POISON} is refused by the API.")
    tags = {"dagster/asset_partition_range_start": "0", "dagster/asset_partition_range_end": "3"}
    assert not dagster.run(tags=tags).success
    bad = status(dagster, METADATA)[1]
    assert len(bad) == 1
    assert status(dagster, METADATA)[0] == {"0", "1", "2", "3"} - bad
    dagster.put("bad.txt", "Mended.")
    embedded = dagster.embeddings.embedded
    assert dagster.run(tags=tags).success
    assert status(dagster, METADATA) == ({"0", "1", "2", "3"}, set())
    assert dagster.embeddings.embedded == embedded + 1


@pytest.mark.parametrize("scheme", ["file"])
def test_a_run_over_scattered_files_shows_the_failed_ones_as_failed(dagster: DagsterWorld) -> None:
    for number in range(8):
        dagster.put(f"{number}.txt", paragraphs(f"topic {number}", 1) if number != 5 else POISON)
    (run,) = dagster.follow()
    assert not run.success
    assert status(dagster, CHUNKS) == ({f"{number}.txt" for number in range(8) if number != 5}, {"5.txt"})


def test_another_scheme_is_refused_everywhere(
    dagster: DagsterWorld,
    tmp_path: Path,
    database_url: str,
    embeddings: EmbeddingServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dagster.put("a/1.txt", paragraphs("alpha", 1))
    dagster.run()
    cli = Cli(tmp_path, environment_of(tmp_path, database_url, embeddings))
    done = cli.run("ingest", INGEST_PARTITION_BY="bucket:8")
    assert done.exit_code == 2
    assert "partition scheme 'folder:1'" in done.stderr
    assert "'bucket:8'" in done.stderr
    assert "Set INGEST_PARTITION_BY (of a component: partition_by) back" in done.stderr
    monkeypatch.setenv("INGEST_PARTITION_BY", "file")
    dagster.settings = type(dagster.settings).from_environment()
    with pytest.raises(CorpusMismatchError, match="partition scheme 'folder:1'"):
        dagster.tick("docs_source_sensor")
    result = dagster.run()
    assert not result.success
    failure = next(event.step_failure_data for event in result.all_events if event.is_step_failure)
    assert "partition scheme 'folder:1'" in str(failure.error)
    assert dagster.audit().documents == 1
