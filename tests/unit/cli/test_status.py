"""The status of a corpus tells a running saga from one whose writer is gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from rich.console import Console

from ingest_pipeline.cli._status import Status, screen
from ingest_pipeline.corpus.saga_timeouts import SILENCE_SECONDS
from ingest_pipeline.postgres.ledger.sagas import SagaKind, SagaRow, SagaState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUMMARY: dict[str, Any] = dict.fromkeys(
    ("documents", "chunks", "embedded", "tokens", "tokens_today", "vectors_in_batch_jobs", "head_version"), 0
) | {
    "corpus": "docs",
    "latest_version": 0,
    "source": "/source",
    "table": "/table",
    "database": "/database",
    "embedding": "model/32",
    "recipe": None,
    "limits": {"tokens_per_day": None},
    "event_queue": "none",
    "parser_confinement": "complete",
}


def saga(writer: str = "elsewhere:boot:1:1", silence: float = 1.0) -> SagaRow:
    row = SagaRow.__new__(SagaRow)
    values = {"id": uuid4(), "kind": SagaKind.INGEST, "state": SagaState.PREPARING, "run_id": None, "writer": writer}
    for name, value in {**values, "started_at": NOW, "seen_at": NOW - timedelta(seconds=silence)}.items():
        object.__setattr__(row, name, value)
    return row


def shown(*sagas: SagaRow) -> str:
    found = Status(SUMMARY, [], None, [], None, [], sagas, {}, [], [], [], shown_at=NOW)
    console = Console(file=StringIO(), width=200)
    with console.capture() as capture:
        console.print(screen(found, console))
    return capture.get()


def test_a_saga_with_a_heartbeat_is_running() -> None:
    text = shown(saga())
    assert "1 saga running" in text
    assert "doubt" not in text


@pytest.mark.parametrize("silent", [saga(silence=SILENCE_SECONDS), saga("")])
def test_a_saga_whose_writer_is_gone_is_in_doubt(silent: SagaRow, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_dead(writer: str) -> bool:
        return writer == ""

    monkeypatch.setattr("ingest_pipeline.cli._status.is_dead", is_dead)
    text = shown(silent, saga(), saga())
    assert "1 saga in doubt, 2 sagas running" in text
    assert "In doubt: `ingest-pipeline recover` settles them" in text
