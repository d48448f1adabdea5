"""Settling what writers left behind when they died: sagas in doubt, and versions above head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from ingest_pipeline import catalog, ledger
from ingest_pipeline.catalog import CorpusRow
from ingest_pipeline.corpus import Corpus
from ingest_pipeline.database import Connection
from ingest_pipeline.errors import ForeignWriteError
from ingest_pipeline.lance_table import CommitRefusedError
from ingest_pipeline.reconciliation import lock, reconcile_locked

# A writer gives a sign of life every five seconds.
SILENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What was settled."""

    corpus: str
    head_before: int
    head_after: int
    compensated: list[UUID]
    """Sagas whose Lance version was undone."""
    abandoned: list[UUID]
    """Sagas whose writer is gone and which had committed nothing."""


def recover(
    corpus: Corpus,
    *,
    silence: float = SILENCE_SECONDS,
    dead_runs: Sequence[str] = (),
    foreign: Literal["adopt", "restore"] | None = None,
) -> RecoveryReport:
    """Make latest equal head, and end the sagas whose writers are gone. Safe beside any number of writers.

    Args:
        corpus: Which one.
        silence: Seconds without a sign of life after which a writer is taken for dead. Too short a time is wasteful,
            not wrong: a living writer is fenced and plans again.
        dead_runs: Dagster runs that are known to have ended; their sagas are settled at once.
        foreign: What to do with a version above head that something else wrote: keep its content, which is refused if
            it changed the rows of documents, or take it back.

    Raises:
        ForeignWriteError: There is such a version and nothing was decided, or adopting it would break the catalog.
        UnavailableError: One of the stores does not answer.
    """
    with corpus.database.transaction() as connection:
        head = lock(connection, corpus)
        if foreign == "adopt":
            _adopt(connection, corpus, head)
            compensated: list[UUID] = []
        else:
            compensated = reconcile_locked(connection, corpus, head, over_foreign=foreign == "restore")
        abandoned = ledger.abandon_dead(connection, corpus.name, limit=silence, dead_runs=dead_runs)
        for saga in abandoned:
            catalog.forget_documents(connection, saga)
    return RecoveryReport(corpus.name, head.head_version, corpus.head().head_version, compensated, abandoned)


def _adopt(connection: Connection, corpus: Corpus, head: CorpusRow) -> None:
    """Publish the latest version as it is, if it holds exactly the rows of head: an index or a compaction does."""
    latest = corpus.table.latest_version()
    if latest == head.head_version:
        return
    before, after = (sorted(corpus.table.rows(v, ["id"])["id"].to_pylist()) for v in (head.head_version, latest))
    if before != after:
        raise ForeignWriteError(
            f"Version {latest} of the table of corpus {corpus.name!r} has {len(after)} rows where head has "
            f"{len(before)}, or other ones: adopting it would leave the catalog wrong",
            "Take it back with `ingest-pipeline recover --restore`, and bring the rows in through a transaction.",
        )
    saga = ledger.begin(connection, corpus=corpus.name, kind="restore", base_version=head.head_version)
    ledger.mark_prepared(connection, saga)
    version = corpus.table.restore(latest, saga)
    if version != latest + 1:
        raise CommitRefusedError(f"Another version of {corpus.table.uri} came before {latest} was adopted")
    ledger.mark_published(connection, saga, base_version=head.head_version, version=version)
    catalog.move_head(connection, corpus.name, version=version, saga=saga)
