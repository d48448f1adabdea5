"""One run of the ingest step: compare page by page, publish, remove what the source lacks, and report."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import dagster as dg
from pydantic import Field

from ingest_pipeline.assets.check_reports import MAX_DOCUMENTS, log_checks
from ingest_pipeline.assets.run_report import RunReport
from ingest_pipeline.assets.skipped import SkippedDocument, SkippedDocuments
from ingest_pipeline.errors import (
    EmbeddingUnavailableError,
    IngestError,
    StaleError,
    UnavailableError,
    UnreadableError,
)
from ingest_pipeline.ingestion.context import release_holds
from ingest_pipeline.ingestion.ingest import Ingestion, Summary
from ingest_pipeline.ingestion.recipe_guard import RecipeGuard
from ingest_pipeline.planning.backoff import clear_resolved, read_retry_backoff
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.removal_guard import check_removals
from ingest_pipeline.planning.run_backoff import forgive_runs, record_run_failure
from ingest_pipeline.planning.source_comparison import Limits, Page, Planner
from ingest_pipeline.postgres.failures import Failure, read_failures
from ingest_pipeline.reporting.interrupts import run_interruptibly
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.types import OnUnreadable

# Pages of this size keep memory independent of the size of the corpus.
_MAX_PAGE_DOCUMENTS = 10_000
_RETRY_TAG = "dagster/retry_number"


class IngestConfig(dg.Config):
    """Configuration of one run, for the Launchpad."""

    partitions: list[str] = Field(
        default=[],
        description="For a run without partitions: the partitions to ingest. Empty: all documents that differ.",
    )
    release_holds: bool = Field(
        default=True,
        description="Ingest the named partitions even if a rollback put them on hold. The sensor sets it to false.",
    )
    confirm_removals: bool = Field(
        default=False,
        description="Remove documents that the source lacks, even if they are all or most of the corpus.",
    )
    withhold_removals: bool = Field(
        default=False, description="Remove no document. The sensor sets it until it has counted all missing documents."
    )
    confirm_recipe: bool = Field(
        default=False,
        description="Ingest documents that differ by recipe alone, even if they are many or the recipe is an earlier "
        "one. The run puts the recipe into force.",
    )
    withhold_recipe: bool = Field(
        default=False,
        description="Skip documents that differ by recipe alone and were not confirmed, without failing the run. The "
        "sensors set it, because they report these documents themselves.",
    )
    skip_backed_off: bool = Field(
        default=False,
        description="Skip documents that failed and are in retry backoff or in quarantine.",
    )
    chunk_size: int | None = Field(
        default=None, description="Characters in a chunk, instead of the corpus' own setting."
    )
    chunk_overlap: int | None = Field(
        default=None,
        description="Characters that a chunk repeats from the one before, instead of the corpus' own setting.",
    )


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a partition differs from the source."""

    partition: str
    document: str | None
    error: IngestError


@dataclass(slots=True)
class Outcome:
    """The result of a run."""

    published: int = 0
    skipped: list[SkippedDocument] = field(default_factory=list[SkippedDocument])
    """Documents that were skipped without failing the run."""
    failed: list[Problem] = field(default_factory=list[Problem])
    others: list[Problem] = field(default_factory=list[Problem])
    """Removals or a recipe change that need a confirmation, and partitions that do not exist."""

    @property
    def problems(self) -> list[Problem]:
        """All problems that fail the run."""
        return [*sorted(self.failed, key=lambda problem: problem.document or ""), *self.others]


