"""Lets workers ingest the documents of a run, and brings together what they did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.errors import WorkersDiedError
from ingest_pipeline.ingestion.summary import Publication, Summary
from ingest_pipeline.ingestion.workers.messages import Assignment, Part, PartDone, PartFailed
from ingest_pipeline.ingestion.workers.parts import SMALLEST_PART, parts, weight
from ingest_pipeline.ingestion.workers.processes import Event, WorkerProcesses, how_it_ended
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.telemetry.logs import get_logger

log = get_logger(__name__)

# A part with which two workers died is not handed out again: one of its documents may need too much memory.
_MAX_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How many workers share a run, and what they work for."""

    count: int
    assignment: Assignment

    @classmethod
    def of(
        cls, count: int, database_url: str, config: CorpusConfig, embedder: OpenAISettings, run_id: str | None = None
    ) -> WorkerSettings | None:
        """The settings for so many workers, which share the embedder's requests; None if one is enough.

        Args:
            count: How many workers.
            database_url: Url of the catalog.
            config: The settings of the run.
            embedder: Settings of the run's embedder.
            run_id: The Dagster run, if there is one.
        """
        if count <= 1:
            return None
        mine, share = embedder.embedder, max(1, embedder.concurrency // count)
        sent = replace(embedder, embedder=None, concurrency=share)
        return cls(count, Assignment(database_url, config, sent, mine.key if mine else None, run_id))


@dataclass(slots=True)
class WorkerPool:
    """The workers of one run. They are started with the first documents that are worth it.

    Args:
        context: The open corpus with its source.
        settings: How many workers, and what they work for.
        report: Called after each publication of a worker.
        count: Called with the outcome of each part.
        count_unreported: Called with the number of documents that a worker published just before it died.
    """

    context: IngestContext
    settings: WorkerSettings
    report: Callable[[Publication], None]
    count: Callable[[Summary], None]
    count_unreported: Callable[[int], None]
    _processes: WorkerProcesses | None = None
    _open: int = 0
    """Parts that have not ended."""
    _error: Exception | None = None
    _reported: defaultdict[str, list[UUID]] = field(default_factory=lambda: defaultdict(list))
    """Sagas that each worker has reported."""

    def is_worth(self, plans: Sequence[DocumentPlan]) -> bool:
        """Whether workers, their start included, would ingest these documents sooner than this process."""
        return self._processes is not None or (len(plans) > 1 and weight(plans) > SMALLEST_PART)

    def add(self, plans: Sequence[DocumentPlan]) -> None:
        """Hand out documents. Waits while many parts are waiting, so that memory stays bounded.

        Raises:
            IngestError: As `finish`.
        """
        count = self.settings.count
        if self._processes is not None and not self._processes.living:
            self._fail(self._died("All workers died"))
            self._raise_failure()
        cut = [Part(part) for part in parts(plans, count)]
        if self._processes is None:
            self._processes = WorkerProcesses(self.settings.assignment, count)
            self._processes.start()
        self._open += len(cut)
        self._processes.add(cut)
        while self._processes.waiting > count:
            self._take(self._processes.events.get())
            self._raise_failure()

    def finish(self) -> None:
        """Wait until all documents are ingested.

        Raises:
            IngestError: A failure that concerns all documents. The other workers have finished their parts.
            WorkersDiedError: All workers died, or two with the same documents. The rest was not ingested.
        """
        while self._processes is not None and self._open:
            self._take(self._processes.events.get())
        self._raise_failure()

    def close(self) -> None:
        """End the workers."""
        if self._processes is not None:
            self._processes.close()
            self._processes = None

    def _raise_failure(self) -> None:
        if self._error is None:
            return
        assert self._processes is not None  # noqa: S101  a worker failed
        while self._open:
            self._take(self._processes.events.get())
        raise self._error

    def _take(self, event: Event) -> None:
        match event.message:
            case Publication() as publication:
                self._reported[event.worker.writer].append(publication.saga)
                self.report(publication)
            case PartDone(summary):
                self._open -= 1
                self.count(summary)
            case PartFailed(error):
                self._open -= event.part is not None
                self._fail(error)
            case None:
                self._recover(event)
            case _:
                pass

    def _fail(self, error: Exception) -> None:
        assert self._processes is not None  # noqa: S101  one of its workers failed
        self._error = self._error or error
        self._open -= self._processes.drop_waiting()

    def _recover(self, event: Event) -> None:
        """Give the rest of a dead worker's part to another one. Its saga is settled like that of any dead writer."""
        assert self._processes is not None  # noqa: S101  one of its workers died
        how, living = how_it_ended(event.worker), self._processes.living
        log.warning("A worker of corpus %r ended (%s). %s others continue.", self.context.corpus.name, how, living)
        if event.worker.writer:
            self.count_unreported(self._published(event.worker.writer))
        attempt = 0
        if event.part is not None:
            self._open -= 1
            attempt = event.part.attempt
            left = self._left(event.part)
            if left and self._error is None:
                self._open += 1
                self._processes.add([Part(left, attempt + 1)], first=True)
        is_poison = attempt >= _MAX_ATTEMPTS
        if self._open and (is_poison or not living):
            self._fail(
                self._died(f"{attempt} workers died with the same documents" if is_poison else "All workers died")
            )

    def _died(self, what: str) -> WorkersDiedError:
        kept = "What was published stays published, and recorded vectors are not embedded again"
        return WorkersDiedError(f"Corpus {self.context.corpus.name!r}: {what}. {kept}")

    def _left(self, part: Part) -> list[DocumentPlan]:
        """What is still to do of a part. Documents that vanished are left to the next run, which counts removals."""
        meant_to_go = {plan.key for plan in part.plans if plan.source is None}
        page = Planner(self.context).documents(sorted(plan.key for plan in part.plans))
        left = [plan for plan in page.plans if plan.source is not None or plan.key in meant_to_go]
        return sorted(left, key=lambda plan: plan.key)

    def _published(self, writer: str) -> int:
        with self.context.corpus.database.transaction() as connection:
            return documents.count_published_by(connection, writer, self._reported[writer])
