"""A corpus as the input of an asset: at one version in the whole run, whatever is published meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan, execute_run

from ingest_pipeline import CorpusAtHead, errors, open_corpus
from ingest_pipeline.cli import _session
from ingest_pipeline.corpus.pinned import pinned_corpus
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.maintenance.retention import retain
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.postgres.catalog.pins import Pin
from ingest_pipeline.types import Retention
from tests.support.dagster.world import HEAD, DagsterWorld
from tests.support.world import paragraphs

_DOCS = dg.AssetIn(key=HEAD)
_ONLY_HEAD = Retention(days=0, publications=0)
_BOTH = "key:first or key:second"
Read = Callable[[CorpusAtHead], None]


def readers(*, first: Read, second: Read) -> list[dg.AssetsDefinition]:
    """Two assets that read the corpus one after the other."""

    @dg.asset(name="first", ins={"docs": _DOCS})
    def read_first(docs: CorpusAtHead) -> None:
        first(docs)

    @dg.asset(name="second", ins={"docs": _DOCS}, deps=[read_first])
    def read_second(docs: CorpusAtHead) -> None:
        second(docs)

    return [read_first, read_second]


def run(dagster: DagsterWorld, assets: list[dg.AssetsDefinition], selection: str) -> dg.ExecuteInProcessResult:
    """Run a selection of the corpus and the assets that read it."""
    job = definitions_with(dagster, assets, selection).resolve_job_def("composed")
    return job.execute_in_process(instance=dagster.instance, raise_on_error=False)


def definitions_with(dagster: DagsterWorld, assets: list[dg.AssetsDefinition], selection: str) -> dg.Definitions:
    """The corpus with assets that read it, and a job over a selection of them."""
    job = dg.define_asset_job("composed", selection=selection, executor_def=dg.in_process_executor)
    return dg.Definitions.merge(build_definitions(dagster.settings), dg.Definitions(assets=assets, jobs=[job]))


def publish(dagster: DagsterWorld, key: str) -> int:
    """Publish another document; returns the version."""
    dagster.put(key, paragraphs(key, 2))
    assert dagster.run().success
    return dagster.audit().head_version


def keys(docs: CorpusAtHead) -> list[str]:
    return docs.documents()["key"].to_pylist()


@pytest.mark.promise("one-head-a-run")
@pytest.mark.parametrize("selection", [_BOTH, "*"], ids=["after the corpus", "with the corpus"])
def test_two_inputs_of_one_run_see_one_head(dagster: DagsterWorld, selection: str) -> None:
    publish(dagster, "a.txt")
    seen: list[tuple[int, list[str], set[str], set[str]]] = []

    def look(docs: CorpusAtHead) -> None:
        found = {hit.document for hit in docs.search("text", mode="vector", limit=100)}
        rows = docs.table().search().select(["document"]).limit(1000).to_list()
        seen.append((docs.version, keys(docs), found, {row["document"] for row in rows}))
        publish(dagster, f"new{len(seen)}.txt")

    dagster.put("b.txt", paragraphs("beta", 2))
    expected = ["a.txt", "b.txt"]
    if selection != "*":
        publish(dagster, "b.txt")
    assert run(dagster, readers(first=look, second=look), selection).success
    assert seen[0] == seen[1]
    assert seen[0][1:] == (expected, set(expected), set(expected))
    again: list[list[str]] = []
    assert run(dagster, readers(first=look, second=lambda docs: again.append(keys(docs))), _BOTH).success
    assert again == [["a.txt", "b.txt", "new1.txt", "new2.txt"]]


@pytest.mark.promise("one-head-a-run")
def test_a_run_that_goes_on_from_its_failure_reads_the_same_head(dagster: DagsterWorld) -> None:
    publish(dagster, "a.txt")
    seen: list[list[str]] = []

    def fail(docs: CorpusAtHead) -> None:
        raise dg.Failure(f"failed at {docs.version}")

    def look(docs: CorpusAtHead) -> None:
        seen.append(keys(docs))

    assets = readers(first=lambda _: None, second=fail)
    failed = run(dagster, assets, _BOTH)
    assert not failed.success
    publish(dagster, "b.txt")
    assets = readers(first=lambda _: None, second=look)
    assert execute_again(dagster, assets, failed.run_id).success
    assert seen == [["a.txt"]]
    assert run(dagster, assets, "key:second").success
    assert seen[1] == ["a.txt", "b.txt"]


def execute_again(dagster: DagsterWorld, assets: list[dg.AssetsDefinition], failed: str) -> dg.JobExecutionResult:
    """Execute the step `second` of a failed run again, as Dagster does it from the failure."""
    job = definitions_with(dagster, assets, _BOTH).resolve_job_def("composed")
    again = dagster.instance.create_run_for_job(
        job,
        execution_plan=create_execution_plan(job, step_keys_to_execute=["second"]),
        parent_run_id=failed,
        root_run_id=failed,
        tags={"dagster/parent_run_id": failed, "dagster/root_run_id": failed, "dagster/is_resume_retry": "true"},
    )
    return execute_run(InMemoryJob(job), again, dagster.instance)


@pytest.mark.promise("one-head-a-run")
def test_retention_keeps_the_version_that_a_run_reads(dagster: DagsterWorld) -> None:
    publish(dagster, "a.txt")

    def remove_old_versions(_: CorpusAtHead) -> None:
        for key in ("b.txt", "c.txt"):
            publish(dagster, key)
        with _session.corpus(dagster.settings) as corpus:
            retain(corpus, _ONLY_HEAD)

    seen: list[list[str]] = []
    pins: list[Pin] = []

    def look(docs: CorpusAtHead) -> None:
        pins.append(Pin(docs.generation, docs.version))
        seen.append(docs.chunks()["document"].to_pylist())

    assets = readers(first=remove_old_versions, second=look)
    result = run(dagster, assets, _BOTH)
    assert result.success
    assert set(seen[0]) == {"a.txt"}
    with dagster.connection() as connection:
        connection.execute("UPDATE ingest_pipeline.pin SET kept_until = now() WHERE run_id = %s", (result.run_id,))
    with _session.corpus(dagster.settings) as corpus:
        retain(corpus, _ONLY_HEAD)
        with pytest.raises(errors.VersionGoneError):
            pinned_corpus(corpus.database, pins[0]).table.at(pins[0].version)
    # Another run reads head again.
    assert run(dagster, readers(first=lambda docs: seen.append(keys(docs)), second=lambda _: None), _BOTH).success
    assert seen[1] == ["a.txt", "b.txt", "c.txt"]


@pytest.mark.promise("one-head-a-run")
def test_maintenance_after_the_last_publication_takes_no_version_away(dagster: DagsterWorld) -> None:
    with open_corpus(dagster.settings) as opened:
        for number in range(11):
            dagster.put(f"{number:02}.txt", paragraphs(f"{number:02}", 2))
            assert opened.ingest().published == 1
    publish(dagster, "last.txt")  # the version of which Dagster knows
    with _session.corpus(dagster.settings) as corpus:
        before = corpus.head().head_version
        maintain(corpus, _ONLY_HEAD)
        assert corpus.head().head_version > before
    seen: list[int] = []
    read = readers(first=lambda docs: seen.append(docs.chunks().num_rows), second=lambda _: None)
    assert run(dagster, read, _BOTH).success
    assert seen[0] >= 12


def test_frames_have_the_documents_and_the_chunks(dagster: DagsterWorld) -> None:
    publish(dagster, "a.txt")
    with open_corpus(dagster.settings) as corpus:
        docs = corpus.at_head()
        assert repr(docs) == f"<CorpusAtHead 'docs' at version {docs.version}>"
        documents, chunks = docs.documents(), docs.chunks()
        assert documents.column_names == [
            "key",
            "partition",
            "etag",
            "size",
            "last_modified",
            "character_count",
            "chunk_count",
            "published_version",
        ]
        assert documents["chunk_count"].to_pylist() == [chunks.num_rows]
        assert "vector" not in chunks.column_names
        assert docs.chunks(["document"]).column_names == ["document"]
        if find_spec("polars") is None:
            with pytest.raises(errors.MissingExtraError, match="pip install polars"):
                docs.documents_polars()
        else:
            assert docs.chunks_polars().height == chunks.num_rows


def test_the_log_of_a_run_names_the_version_that_it_reads(dagster: DagsterWorld) -> None:
    version = publish(dagster, "a.txt")
    result = run(dagster, readers(first=lambda _: None, second=lambda _: None), "key:first")
    assert result.success
    log = [entry.user_message for entry in dagster.instance.all_logs(result.run_id)]
    assert f"This run reads corpus docs at version {version} of generation docs" in log
    # A point without documents and chunks would interrupt the plots on the page of head.
    assert dagster.instance.fetch_observations(HEAD, limit=1).records == []
