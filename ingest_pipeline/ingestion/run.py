"""One ingest run: compares the source with head page by page, publishes what differs, and collects the outcome.

A script and the step in Dagster run the same class. They differ in their options and in what they report.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.errors import IngestError, UnreadableError
from ingest_pipeline.event_loop import run_blocking
from ingest_pipeline.gates.judge import Gates
from ingest_pipeline.ingestion.context import release_holds
from ingest_pipeline.ingestion.ingest import Ingestion
from ingest_pipeline.ingestion.metrics import named
from ingest_pipeline.ingestion.outcome import IngestOutcome, Problem, SkippedDocument
from ingest_pipeline.ingestion.recipe_guard import RecipeGuard
from ingest_pipeline.ingestion.summary import Publication, Summary
from ingest_pipeline.ingestion.workers.pool import WorkerPool, WorkerSettings
from ingest_pipeline.planning.backoff import clear_resolved, read_retry_backoff
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.lag import record_comparison
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.removal_guard import check_removals
from ingest_pipeline.planning.run_backoff import forgive_runs
from ingest_pipeline.planning.shares import EVERYTHING, Share
from ingest_pipeline.planning.source_comparison import MAX_PAGE_DOCUMENTS, Limits, Page, Planner
from ingest_pipeline.postgres.ledger.failures import Failure, read_failures
from ingest_pipeline.preparation.spending_guard import SpendingGuard
from ingest_pipeline.telemetry.spans import span


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run may do without a further confirmation, and what it skips."""

    release_holds: bool = True
    """Ingest the named partitions even if a rollback put them on hold."""
    confirm_removals: bool = False
    """Remove documents that the source lacks, even if they are all or most of the corpus."""
    withhold_removals: bool = False
    """Remove no document."""
    confirm_recipe: bool = False
    """Ingest documents that differ by recipe alone, however many they are."""
    withhold_recipe: bool = False
    """Skip documents that differ by recipe alone and were not confirmed, without calling that a problem."""
    skip_backed_off: bool = False
    """Skip documents that failed and are in retry backoff or in quarantine."""
    skip_unreadable: bool = True
    """Skip files that cannot be read. Otherwise they fail."""
    skip_too_recent: bool = False
    """Skip files that were modified so recently that they may still be written to, like the sensor."""
    share: Share = EVERYTHING
    """The share of all partitions that the run ingests, if it names none."""
    is_retry: bool = False
    """The run repeats one that failed. Documents in backoff fail again without another attempt."""


class RunReporter(Protocol):
    """What is called during a run, to show its progress."""

    def compared(self, page: Page) -> None:
        """A page was compared. Nothing of it is published yet."""
        ...

    def expect(self, plans: Sequence[DocumentPlan]) -> None:
        """These documents are about to be ingested."""
        ...

    def publication(self, publication: Publication) -> None:
        """A group of them was published."""
        ...

    def usage(self) -> None:
        """The ingestion of these documents ended or failed. It is billed in any case."""
        ...


class _Silent:
    """Reports nothing."""

    def compared(self, page: Page) -> None: ...
    def expect(self, plans: Sequence[DocumentPlan]) -> None: ...
    def publication(self, publication: Publication) -> None: ...
    def usage(self) -> None: ...