class IngestRun:
    """One execution of the step.

    Args:
        context: Dagster's context of the step.
        ingest_context: The open corpus with its source.
        embedder: The resource that computes the vectors.
        config: Configuration of the run.
        on_unreadable: Whether files that cannot be read are skipped or fail the run.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        ingest_context: IngestContext,
        embedder: OpenAIEmbedderResource,
        config: IngestConfig,
        on_unreadable: OnUnreadable,
    ) -> None:
        self._context = context
        self._ingest_context = ingest_context
        self._embedder = embedder
        self._config = config
        self._report = RunReport(context, ingest_context)
        self._outcome = Outcome()
        self._recipe_guard = RecipeGuard(ingest_context, confirmed=config.confirm_recipe)
        self._withheld = 0
        self._incomplete: set[str] = set()
        self._skips_unreadable = on_unreadable == "skip"
        self._is_repeated = _RETRY_TAG in context.run.tags
        self._unreadable: Counter[str] = Counter()
        """Number of skipped unreadable documents, by partition."""
        self._tried_unreadable: set[str] = set()
        """Keys of the unreadable documents that this run tried to read."""
        self._touched: list[str] = []

    def run(self, partitions: Sequence[str] | None, *, is_last: bool = True) -> Outcome:
        """Ingest some partitions, or all documents that differ.

        Args:
            partitions: The partitions. None: all documents that differ.
            is_last: Whether Dagster will not retry the step. Failures that Dagster retries are not counted.

        Raises:
            IngestError: A failure concerned all documents. Documents published before it stay published.
        """
        corpus, configuration = self._ingest_context.corpus, run_configuration(self._ingest_context, self._embedder)
        try:
            outcome = self._run(partitions)
        except Exception as error:
            # A run that published before it failed did not fail as a whole.
            if not self._outcome.published and (is_last or not is_repeated(error)):
                with suppress(IngestError):  # the run's own error is more useful
                    record_run_failure(corpus, configuration, error)
            raise
        if outcome.published:
            forgive_runs(corpus)
        return outcome

    def _run(self, partitions: Sequence[str] | None) -> Outcome:
        removals: list[DocumentPlan] = []
        puts: list[DocumentPlan] = []
        if partitions is None or self._config.confirm_recipe:
            self._recipe_guard.accept()
        for page in self._pages(partitions):
            self._log_page(page)
            self._ingest(puts)
            puts = self._without_backed_off(page.puts, are_named=partitions is not None)
            puts = self._without_withheld(puts, are_named=partitions is not None)
            removals += page.removals
        self._ingest([*puts, *self._allowed(removals)])
        if self._withheld and self._recipe_guard.error is not None and not self._config.withhold_recipe:
            self._outcome.others.append(Problem("", None, self._recipe_guard.error))
        self._incomplete.update(problem.partition for problem in self._outcome.failed)
        ghosts = self._report.finish(partitions or [], self._incomplete, self._unreadable)
        self._outcome.others += [Problem(partition, None, _no_document(partition)) for partition in ghosts]
        self._report.failed({problem.partition for problem in self._outcome.failed})
        self._report.skipped(SkippedDocuments.of(self._outcome.skipped), self._stale(self._tried_unreadable))
        log_checks(self._context, self._ingest_context, partitions, self._touched)
        return self._outcome

    def _pages(self, partitions: Sequence[str] | None) -> Iterator[Page]:
        planner = Planner(self._ingest_context)
        if partitions is not None:
            if self._config.release_holds:
                release_holds(self._ingest_context.corpus, partitions)
            yield planner.partitions(partitions)
            return
        for page in planner.pages(Limits(plans=_MAX_PAGE_DOCUMENTS)):
            clear_resolved(self._ingest_context, page)
            yield page

    def _log_page(self, page: Page) -> None:
        self._context.log.info(
            f"{len(page.puts) + len(page.removals)} documents of corpus {self._ingest_context.corpus.name!r} "
            f"differ from the source; {len(page.on_hold)} are on hold after a rollback"
        )
        self._incomplete.update(plan.partition for plan in page.on_hold)

    def _without_backed_off(self, puts: Sequence[DocumentPlan], *, are_named: bool) -> list[DocumentPlan]:
        """Skip documents that cannot be read and those in quarantine, unless the run names them.

        Documents in retry backoff are skipped too, if the configuration says so or if Dagster retries the run.
        """
        skip_backed_off = self._is_repeated or self._config.skip_backed_off
        backoff = read_retry_backoff(self._ingest_context)
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
        named_by_user = are_named and not self._config.withhold_recipe
        due, withheld = self._recipe_guard.split(puts, are_named=named_by_user, reads=True)
        self._withheld += len(withheld)
        self._incomplete.update(plan.partition for plan in withheld)
        return due

    def _skip(self, plan: DocumentPlan, failure: Failure) -> None:
        """Skip a document that is in retry backoff or in quarantine, or let the run fail for it."""
        if failure.unreadable and self._skips_unreadable:
            self._skip_unreadable(plan, failure.reason, failure.error)
            return
        self._incomplete.add(plan.partition)
        if self._is_repeated or (failure.unreadable and not self._config.skip_backed_off):
            self._outcome.failed.append(Problem(plan.partition, plan.key, IngestError(failure.error, "")))
            return
        reason = "in quarantine" if failure.is_final else "in retry backoff"
        reason = failure.reason if failure.unreadable else reason
        self._outcome.skipped.append(SkippedDocument(plan.key, reason, failure.error))

    def _skip_unreadable(self, plan: DocumentPlan, reason: str, problem: str) -> None:
        """Skip a file that cannot be read. A partition that is one document has no materialization then."""
        if self._ingest_context.scheme.kind == "file":
            self._incomplete.add(plan.partition)
        self._unreadable[plan.partition] += 1
        self._outcome.skipped.append(SkippedDocument(plan.key, reason, problem))

    def _stale(self, keys: Collection[str]) -> list[Failure]:
        """The unreadable documents among these of which readers still see an earlier file."""
        if not keys:
            return []
        with self._ingest_context.corpus.database.transaction() as connection:
            found = read_failures(connection, self._ingest_context.corpus.generation)
        return [failure for failure in found if failure.unreadable and failure.key in keys]

    def _allowed(self, removals: Sequence[DocumentPlan]) -> Sequence[DocumentPlan]:
        error = None
        if not (self._config.confirm_removals or self._config.withhold_removals):
            error = check_removals(self._ingest_context, removals)
        if error is None and not self._config.withhold_removals:
            return removals
        self._incomplete.update(plan.partition for plan in removals)
        if error is not None:
            self._outcome.others.append(Problem("", None, error))
        return []

    def _ingest(self, plans: Sequence[DocumentPlan]) -> None:
        if not plans:
            return
        self._report.expect(plans)
        # One key more than the maximum is enough for the checks to see that it is exceeded.
        self._touched += [plan.key for plan in plans[: MAX_DOCUMENTS + 1 - len(self._touched)]]
        try:
            summary = run_interruptibly(self._publish(sorted(plans, key=lambda plan: plan.key)))
        finally:
            self._report.usage()
        self._outcome.published += sum(len(publication.documents) for publication in summary.publications)
        for plan, error in summary.failed.values():
            if isinstance(error, UnreadableError):
                self._tried_unreadable.add(plan.key)
            if isinstance(error, UnreadableError) and self._skips_unreadable:
                self._skip_unreadable(plan, error.reason, str(error))
            else:
                self._outcome.failed.append(Problem(plan.partition, plan.key, error))
        for plan, error in summary.too_recent.values():
            self._incomplete.add(plan.partition)
            self._outcome.skipped.append(SkippedDocument(plan.key, "too recent", str(error)))

    async def _publish(self, plans: Sequence[DocumentPlan]) -> Summary:
        embedding, wanted = self._ingest_context.recipe.embedding, f"{self._embedder.model}/{self._embedder.dimensions}"
        if embedding != wanted:
            self._context.log.warning(
                f"The settings name {wanted}, but the corpus has vectors of {embedding}. The corpus keeps that model "
                "until `ingest-pipeline reembed` or the re-embedding job replaces it"
            )
        async with self._embedder.create_embedder(embedding) as embedder:
            if embedder.is_free:
                self._context.log.info(f"The local model {embedder.settings.model} embeds, at no cost")
            ingestion = Ingestion(
                self._ingest_context, embedder, run_id=self._context.run.run_id, report=self._report.publication
            )
            return await ingestion.run(plans)


def is_repeated(error: Exception) -> bool:
    """Whether the error is temporary and the step is retried at once. The embedding client has its own retries."""
    return isinstance(error, UnavailableError | StaleError) and not isinstance(error, EmbeddingUnavailableError)


def run_configuration(ingest_context: IngestContext, embedder: OpenAIEmbedderResource) -> str:
    """Fingerprint of the settings that decide whether a run can succeed."""
    return f"{ingest_context.recipe.fingerprint}/{embedder.fingerprint}/{ingest_context.limits}"


def _no_document(partition: str) -> IngestError:
    return IngestError(
        f"Partition {partition!r} has no document, neither in the source nor at head",
        "Delete the partition, or add the file to the source.",
    )
