"""What an SDK of the user sees of runs, publications and recoveries, and that it sees no text of a document."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator
from io import StringIO

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from pythonjsonlogger.json import JsonFormatter

from ingest_pipeline.embedding.create import create_embedder
from ingest_pipeline.errors import EmbeddingUnavailableError, IngestError, TableUnavailableError
from ingest_pipeline.ingestion.outcome import IngestOutcome
from ingest_pipeline.ingestion.run import IngestRun, RunOptions
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.types import DEFAULT_RETENTION
from tests.support.servers.batch_api import BatchServer
from tests.support.servers.embedding_server import TEST_MODEL, EmbeddingServer, Fault
from tests.support.telemetry import Observed, observe
from tests.support.world import World, collect_all, leave_version_above_head, mark_served, paragraphs, submit_all

MARKER = "Qzx7marker"


@pytest.fixture
def observed(monkeypatch: pytest.MonkeyPatch) -> Observed:
    return observe(monkeypatch)


def run(world: World) -> IngestOutcome:
    embedding = world.embedding_settings
    return IngestRun(world.context, lambda: create_embedder(embedding), RunOptions(), run_id="run-1").run()


def test_a_run_is_one_tree_of_spans(world: World, observed: Observed) -> None:
    world.put("a.txt", paragraphs("alpha", 20))
    world.put("b.txt", paragraphs("beta", 2))
    run(world)
    parents = {span.name: observed.parent(span) for span in observed.spans()}
    embeddings = f"embeddings {world.settings.embedding_model}"
    assert parents == {
        "ingest": None,
        "saga ingest": "ingest",
        "prepare": "saga ingest",
        "read": "prepare",
        "embed": "prepare",
        "write": "prepare",
        embeddings: "embed",
        "write data file": "write",
        "record data file": "write",
        "publish": "saga ingest",
    }
    assert {span.status.status_code for span in observed.spans()} == {StatusCode.UNSET}
    saga = dict(observed.span("saga ingest").attributes or {})
    assert saga.pop("ingest_pipeline.saga.id")
    assert saga == {
        "ingest_pipeline.corpus": "docs",
        "ingest_pipeline.generation": "docs",
        "ingest_pipeline.run.id": "run-1",
        "ingest_pipeline.saga.kind": "ingest",
        "ingest_pipeline.saga.state": "published",
    }
    call = observed.spans(embeddings)[0]
    assert call.kind == SpanKind.CLIENT
    assert (
        dict(call.attributes or {}).items()
        >= {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": world.settings.embedding_model,
            "server.address": "127.0.0.1",
            "ingest_pipeline.run.id": "run-1",
        }.items()
    )


def test_a_run_is_counted_by_outcome_stage_and_cost(world: World, observed: Observed) -> None:
    world.settings = world.settings.replace(embedding_prices=f"{TEST_MODEL} 2 USD 2026-11-01")
    world.put("a.txt", paragraphs("alpha", 12))
    world.put("b.txt", paragraphs("beta", 1))
    run(world)
    world.embeddings.fail_next(Fault.RATE_LIMITED)
    world.remove("b.txt")
    world.put("a.txt", paragraphs("alpha", 13))
    world.put("broken.txt", "").write_bytes(b"\xff\xff")
    run(world)
    assert observed.counts("ingest_pipeline.documents", "ingest_pipeline.outcome") == {
        "published": 3,
        "removed": 1,
        "unreadable": 1,
    }
    assert observed.counts("ingest_pipeline.chunks", "ingest_pipeline.vectors") == {"embedded": 14, "cached": 12}
    assert observed.points("ingest_pipeline.sagas")[0][1] == 2
    tokens = world.embeddings.tokens
    assert observed.counts("ingest_pipeline.tokens", "ingest_pipeline.corpus") == {"docs": tokens}
    assert observed.counts("ingest_pipeline.retries", "ingest_pipeline.corpus") == {"docs": 1}
    ((cost, amount),) = observed.points("ingest_pipeline.cost")
    assert cost["ingest_pipeline.currency"] == "USD"
    assert amount == pytest.approx(2e-6 * tokens)
    stages = observed.counts("ingest_pipeline.stage.duration", "ingest_pipeline.stage")
    assert stages.keys() == {"read", "chunk", "lookup", "embed", "write", "publish"}
    assert all(seconds > 0 for seconds in stages.values())
    ((_, lag),) = observed.points("ingest_pipeline.lag")
    assert 0 < lag < 3600
    ((_, billed),) = observed.points("gen_ai.client.token.usage")
    assert billed == tokens


def test_the_spans_do_not_grow_with_the_documents(world: World, observed: Observed) -> None:
    for number in range(60):
        world.put(f"{number}.txt", f"Text {number}.")
    run(world)
    batches = world.embeddings.requests
    assert len(observed.spans()) <= 9 + batches
    assert sum(1 for _ in observed.points("ingest_pipeline.stage.duration")) <= 6


def test_a_saga_that_fails_is_an_error_without_its_message(world: World, observed: Observed) -> None:
    world.put("secret_key.txt", paragraphs("alpha", 2))
    world.embeddings.fail_next(Fault.SERVER_ERROR, times=9)
    with pytest.raises(EmbeddingUnavailableError):
        run(world)
    failed = {span.name: span.status.description for span in observed.spans() if not span.status.is_unset}
    assert failed.keys() >= {"ingest", "saga ingest", "prepare", "embeddings test-embedding"}
    assert failed["saga ingest"] == failed["ingest"] == failed["prepare"] == "EmbeddingUnavailableError"
    assert (observed.span("saga ingest").attributes or {})["ingest_pipeline.saga.state"] == "failed"
    assert observed.points("ingest_pipeline.sagas")[0][0]["ingest_pipeline.saga.state"] == "failed"
    assert ("error.type", "EmbeddingUnavailableError") in observed.points("gen_ai.client.operation.duration")[0][
        0
    ].items()
    assert "secret_key" not in observed.everything()


def test_a_publication_that_fails_is_an_error_of_its_saga(
    world: World, observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put("a.txt", paragraphs("alpha", 1))
    world.ingest()
    version = world.head
    world.put("a.txt", paragraphs("beta", 1))
    world.ingest()

    def refuse(*_: object) -> None:
        raise TableUnavailableError("the store of the test is gone")

    with monkeypatch.context() as patch:
        patch.setattr(LanceTable, "stage_version", refuse)
        with pytest.raises(IngestError):
            world.roll_back(version)
    spans = {span.name: span for span in observed.spans() if not span.status.is_unset}
    assert spans.keys() == {"publish", "saga rollback"}
    assert {span.status.description for span in spans.values()} == {"UnavailableError"}
    world.roll_back(version)
    last = observed.spans("saga rollback")[-1]
    assert last.status.status_code == StatusCode.UNSET
    assert (last.attributes or {})["ingest_pipeline.saga.state"] == "published"


def test_a_recovery_counts_the_sagas_that_it_settles(world: World, observed: Observed) -> None:
    world.put("a.txt", paragraphs("alpha", 1))
    world.ingest()
    leave_version_above_head(world)
    world.recover()
    settled = [(one["ingest_pipeline.saga.state"], n) for one, n in observed.points("ingest_pipeline.sagas")]
    assert ("compensated", 1) in settled
    assert observed.span("recover").attributes == {
        "ingest_pipeline.corpus": "docs",
        "ingest_pipeline.generation": "docs",
    }


class TestBatchJobs:
    @pytest.fixture
    def embeddings(self) -> Generator[BatchServer]:
        with BatchServer() as server:
            yield server

    def test_the_submission_and_the_collection_name_the_same_job(self, world: World, observed: Observed) -> None:
        mark_served(world.database, world.embedding_settings)
        world.put("a.txt", paragraphs("alpha", 2))
        submit_all(world.context, world.embedding_settings)
        assert isinstance(world.embeddings, BatchServer)
        world.embeddings.finish()
        collect_all(world.context, world.embedding_settings)
        sent, received = observed.span("send batches"), observed.span("receive batches")
        assert (sent.kind, received.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
        of_both = [dict(span.attributes or {}) for span in (sent, received)]
        first, second = (one["messaging.message.id"] for one in of_both)
        assert first == second
        assert [one["messaging.batch.message_count"] for one in of_both] == [2, 2]
        assert observed.counts("ingest_pipeline.tokens", "ingest_pipeline.corpus")["docs"] > 0


@pytest.mark.promise("secrets")
def test_no_log_span_metric_or_error_shows_text(
    world: World, observed: Observed, embeddings: EmbeddingServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """At level DEBUG of every library, in runs that succeed and in runs that fail, in the ledger too."""
    written, root = StringIO(), logging.getLogger()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter("%(name)s %(message)s"))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        errors = _work_with_marked_text(world, embeddings)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert {line["name"].partition(".")[0] for line in lines} >= {"openai", "ingest_pipeline"}
    assert {line["corpus"] for line in lines if line["name"].startswith("ingest_pipeline.maintenance")} == {"docs"}
    captured = capfd.readouterr()
    shown = [written.getvalue(), captured.out, captured.err, observed.everything(), *errors, *_recorded_errors(world)]
    assert len(errors) == 2
    assert sum(MARKER in part for part in shown) == 0
    # The text was there to be shown.
    assert MARKER in "".join(world.texts().values())
    assert "…" in "".join(errors)


def _work_with_marked_text(world: World, embeddings: EmbeddingServer) -> list[str]:
    world.put("a.txt", paragraphs(MARKER, 3))
    run(world)
    world.put("b.md", f"# {MARKER}\n\nOf {MARKER} alone.")
    embeddings.fail_next(Fault.QUOTES_INPUT)
    outcome = run(world)
    errors = [str(problem.error) for problem in outcome.problems]
    world.put("c.csv", f"{MARKER},1\n")
    embeddings.fail_next(Fault.ERROR_AS_SUCCESS)
    try:
        run(world)
    except IngestError as error:
        errors.append(str(error))
    maintain(world.corpus, DEFAULT_RETENTION)
    return errors


def _recorded_errors(world: World) -> list[str]:
    with world.database.transaction() as connection:
        failed = connection.execute("SELECT error FROM ingest_pipeline.failure").fetchall()
        ended = connection.execute("SELECT coalesce(error, '') AS error FROM ingest_pipeline.saga").fetchall()
    return [str(row["error"]) for row in (*failed, *ended)]