class IngestRun:
    """One run over some partitions of a corpus, or over all documents that differ.

    Args:
        context: The open corpus with its source.
        create_embedder: Creates an embedder of the corpus' model. It is called only if something is to be ingested.
        options: What the run may do and skips.
        reporter: Called during the run.
        run_id: The Dagster run that the usage is counted for, if there is one.
        execute: Runs a coroutine to its end.
        workers: The processes that share the documents. None: this process ingests them.
    """

    def __init__(
        self,
        context: IngestContext,
        create_embedder: Callable[[], EmbeddingClient],
        options: RunOptions,
        *,
        reporter: RunReporter | None = None,
        run_id: str | None = None,
        execute: Callable[[Coroutine[Any, Any, Summary]], Summary] = run_blocking,
        workers: WorkerSettings | None = None,
    ) -> None:
        self.outcome = IngestOutcome()
        """The outcome so far, also if the run fails."""
        self.has_published = False
        """Whether documents were published so far, also by a page that failed later."""
        self._context = context
        self._create_embedder = create_embedder
        self._options = options
        self._reporter: RunReporter = reporter or _Silent()
        self._run_id = run_id
        self._execute = execute
        self._recipe_guard = RecipeGuard(context, confirmed=options.confirm_recipe)
        self._spending: SpendingGuard | None = None
        self._withheld_by_recipe = 0
        self._gates: Gates | None = None
        self._workers: WorkerPool | None = None
        if workers is not None and workers.count > 1:
            self._workers = WorkerPool(context, workers, self._report_of_worker, self._count, self._count_unreported)
        self._differing = self._unchanged = 0

    def run(self, partitions: Sequence[str] | None = None, documents: Sequence[str] | None = None) -> IngestOutcome:
        """Ingest some partitions, or all documents that differ. Removals come last, when all of them are counted.

        Args:
            partitions: The partitions. None: all documents that differ.
            documents: Keys of documents, if the run ingests these alone. The other documents of their partitions are
                not compared with the source.

        Raises:
            IngestError: A failure concerned all documents. Documents published before it stay published.
        """
        with named(self._context, self._run_id), span("ingest"):
            try:
                self._ingest_pages(partitions, documents)
            finally:
                if self._workers is not None:
                    self._workers.close()
            self._conclude(are_all=partitions is None and documents is None and self._options.share.count == 1)
        return self.outcome

    def _conclude(self, *, are_all: bool) -> None:
        """Note what is left. A run over all documents also records how far head is behind the source."""
        if self._withheld_by_recipe and self._recipe_guard.error is not None and not self._options.withhold_recipe:
            self.outcome.others.append(Problem("", None, self._recipe_guard.error))
        self.outcome.incomplete.update(problem.partition for problem in self.outcome.failed)
        if self.outcome.published:
            forgive_runs(self._context.corpus)
        if are_all:
            done = self.outcome.published + self.outcome.removed + self.outcome.unreadable.total() + self._unchanged
            record_comparison(self._context.corpus, max(0, self._differing - done))

    def _ingest_pages(self, partitions: Sequence[str] | None, documents: Sequence[str] | None) -> None:
        removals: list[DocumentPlan] = []
        puts: list[DocumentPlan] = []
        are_named = partitions is not None or documents is not None
        if not are_named or self._options.confirm_recipe:
            self._recipe_guard.accept()
        for page in self._pages(partitions) if documents is None else self._page_of(documents):
            self._reporter.compared(page)
            self._differing += len(page.plans)
            self.outcome.incomplete.update(plan.partition for plan in (*page.on_hold, *page.blocked))
            if puts and self._workers is not None and self._workers.is_worth(puts):
                self._hand_out(self._workers, puts)
            else:
                self._ingest(puts)
            puts = self._without_backed_off(page.puts, are_named=are_named)
            puts = self._without_withheld(puts, are_named=are_named)
            removals += page.removals
        # The last page and the removals share a publication, so that readers see a renamed file once.
        last = [*puts, *self._allowed(removals, are_few=documents is not None)]
        if self._workers is None or not self._workers.is_worth(last):
            self._ingest(last)
            return
        # Removals come after all workers, so that readers may see a renamed file twice for a while, but never miss it.
        self._hand_out(self._workers, puts)
        try:
            self._workers.finish()
        finally:
            self._reporter.usage()
        self._ingest([plan for plan in last if plan.source is None])

    def _pages(self, partitions: Sequence[str] | None) -> Iterator[Page]:
        planner = Planner(self._context)
        if partitions is not None:
            if self._options.release_holds:
                release_holds(self._context.corpus, partitions)
            page = planner.partitions(partitions)
            # A user who names documents wants another judgement. A sensor or a repeated run does not.
            if not self._options.skip_backed_off and not self._options.is_retry:
                page.judge_again()
            yield page
            return
        share = self._options.share
        min_age = self._context.min_age_seconds if self._options.skip_too_recent else 0
        # A run ingests a share of each page, and larger pages make its publications as large as those of other runs.
        for page in planner.pages(Limits(share.count * MAX_PAGE_DOCUMENTS, min_age_seconds=min_age)):
            clear_resolved(self._context, page)
            page.puts, page.removals, page.on_hold = map(share.of, (page.puts, page.removals, page.on_hold))
            page.blocked = share.of(page.blocked)
            self.outcome.incomplete.update(map(self._context.scheme.partition_of, page.too_recent))
            yield page

    def _page_of(self, keys: Sequence[str]) -> Iterator[Page]:
        """Compare some documents. A partition with another document that failed stays incomplete."""
        with self._context.corpus.database.transaction() as connection:
            failures = read_failures(connection, self._context.corpus.generation)
        named = set(keys)
        others = (failure for failure in failures if failure.key not in named and not failure.unreadable)
        self.outcome.incomplete.update(failure.partition for failure in others)
        yield Planner(self._context).documents(keys)

    def _without_backed_off(self, puts: Sequence[DocumentPlan], *, are_named: bool) -> list[DocumentPlan]:
        """Skip documents that cannot be read and those in quarantine, unless the run names them.

        Documents in retry backoff are skipped too, if the options say so or if the run is a retry.
        """
        skip_backed_off = self._options.is_retry or self._options.skip_backed_off
        backoff = read_retry_backoff(self._context)
        tried: list[DocumentPlan] = []
        for plan in puts:
            failure = backoff.failure_of(plan)
            if failure is None or not (skip_backed_off or (failure.is_final and not are_named)):
                tried.append(plan)
            else:
                self._skip(plan, failure)
        return tried

    def _without_withheld(self, puts: Sequence[DocumentPlan], *, are_named: bool) -> list[DocumentPlan]:
        """Skip documents that differ by recipe alone, if that has to be confirmed."""
        named_by_user = are_named and not self._options.withhold_recipe
        due, withheld = self._recipe_guard.split(puts, are_named=named_by_user, reads=True)
        self._withheld_by_recipe += len(withheld)
        self.outcome.incomplete.update(plan.partition for plan in withheld)
        return due

    def _allowed(self, removals: Sequence[DocumentPlan], *, are_few: bool) -> Sequence[DocumentPlan]:
        error = None
        # The removal guard must count all removals, and a share knows only its own.
        withhold = self._options.withhold_removals or self._options.share.count > 1
        if not (self._options.confirm_removals or withhold):
            error = check_removals(self._context, len(removals), with_recent=are_few)
        if error is None and not withhold:
            return removals
        self.outcome.incomplete.update(plan.partition for plan in removals)
        if error is not None:
            self.outcome.others.append(Problem("", None, error))
        return []

    def _skip(self, plan: DocumentPlan, failure: Failure) -> None:
        """Skip a document that is in retry backoff or in quarantine, or let the run fail for it."""
        if failure.unreadable and self._options.skip_unreadable:
            self._skip_unreadable(plan, failure.reason, failure.error)
            return
        self.outcome.incomplete.add(plan.partition)
        if self._options.is_retry or (failure.unreadable and not self._options.skip_backed_off):
            self.outcome.failed.append(Problem(plan.partition, plan.key, IngestError(failure.error, "")))
            return
        reason = "in quarantine" if failure.is_final else "in retry backoff"
        reason = failure.reason if failure.unreadable else reason
        self.outcome.skipped.append(SkippedDocument(plan.key, reason, failure.error))

    def _skip_unreadable(self, plan: DocumentPlan, reason: str, problem: str) -> None:
        """Skip a file that cannot be read. It does not make a shared partition incomplete."""
        if self._context.scheme.kind == "file":
            self.outcome.incomplete.add(plan.partition)
        self.outcome.unreadable[plan.partition] += 1
        self.outcome.skipped.append(SkippedDocument(plan.key, reason, problem))

    def _hand_out(self, workers: WorkerPool, plans: Sequence[DocumentPlan]) -> None:
        if not plans:
            return
        self._reporter.expect(plans)
        try:
            workers.add(sorted(plans, key=lambda plan: plan.key))
        except Exception:
            self._reporter.usage()
            raise

    def _ingest(self, plans: Sequence[DocumentPlan]) -> None:
        if not plans:
            return
        self._reporter.expect(plans)
        try:
            summary = self._execute(self._publish(sorted(plans, key=lambda plan: plan.key)))
        finally:
            self._reporter.usage()
        for publication in summary.publications:
            self._count_publication(publication)
        self._count(summary)

    async def _publish(self, plans: Sequence[DocumentPlan]) -> Summary:
        async with self._create_embedder() as embedder:
            ingestion = Ingestion(
                self._context,
                embedder,
                run_id=self._run_id,
                report=self._report,
                spending=self._spending,
                gates=self._gates,
                previews=not isinstance(self._reporter, _Silent),
            )
            self._gates = ingestion.gates
            # The limits count for the whole run, and not for each of its pages.
            self._spending = ingestion.spending
            return await ingestion.run(plans)

    def _report(self, publication: Publication) -> None:
        self.has_published = self.has_published or bool(publication.documents)
        self._reporter.publication(publication)

    def _report_of_worker(self, publication: Publication) -> None:
        self._count_publication(publication)
        self._report(publication)

    def _count_publication(self, publication: Publication) -> None:
        self.outcome.published += len(publication.documents)
        self.outcome.removed += len(publication.removed)

    def _count_unreported(self, published: int) -> None:
        """Count documents that a worker published just before it died."""
        self.outcome.published += published
        self.has_published = self.has_published or published > 0

    def _count(self, summary: Summary) -> None:
        outcome = self.outcome
        self._unchanged += len(summary.unchanged)
        outcome.judgements += summary.judgements
        for blocked in summary.blocked:
            outcome.incomplete.update(plan.partition for plan in blocked.plans)
            outcome.others.append(Problem("", None, blocked.error))
        for plan, error in summary.failed.values():
            if isinstance(error, UnreadableError):
                outcome.tried_unreadable.add(plan.key)
            if isinstance(error, UnreadableError) and self._options.skip_unreadable:
                self._skip_unreadable(plan, error.reason, str(error))
            else:
                outcome.failed.append(Problem(plan.partition, plan.key, error))
        for plan, error in summary.too_recent.values():
            outcome.incomplete.add(plan.partition)
            outcome.skipped.append(SkippedDocument(plan.key, "too recent", str(error)))
