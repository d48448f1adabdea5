"""Dagster runs of the command line: each runs in this process and is recorded in Dagster's instance."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import dagster as dg
from dagster_shared.error import SerializableErrorInfo
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ingest_pipeline import errors
from ingest_pipeline.assets.skipped import SkippedDocuments
from ingest_pipeline.cli import _dagster, _session, _settings
from ingest_pipeline.cli._execution import execute
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import DatabaseUnavailableError, UnavailableError
from ingest_pipeline.ingestion.context import open_context, release_holds
from ingest_pipeline.ingestion.named_documents import check_keys, nothing_found
from ingest_pipeline.ingestion.reembed import Action, model_mismatch
from ingest_pipeline.planning.backoff import without_final
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.run_backoff import forgive_runs
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog import reports
from ingest_pipeline.postgres.catalog.reports import RunProgress
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import embedding_cache
from ingest_pipeline.postgres.ledger.embedding_cache import Cost
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.types import counted

_POLL_SECONDS = 0.3
# Names of the error classes whose messages are written for the user.
_OWN_ERRORS = {"Failure", *vars(errors)}
_INTERRUPTS = {"DagsterExecutionInterruptedError", "KeyboardInterrupt"}
# Errors of psycopg2, which Dagster uses for its own tables.
_POSTGRES_ENDED = {"OperationalError", "InterfaceError"}


class Run:
    """The result of a run, and why it failed if it did."""

    def __init__(
        self,
        run_id: str,
        progress: RunProgress,
        costs: Sequence[Cost],
        problems: Sequence[str],
        note: str | None = None,
        *,
        skipped: SkippedDocuments | None = None,
        misconfigured: bool = False,
    ) -> None:
        self.misconfigured = misconfigured
        """A setting has to be changed before the run can succeed."""
        self.note = note
        """A further sentence for the user."""
        self.skipped = skipped or SkippedDocuments.of(())
        """Documents that were skipped without failing the run."""
        self.run_id = run_id
        self.progress = progress
        self.costs = costs
        self.problems = problems


def ingest(
    settings: CorpusConfig,
    keys: Sequence[str],
    console: Console,
    *,
    confirm_removals: bool = False,
    confirm_recipe: bool = False,
    confirm_columns: bool = False,
    workers: int = 1,
) -> Run:
    """Bring documents up to date with the source, in one Dagster run.

    Args:
        settings: Settings of the corpus.
        keys: Keys of documents, whose whole partitions are ingested. Empty: all documents that differ.
        console: Shows the progress bar.
        confirm_removals: Remove documents that the source lacks, however many they are.
        confirm_recipe: Ingest documents that differ by recipe alone, however many they are.
        confirm_columns: Give the corpus the columns of the settings, even if it loses columns or their values.
        workers: Processes that share the documents.

    Raises:
        IngestError: The run could not begin.
    """
    names = DagsterNames.of(settings)
    with _session.postgres(settings) as running, Database(running.database_url or "") as database:
        context = open_context(database, running, create=False, confirm_columns=confirm_columns)
        check_keys(context, keys)
        _settings.check_recipe(context, confirmed=confirm_recipe)
        release_holds(context.corpus, keys)
        forgive_runs(context.corpus)
        partitions = list(dict.fromkeys(map(context.scheme.partition_of, keys)))
        differing, skipped = _count(context, partitions)
        console.print(_difference(settings, differing - skipped, skipped))
        run_id = str(uuid.uuid4())
        with _dagster.instance(running) as instance, _bar(console, database, run_id, differing - skipped):
            config = {
                "partitions": partitions,
                "release_holds": False,
                "confirm_removals": confirm_removals,
                "confirm_recipe": confirm_recipe,
                "confirm_columns": confirm_columns,
                "workers": workers,
            }
            ops = {names.step: {"config": config}}
            result = execute(running, instance, run_id, names.ingest_job, ops, partitions=partitions)
        with database.transaction() as connection:
            costs = embedding_cache.costs(connection, run_id=run_id)
            progress = reports.run_progress(connection, run_id)
        _check_interrupt(result, "ingest", progress)
        note = model_mismatch(context, running) or (None if differing else nothing_found(context))
        return Run(
            run_id,
            progress,
            costs,
            problems_of(result),
            note,
            skipped=SkippedDocuments.reported_by(result),
            misconfigured=_is_misconfigured(result),
        )


def reembed(settings: CorpusConfig, action: Action, documents: int, console: Console) -> Run:
    """Re-embed a corpus with the model of the settings, or run one step of the re-embedding, in one Dagster run.

    Args:
        settings: Settings of the corpus, with the new model.
        action: The step to run.
        documents: Number of documents that will be embedded, for the progress bar.
        console: Shows the progress bar.

    Raises:
        IngestError: The run could not begin.
    """
    names = DagsterNames.of(settings)
    with _session.postgres(settings) as running, Database(running.database_url or "") as database:
        run_id = str(uuid.uuid4())
        with _dagster.instance(running) as instance, _bar(console, database, run_id, documents):
            ops = {names.name("reembed"): {"config": {"action": action.name}}}
            result = execute(running, instance, run_id, names.reembed_job, ops)
        with database.transaction() as connection:
            costs = embedding_cache.costs(connection, run_id=run_id)
            progress = reports.run_progress(connection, run_id)
        _check_interrupt(result, "reembed", progress)
        return Run(run_id, progress, costs, problems_of(result), misconfigured=_is_misconfigured(result))


def roll_back(settings: CorpusConfig, version: int, keys: Sequence[str], *, confirm_removals: bool = False) -> Run:
    """Roll documents back to an earlier publication, in one Dagster run.

    Args:
        settings: Settings of the corpus.
        version: Version of the publication to return to.
        keys: Keys of documents. Empty: the whole corpus.
        confirm_removals: Remove documents, however many they are.

    Raises:
        IngestError: The run could not begin.
    """
    names = DagsterNames.of(settings)
    with _session.postgres(settings) as running, Database(running.database_url or "") as database:
        _settings.check_recipe(open_context(database, running, create=False))
        run_id = str(uuid.uuid4())
        config = {"version": version, "partitions": list(keys), "confirm_removals": confirm_removals}
        ops = {names.name("rollback"): {"config": config}}
        with _dagster.instance(running) as instance:
            result = execute(running, instance, run_id, names.rollback_job, ops)
        with database.transaction() as connection:
            progress = reports.run_progress(connection, run_id)
        _check_interrupt(result, "rollback", progress)
        return Run(run_id, progress, [], problems_of(result), misconfigured=_is_misconfigured(result))


def decide_gate(settings: CorpusConfig, action: str, publication: str) -> Run:
    """Release or drop what did not pass its gates, in one Dagster run.

    Args:
        settings: Settings of the corpus.
        action: `release` or `drop`.
        publication: Id of the publication, or name of the generation.

    Raises:
        IngestError: The run could not begin.
    """
    names = DagsterNames.of(settings)
    with _session.postgres(settings) as running, Database(running.database_url or "") as database:
        run_id = str(uuid.uuid4())
        ops = {names.name("gate"): {"config": {"action": action.upper(), "publication": publication}}}
        with _dagster.instance(running) as instance:
            result = execute(running, instance, run_id, names.gate_job, ops)
        with database.transaction() as connection:
            progress = reports.run_progress(connection, run_id)
        _check_interrupt(result, "gate", progress)
        return Run(run_id, progress, [], problems_of(result), misconfigured=_is_misconfigured(result))


def problems_of(result: dg.JobExecutionResult) -> list[str]:
    """The problems of a run, one line each."""
    if result.success:
        return []
    return list(map(_root, _errors(result)))


def _errors(result: dg.JobExecutionResult) -> list[SerializableErrorInfo]:
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    # A run that fails outside its step, for example in a resource, has the error in its last event.
    ends = [event.job_failure_data for event in result.all_events if event.is_run_failure]
    return [failure.error for failure in failures or ends if failure.error is not None]


def _kinds(result: dg.JobExecutionResult) -> set[str]:
    """Names of the classes of the errors that failed a run, and of their causes."""
    kinds: set[str] = set()
    for found in _errors(result):
        error: SerializableErrorInfo | None = found
        while error is not None:
            kinds.add(error.cls_name or "")
            error = error.cause
    return kinds


def _is_misconfigured(result: dg.JobExecutionResult) -> bool:
    known = [getattr(errors, kind) for kind in _kinds(result) if hasattr(errors, kind)]
    return any(issubclass(kind, errors.ConfigurationError) for kind in known)


def is_interrupted(result: dg.JobExecutionResult) -> bool:
    """Whether the run ended because the process was interrupted."""
    return not result.success and not _INTERRUPTS.isdisjoint(_kinds(result))


def _check_interrupt(result: dg.JobExecutionResult, command: str, progress: RunProgress) -> None:
    """Raise `InterruptedRunError` if the run was interrupted."""
    if not is_interrupted(result):
        return
    raise errors.InterruptedRunError(
        f"`{command}` was interrupted. Published so far, and stays so: {counted(progress.published, 'document')}. "
        f"Embedded so far: {counted(progress.embedded, 'text')}, with vectors that are recorded and will not be billed "
        "again",
        f"Run `ingest-pipeline {command}` again to continue.",
    )


def _count(context: IngestContext, partitions: Sequence[str]) -> tuple[int, int]:
    """The number of documents that differ, and of those that a run over everything skips. No partitions: all."""
    if partitions:
        return len(Planner(context).plans(partitions)), 0
    differing = skipped = 0
    for page in Planner(context).one_pass():
        differing += len(page.plans)
        skipped += len(without_final(context, page.plans)[1])
    return differing, skipped


def _difference(settings: CorpusConfig, differing: int, skipped: int) -> str:
    """A sentence that says how many documents a run is about, before it begins."""
    corpus, source = f"[b]{settings.corpus}[/b]", escape(settings.source)
    verb = "differs" if differing == 1 else "differ"
    line = f"{counted(differing, 'document')} of corpus {corpus} {verb} from {source}"
    if skipped:
        cannot = "cannot be read or failed too often"
        return f"{line}. {counted(skipped, 'more document')} {cannot}, and {'is' if skipped == 1 else 'are'} skipped."
    return f"{line}." if differing else f"Corpus {corpus} agrees with {source}."


def _root(error: SerializableErrorInfo) -> str:
    """The message of the innermost error of this package. Dagster wraps that error, which may wrap one of a library."""
    while error.cause is not None and error.cls_name not in _OWN_ERRORS:
        error = error.cause
    message = error.message.strip().partition(f"{error.cls_name}: ")[2] or error.message.strip()
    if error.cls_name in _POSTGRES_ENDED:
        return str(
            DatabaseUnavailableError(f"Dagster's own tables in Postgres failed: {(message.splitlines() or [''])[0]}")
        )
    return message


@contextmanager
def _bar(console: Console, database: Database, run_id: str, total: int) -> Generator[None]:
    """A progress bar that reads the ledger, so it counts only work that is recorded durably."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    if not total:
        yield
        return
    ended = threading.Event()

    def shown(done: int, embedded: int) -> str:
        return f"{done:,} of {counted(total, 'document')}, {counted(embedded, 'text')} embedded"

    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        task = progress.add_task(shown(0, 0), total=total)

        def show() -> None:
            try:
                with database.transaction() as connection:
                    now = reports.run_progress(connection, run_id)
            except UnavailableError:
                return  # the run reports the same error itself
            done = max(now.published, now.prepared)
            progress.update(task, completed=done, description=shown(done, now.embedded))

        def poll() -> None:
            while not ended.wait(_POLL_SECONDS):
                show()

        watcher = threading.Thread(target=poll, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            show()
