"""Ingesting through Dagster from the command line: one run in this process, its events in Dagster's instance."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

import dagster as dg
from dagster_shared.error import SerializableErrorInfo
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ingest_pipeline import errors
from ingest_pipeline.assets.skipped import SkippedDocuments
from ingest_pipeline.cli import _session
from ingest_pipeline.cli._documents import check_keys, nothing_found
from ingest_pipeline.config import Settings
from ingest_pipeline.errors import DatabaseUnavailableError, UnavailableError
from ingest_pipeline.ingestion.context import open_context, plan_partitions, release_holds
from ingest_pipeline.ingestion.reembed import Action, model_mismatch
from ingest_pipeline.orchestration.build import build_definitions, job_name, pipeline_settings
from ingest_pipeline.orchestration.jobs.reembed import migration_job_name
from ingest_pipeline.orchestration.jobs.rollback import rollback_job_name, rollback_step
from ingest_pipeline.planning.backoff import without_final
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.run_backoff import forgive_runs
from ingest_pipeline.postgres import ledger, reports
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import Cost
from ingest_pipeline.postgres.reports import RunProgress
from ingest_pipeline.reporting.run_status import fail_dead_runs, own_process_tags

_POLL_SECONDS = 0.3
_TOLD = {"Failure", *vars(errors)}
# Of psycopg2, through which Dagster reaches its own tables.
_INTERRUPTS = {"DagsterExecutionInterruptedError", "KeyboardInterrupt"}
_POSTGRES_ENDED = {"OperationalError", "InterfaceError"}


class Run:
    """What a run did, and why it failed if it did."""

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
        """What to tell a person besides."""
        self.skipped = skipped or SkippedDocuments.of(())
        """Documents that were left as they are without failing the run."""
        self.run_id = run_id
        self.progress = progress
        self.costs = costs
        self.problems = problems


def ingest(
    settings: Settings,
    keys: Sequence[str],
    console: Console,
    *,
    confirm_removals: bool = False,
    confirm_recipe: bool = False,
) -> Run:
    """Bring documents to what the source holds now, in one Dagster run.

    Args:
        settings: Of the corpus.
        keys: Documents, whose partitions are ingested. None given: all that differ.
        console: Where the progress bar goes.
        confirm_removals: Take out what the source lacks, however much it is.
        confirm_recipe: Make documents again that differ by recipe alone, however many they are.

    Raises:
        IngestError: The run could not begin.
    """
    with _session.postgres(settings) as running, Database(running.database_url or "") as database:
        context = open_context(database, pipeline_settings(running), create=False)
        check_keys(context, keys)
        release_holds(context.corpus, keys)
        forgive_runs(context.corpus)
        partitions = list(dict.fromkeys(map(context.scheme.partition_of, keys)))
        plans = plan_partitions(context, partitions or None)
        tried = plans if partitions else without_final(context, plans)[0]
        console.print(
            f"{len(plans)} documents of corpus [b]{settings.corpus}[/b] differ from {escape(settings.source)}"
        )
        run_id = str(uuid.uuid4())
        with _session.instance(running) as instance, _bar(console, database, run_id, len(tried)):
            config = {
                "partitions": partitions,
                "release_holds": False,
                "confirm_removals": confirm_removals,
                "confirm_recipe": confirm_recipe,
            }
            ops = {f"{settings.corpus}_ingest": {"config": config}}
            result = _execute(running, instance, run_id, job_name(settings.corpus), ops)
        with database.transaction() as connection:
            costs = ledger.costs(connection, run_id=run_id)
            progress = reports.run_progress(connection, run_id)
        _check_interrupt(result, "ingest", progress)
        note = model_mismatch(context, pipeline_settings(running)) or _note_on_nothing(context, plans)
        return Run(
            run_id,
            progress,
            costs,
            _problems(result),
            note,
            skipped=SkippedDocuments.said_by(result),
            misconfigured=_is_misconfigured(result),
        )


def reembed(settings: Settings, action: Action, documents: int, console: Console) -> Run:
    """Move a corpus to the model of the settings, or do another step of that, in one Dagster run.

    Args:
        settings: Of the corpus, with the model to move to.
        action: Which step.
        documents: How many are to be embedded, for the progress bar.
        console: Where the progress bar goes.

    Raises:
        IngestError: The run could not begin.
    """
    with _session.postgres(settings) as running, Database(running.database_url or "") as database:
        run_id = str(uuid.uuid4())
        with _session.instance(running) as instance, _bar(console, database, run_id, documents):
            ops = {f"{settings.corpus}_migrate": {"config": {"action": action.name}}}
            result = _execute(running, instance, run_id, migration_job_name(settings.corpus), ops)
        with database.transaction() as connection:
            costs = ledger.costs(connection, run_id=run_id)
            progress = reports.run_progress(connection, run_id)
        _check_interrupt(result, "reembed", progress)
        return Run(run_id, progress, costs, _problems(result), misconfigured=_is_misconfigured(result))


def roll_back(settings: Settings, version: int, keys: Sequence[str], *, confirm_removals: bool = False) -> Run:
    """Bring documents back to an earlier publication, in one Dagster run.

    Args:
        settings: Of the corpus.
        version: A publication.
        keys: Documents. None given: all.
        confirm_removals: Take documents out, however many.

    Raises:
        IngestError: The run could not begin.
    """
    with _session.postgres(settings) as running, Database(running.database_url or "") as database:
        run_id = str(uuid.uuid4())
        config = {"version": version, "partitions": list(keys), "confirm_removals": confirm_removals}
        ops = {rollback_step(settings.corpus): {"config": config}}
        with _session.instance(running) as instance:
            result = _execute(running, instance, run_id, rollback_job_name(settings.corpus), ops)
        with database.transaction() as connection:
            progress = reports.run_progress(connection, run_id)
        _check_interrupt(result, "rollback", progress)
        return Run(run_id, progress, [], _problems(result), misconfigured=_is_misconfigured(result))


def _execute(
    settings: Settings, instance: dg.DagsterInstance, run_id: str, job_name: str, ops: Mapping[str, object]
) -> dg.ExecuteInProcessResult:
    """Run a job in this process."""
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    fail_dead_runs(instance)
    job = build_definitions(settings).resolve_job_def(job_name)
    configuration = {"ops": ops, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    return job.execute_in_process(
        run_config=configuration, instance=instance, run_id=run_id, tags=own_process_tags(), raise_on_error=False
    )


def _problems(result: dg.ExecuteInProcessResult) -> list[str]:
    """What went wrong in a run, a line each."""
    if result.success:
        return []
    return list(map(_root, _errors(result)))


def _errors(result: dg.ExecuteInProcessResult) -> list[SerializableErrorInfo]:
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    # A run that fails outside its step, in a resource for example, says so in its last event.
    ends = [event.job_failure_data for event in result.all_events if event.is_run_failure]
    return [failure.error for failure in failures or ends if failure.error is not None]


def _kinds(result: dg.ExecuteInProcessResult) -> set[str]:
    """Names of the classes of what failed a run, and of what caused that."""
    kinds: set[str] = set()
    for found in _errors(result):
        error: SerializableErrorInfo | None = found
        while error is not None:
            kinds.add(error.cls_name or "")
            error = error.cause
    return kinds


def _is_misconfigured(result: dg.ExecuteInProcessResult) -> bool:
    known = [getattr(errors, kind) for kind in _kinds(result) if hasattr(errors, kind)]
    return any(issubclass(kind, errors.ConfigurationError) for kind in known)


def _check_interrupt(result: dg.ExecuteInProcessResult, command: str, progress: RunProgress) -> None:
    """Raise what became of a run that was interrupted."""
    if result.success or _INTERRUPTS.isdisjoint(_kinds(result)):
        return
    raise errors.InterruptedRunError(
        f"`{command}` was interrupted. {progress.published} documents were published and stay as they are; "
        f"{progress.embedded} embeddings that were bought are recorded, and will not be bought again",
        f"Run `ingest-pipeline {command}` again to go on.",
    )


def _note_on_nothing(context: IngestContext, plans: Sequence[DocumentPlan]) -> str | None:
    if plans:
        return None
    return nothing_found(context)


def _root(error: SerializableErrorInfo) -> str:
    """What was meant for a person, without its class: Dagster wraps it, and it wraps what a library raised."""
    while error.cause is not None and error.cls_name not in _TOLD:
        error = error.cause
    said = error.message.strip().partition(f"{error.cls_name}: ")[2] or error.message.strip()
    if error.cls_name in _POSTGRES_ENDED:
        return str(
            DatabaseUnavailableError(f"Dagster's own tables in Postgres failed: {(said.splitlines() or [''])[0]}")
        )
    return said


@contextmanager
def _bar(console: Console, database: Database, run_id: str, total: int) -> Generator[None]:
    """A progress bar that reads the ledger, and so shows what is durable."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("documents, {task.fields[embedded]} embedded chunks"),
        TimeElapsedColumn(),
    )
    ended = threading.Event()
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        task = progress.add_task("ingesting", total=total, embedded=0)

        def show() -> None:
            try:
                with database.transaction() as connection:
                    now = reports.run_progress(connection, run_id)
            except UnavailableError:
                return  # the run itself will say so
            progress.update(task, completed=max(now.published, now.prepared), embedded=now.embedded)

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
