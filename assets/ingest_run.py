"""One execution of the ingest step: an ingest run with Dagster's configuration, whose outcome Dagster shows."""

from collections.abc import Collection, Sequence
from contextlib import suppress

import dagster as dg
from pydantic import Field

from ingest_pipeline.assets.checks.check_reports import log_checks
from ingest_pipeline.assets.checks.gate_report import log_gate
from ingest_pipeline.assets.run_report import RunReport
from ingest_pipeline.assets.skipped import SkippedDocuments
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.errors import EmbeddingUnavailableError, IngestError, StaleError, UnavailableError
from ingest_pipeline.ingestion.outcome import IngestOutcome, Problem
from ingest_pipeline.ingestion.run import IngestRun, RunOptions
from ingest_pipeline.ingestion.workers.pool import WorkerSettings
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.run_backoff import delays_next_run, record_run_failure
from ingest_pipeline.planning.shares import Share
from ingest_pipeline.postgres.ledger.failures import Failure, read_failures
from ingest_pipeline.reporting.interrupts import run_interruptibly
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.names import DagsterNames

_RETRY_TAG = "dagster/retry_number"


class IngestConfig(dg.Config):
    """Configuration of one run, for the Launchpad."""

    partitions: list[str] = Field(
        default=[],
        description="For a run without partitions: the partitions to ingest. Empty: all documents that differ.",
    )
    documents: list[str] = Field(
        default=[],
        description="Keys of documents, if the run ingests these alone and not all that differ in the partitions. Runs "
        "that notices of S3 cause set it.",
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
    confirm_columns: bool = Field(
        default=False,
        description="Give the corpus the columns of the settings, even if it loses columns or their values.",
    )
    withhold_recipe: bool = Field(
        default=False,
        description="Skip documents that differ by recipe alone and were not confirmed, without failing the run. The "
        "sensors set it, because they report these documents themselves.",
    )
    share: int = Field(default=0, ge=0, description="Which of the shares to ingest, from 0 on.")
    shares: int = Field(
        default=1,
        ge=1,
        description="For a run over all documents that differ: into how many shares the partitions are divided. The "
        "sensor sets it, to share a large difference among several runs.",
    )
    skip_too_recent: bool = Field(
        default=False, description="Skip files that were modified so recently that they may still be written to."
    )
    workers: int = Field(
        default=1,
        ge=1,
        description="Processes on the machine of the run that share its documents. They share the run's limits too.",
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


class StepRun:
    """One execution of the step.

    Args:
        context: Dagster's context of the step.
        names: Names of the corpus in Dagster.
        ingest_context: The open corpus with its source.
        embedder: The resource that computes the vectors.
        config: Configuration of the run.
        settings: The settings of the run.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        names: DagsterNames,
        ingest_context: IngestContext,
        embedder: OpenAIEmbedderResource,
        config: IngestConfig,
        *,
        settings: CorpusConfig,
    ) -> None:
        self._context = context
        self._names = names
        self._ingest_context = ingest_context
        self._embedder = embedder
        self.report = RunReport(context, names, ingest_context)
        """What the run reported to Dagster."""
        options = RunOptions(
            release_holds=config.release_holds,
            confirm_removals=config.confirm_removals,
            withhold_removals=config.withhold_removals,
            confirm_recipe=config.confirm_recipe,
            withhold_recipe=config.withhold_recipe,
            skip_backed_off=config.skip_backed_off,
            skip_unreadable=settings.on_unreadable == "skip",
            skip_too_recent=config.skip_too_recent,
            share=Share(config.share, config.shares),
            is_retry=_RETRY_TAG in context.run.tags,
        )
        self._run = IngestRun(
            ingest_context,
            self._create_embedder,
            options,
            reporter=self.report,
            run_id=context.run.run_id,
            execute=run_interruptibly,
            workers=self._workers(config.workers, settings),
        )

    def _workers(self, count: int, settings: CorpusConfig) -> WorkerSettings | None:
        if count == 1:
            return None
        url, run_id = self._ingest_context.corpus.database.url, self._context.run.run_id
        return WorkerSettings.of(count, url, settings, self._embedder.api_settings(), run_id)

    def run(
        self, partitions: Sequence[str] | None, documents: Sequence[str] | None = None, *, is_last: bool = True
    ) -> IngestOutcome:
        """Ingest some partitions, or all documents that differ, and report to Dagster.

        Args:
            partitions: The partitions. None: all documents that differ.
            documents: Keys of documents, if the run ingests these alone.
            is_last: Whether Dagster will not retry the step. Failures that Dagster retries are not counted.

        Raises:
            IngestError: A failure concerned all documents. Documents published before it stay published.
        """
        try:
            outcome = self._run.run(partitions, documents)
            # Of the partitions of these documents, the run knows no more than that.
            self._show(outcome, partitions if documents is None else None)
        except Exception as error:
            with suppress(IngestError):  # the recovery sensor reports it otherwise
                self.report.head()
            delays = delays_next_run(error, has_published=self._run.has_published)
            if delays and (is_last or not is_repeated(error)):
                with suppress(IngestError):  # the run's own error is more useful
                    configuration = run_configuration(self._ingest_context, self._embedder)
                    record_run_failure(self._ingest_context.corpus, configuration, error)
            raise
        return outcome

    def _show(self, outcome: IngestOutcome, partitions: Sequence[str] | None) -> None:
        ghosts = self.report.finish(partitions or [], outcome.incomplete, outcome.unreadable)
        outcome.others += [Problem(partition, None, _no_document(partition)) for partition in ghosts]
        self.report.failed(outcome.failed)
        self.report.skipped(SkippedDocuments.of(outcome.skipped), self._stale(outcome.tried_unreadable))
        self.report.head()
        if self._ingest_context.gates is not None:
            log_gate(self._context, self._names, self._ingest_context.corpus, outcome.judgements)
        log_checks(self._context, self._names, self._ingest_context, partitions, self.report.touched)

    def _stale(self, keys: Collection[str]) -> list[Failure]:
        """The unreadable documents among these of which readers still see an earlier file."""
        if not keys:
            return []
        with self._ingest_context.corpus.database.transaction() as connection:
            found = read_failures(connection, self._ingest_context.corpus.generation)
        return [failure for failure in found if failure.unreadable and failure.key in keys]

    def _create_embedder(self) -> EmbeddingClient:
        embedding, wanted = self._ingest_context.recipe.embedding, self._embedder.api_settings().embedding
        if embedding != wanted:
            self._context.log.warning(
                f"The settings name {wanted}, but the corpus has vectors of {embedding}. The corpus keeps that model "
                "until `ingest-pipeline reembed` or the re-embedding job replaces it"
            )
        embedder = self._embedder.create_embedder(embedding)
        if embedder.is_free:
            self._context.log.info(f"The local model {embedder.settings.model} embeds, at no cost")
        return embedder


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
