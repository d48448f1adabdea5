"""Spans, scopes and log records: what they carry, through threads and tasks, and what they never carry."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from contextvars import copy_context

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import StatusCode

from ingest_pipeline.ingestion.workers.messages import Part
from ingest_pipeline.telemetry import metrics
from ingest_pipeline.telemetry.logs import get_logger
from ingest_pipeline.telemetry.propagation import continued
from ingest_pipeline.telemetry.scope import Scope, current, scope
from ingest_pipeline.telemetry.spans import span, stage
from ingest_pipeline.telemetry.stopwatch import Stopwatch
from tests.support.telemetry import observe


def test_a_span_that_raises_names_the_class_of_the_error_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    observed = observe(monkeypatch)
    with pytest.raises(ExceptionGroup), span("work"):
        raise ExceptionGroup("many", [ValueError("the text of a document")])
    found = observed.span("work")
    assert (found.status.status_code, found.status.description) == (StatusCode.ERROR, "ValueError")
    assert found.attributes == {"error.type": "ValueError"}
    assert found.events == ()
    assert "the text" not in observed.everything()


class _FaultyProcessor(SpanProcessor):
    def on_start(self, span: object, parent_context: object = None) -> None:  # noqa: ARG002  of the base class
        if getattr(span, "name", "") == "faulty start":
            raise RuntimeError("at the start")

    def on_end(self, span: ReadableSpan) -> None:  # noqa: ARG002  of the base class
        raise RuntimeError("at the end")


def test_a_faulty_processor_does_not_disturb_the_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    observe(monkeypatch, [_FaultyProcessor()])
    done = [name for name in ("faulty start", "faulty end") if _worked(name)]
    assert done == ["faulty start", "faulty end"]
    assert [record.message for record in caplog.records] == [
        "A span processor failed; the work continues without the span",
        "A span processor failed; the work continues",
    ]


def _worked(name: str) -> bool:
    with span(name):
        return True


def test_threads_and_tasks_inherit_the_span_and_the_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    observed = observe(monkeypatch)

    def work(name: str) -> Scope:
        with span(name):
            return current()

    async def task(name: str) -> Scope:
        return work(name)

    async def run() -> list[Scope]:
        with span("root"):
            created = asyncio.create_task(task("task"))
            return [await created, await asyncio.to_thread(work, "thread")]

    with scope(corpus="docs", saga="s"):
        scopes = asyncio.run(run())
    assert scopes == [Scope("docs", saga="s")] * 2
    assert [observed.parent(observed.span(name)) for name in ("task", "thread")] == ["root", "root"]
    assert observed.span("thread").attributes == {"ingest_pipeline.corpus": "docs", "ingest_pipeline.saga.id": "s"}
    assert current() == Scope()


def test_the_part_of_a_worker_continues_the_trace_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    observed = observe(monkeypatch)
    with span("ingest"):
        sent = pickle.dumps(Part([]))
    received: Part = pickle.loads(sent)  # noqa: S301  just pickled
    with continued(received.trace), span("saga ingest"):
        pass
    assert observed.parent(observed.span("saga ingest")) == "ingest"


def test_a_scope_that_ends_in_another_context_is_no_error() -> None:
    block = scope(corpus="docs")
    copy_context().run(block.__enter__)
    block.__exit__(None, None, None)
    assert current() == Scope()


def test_a_stage_counts_its_seconds_also_if_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    observed = observe(monkeypatch)
    with scope(corpus="docs"):
        with stage("publish"):
            pass
        with pytest.raises(ValueError, match="late"), stage("write", "write data file"):
            raise ValueError("late")
    assert {
        tuple(sorted(attributes.items())) for attributes, _ in observed.points("ingest_pipeline.stage.duration")
    } == {(("ingest_pipeline.corpus", "docs"), ("ingest_pipeline.stage", name)) for name in ("publish", "write")}
    assert observed.span("write data file").status.status_code == StatusCode.ERROR


def test_records_carry_the_names_of_the_scope(caplog: pytest.LogCaptureFixture) -> None:
    log = get_logger("ingest_pipeline.test")
    with caplog.at_level(logging.INFO, "ingest_pipeline"):
        log.info("outside")
        with scope(corpus="docs", saga="s", run="r"):
            log.info("of %s", "all", extra={"more": 1})
            thread = threading.Thread(target=copy_context().run, args=(log.info, "thread"))
            thread.start()
            thread.join()
    named = [[getattr(record, name) for name in ("corpus", "saga", "run")] for record in caplog.records]
    assert named == [["", "", ""], ["docs", "s", "r"], ["docs", "s", "r"]]
    assert (caplog.records[1].message, getattr(caplog.records[1], "more", None)) == ("of all", 1)


def test_a_stopwatch_counts_no_second_of_the_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("ingest_pipeline.telemetry.stopwatch.perf_counter", lambda: now[0])

    def make() -> object:
        now[0] += 1
        return now[0]

    watch, taken = Stopwatch(), 0
    for _ in watch.timed(make() for _ in range(3)):
        now[0] += 100
        taken += 1
    assert (taken, watch.seconds) == (3, 3.0)


def test_the_instruments_have_a_bounded_number_of_series() -> None:
    """No attribute is a key, a partition, a saga or a run: those of documents grow without a bound."""
    found = metrics.declared()
    assert len({one.name for one in found}) == len(found) >= 12
    assert {name for one in found for name in one.attributes} <= {
        "ingest_pipeline.outcome",
        "ingest_pipeline.vectors",
        "ingest_pipeline.saga.kind",
        "ingest_pipeline.saga.state",
        "ingest_pipeline.currency",
        "ingest_pipeline.stage",
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.token.type",
        "error.type",
    }


def test_without_an_sdk_nothing_is_recorded() -> None:
    with span("work") as started:
        assert not started.is_recording()
