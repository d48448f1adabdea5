"""A saga from its beginning to its end, as a context manager.

    with Saga.begin(corpus, SagaKind.INGEST, base_version=head) as saga:
        ...                        stage data files, plan document rows; the heartbeat runs
        saga.prepared()
        version = saga.publish(rows)

An error that leaves the block marks the saga as failed. A saga that is not published must be ended with `complete` or
`fail`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import FencedError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind, SagaRow, SagaState
from ingest_pipeline.saga.blocked import block_publication
from ingest_pipeline.saga.documents import DocumentRows
from ingest_pipeline.saga.heartbeat import Heartbeat, fail
from ingest_pipeline.saga.publish import CatalogRows, publish
from ingest_pipeline.telemetry.sagas import ObservedSaga
from ingest_pipeline.telemetry.spans import POSTGRES, stage
from ingest_pipeline.types import Finding, Price


class Saga:
    """One unit of work on a corpus, which publishes one version or nothing.

    Args:
        corpus: The corpus that the saga works on.
        saga_id: The saga's id in the ledger.
        base_version: The head that the saga is planned on.
        observed: Its span and its names in logs and metrics.
    """

    def __init__(self, corpus: Corpus, saga_id: UUID, base_version: int, observed: ObservedSaga) -> None:
        self.id = saga_id
        self.base_version = base_version
        self._corpus = corpus
        self._heartbeat = Heartbeat(corpus, saga_id)
        self._observed = observed
        self._open = ExitStack()

    @classmethod
    def begin(
        cls,
        corpus: Corpus,
        kind: SagaKind,
        *,
        base_version: int,
        run_id: str | None = None,
        target_version: int | None = None,
        price: Price | None = None,
    ) -> Self:
        """Record a new saga in the ledger, in state ``preparing``.

        Args:
            corpus: The corpus to work on.
            kind: The kind of work.
            base_version: The head that the work is planned on. Retention keeps it until the saga ends.
            run_id: The Dagster run that does the work, if any.
            target_version: For a rollback, the version to bring back. Retention keeps it, too.
            price: The price of the tokens that the saga will be billed for, if one is configured.
        """
        with corpus.database.transaction() as connection:
            saga_id = sagas.begin(
                connection,
                generation=corpus.generation,
                kind=kind,
                base_version=base_version,
                run_id=run_id,
                target_version=target_version,
                price=price,
            )
        observed = ObservedSaga(kind, corpus.name, corpus.generation, str(saga_id), run_id or "", price)
        return cls(corpus, saga_id, base_version, observed)

    def __enter__(self) -> Self:
        self._open.enter_context(self._observed.block())
        self._heartbeat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._heartbeat.stop()
        if error is not None:
            self.fail(error)
        self._open.__exit__(kind, error, trace)

    def check_not_fenced(self) -> None:
        """Stop work that can no longer be published.

        Raises:
            FencedError: Another process took this writer for dead and ended the saga.
        """
        if self._heartbeat.fenced is not None:
            raise self._heartbeat.fenced

    def prepared(self) -> None:
        """Record that only the publication is left to do.

        Raises:
            FencedError: Another process took this writer for dead and ended the saga.
        """
        with boundary(Boundary.PREPARED), self._corpus.database.transaction() as connection:
            sagas.mark_prepared(connection, self.id)

    def publish(self, rows: CatalogRows) -> int:
        """Publish the prepared saga; see `publish` for the errors.

        Returns:
            The version, which is head now.
        """
        # The publication locks the saga's row. A heartbeat would wait for the row, and stopping would wait for it.
        self._heartbeat.stop()
        with stage("publish", attributes=POSTGRES) as span:
            version = publish(self._corpus, self.id, rows)
            span.set_attribute("ingest_pipeline.version", version)
        self._observed.state = SagaState.PUBLISHED
        return version

    def block(self, rows: DocumentRows, findings: Sequence[Finding]) -> None:
        """Keep the prepared publication until it is released, dropped or overtaken; see `block_publication`."""
        self._heartbeat.stop()
        block_publication(self._corpus, rows, findings)
        self._observed.state = SagaState.BLOCKED

    def complete(self) -> None:
        """End a saga that did its work and has nothing to publish, unless it has ended already."""
        with boundary(Boundary.COMPLETED), self._corpus.database.transaction() as connection:
            sagas.mark_completed(connection, self.id)
        self._observed.state = SagaState.COMPLETED

    def fail(self, reason: BaseException | str) -> None:
        """Mark the saga as failed, unless it has ended already."""
        fail(self._corpus, self.id, reason)

    def row(self) -> SagaRow:
        """The saga's row in the ledger.

        Raises:
            FencedError: The row is gone, because the corpus was dropped.
        """
        with self._corpus.database.transaction() as connection:
            row = sagas.read(connection, self.id)
        if row is None:
            raise FencedError(f"Saga {self.id} is gone from the ledger: its corpus was dropped")
        return row
