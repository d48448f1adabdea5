"""Asset checks: whether the two stores agree, whether the corpus equals the source, and which documents are skipped.

These check the whole corpus. A run checks its own documents under other names: see `check_reports`.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import dagster as dg

from ingest_pipeline.assets.checks.check_results import (
    CHECKED,
    MAX_ROWS,
    access_result,
    audit_results,
    freshness_result,
    on_hold_result,
    quarantine_result,
)
from ingest_pipeline.columns.declaration import NO_ACCESS
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import IngestError
from ingest_pipeline.ingestion.context import documents_on_hold
from ingest_pipeline.maintenance.audit import audit, nothing_to_audit
from ingest_pipeline.planning.backoff import without_unreadable
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.run_backoff import read_backoff
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog.documents import documents_without_list
from ingest_pipeline.postgres.ledger.failures import MAX_ATTEMPTS, read_failures
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.names import DagsterNames

_DESCRIPTIONS = {
    "audit": "LanceDB and Postgres agree at head in everything that an audit compares.",
    "chunks_match": "Each document has as many chunks as the catalog records, and both stores have the same chunks.",
    "single_publication": "All rows of a document come from the publication that the catalog names.",
    "texts_match": "Texts and offsets are those that the catalog records.",
    "unique_chunk_ids": "No chunk id occurs twice.",
    "valid_vectors": "Every vector has the declared width, and none is null or contains NaN or infinity.",
}


def corpus_checks(settings: CorpusConfig) -> list[dg.AssetChecksDefinition]:
    """The checks of one corpus."""
    checks = [
        _stores_check(settings),
        _corpus_check(
            settings,
            "freshness",
            "The corpus equals the source, except for changes of the last 15 minutes.",
            _freshness,
        ),
        _corpus_check(
            settings,
            "quarantine",
            f"Every document can be read, and none failed {MAX_ATTEMPTS} times with the same bytes and recipe.",
            _quarantine,
        ),
        _corpus_check(
            settings,
            "on_hold",
            "No document is on hold, that is, at an earlier version after a rollback while the source differs.",
            _on_hold,
        ),
    ]
    column = settings.access
    if column is not None and column != NO_ACCESS:
        description = "Every document names principals that may find it. No search finds the others."
        checks.append(_corpus_check(settings, "access_listed", description, partial(_access, column=column)))
    return checks


@contextmanager
def _ingest_context(context: dg.AssetCheckExecutionContext, settings: CorpusConfig) -> Generator[IngestContext]:
    """The corpus of a check. An error fails the check's step with one line."""
    lancedb = resource_of(context.resources, DagsterNames.of(settings), VersionedLanceDBResource)
    try:
        with lancedb.ingest_context(settings, create=False) as ingest_context:
            yield ingest_context
    except IngestError as error:
        raise dg.Failure(str(error)) from error


def _stores_check(settings: CorpusConfig) -> dg.AssetChecksDefinition:
    """The checks that compare both stores, in one step, so that each store is read once."""
    names = DagsterNames.of(settings)

    @dg.multi_asset_check(
        name=names.name("stores"),
        specs=[
            dg.AssetCheckSpec(name, asset=names.key(CHECKED[name]), description=description)
            for name, description in _DESCRIPTIONS.items()
        ],
        required_resource_keys={resource_key(names, VersionedLanceDBResource)},
        can_subset=True,
    )
    def check_stores(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        with _ingest_context(context, settings) as ingest_context:
            report = (
                audit(ingest_context.corpus) if ingest_context.corpus.exists() else nothing_to_audit(settings.corpus)
            )
        selected = {key.name for key in context.selected_asset_check_keys}
        for name, result in audit_results(report, settings.embedding_dimensions).items():
            if name in selected:
                yield result._replace(check_name=name, asset_key=names.key(CHECKED[name]))

    return check_stores


def _corpus_check(
    settings: CorpusConfig, name: str, description: str, result: Callable[[IngestContext], dg.AssetCheckResult]
) -> dg.AssetChecksDefinition:
    """A check of the whole corpus, shown at the asset of its documents."""
    names = DagsterNames.of(settings)

    @dg.asset_check(
        asset=names.key("metadata"),
        name=name,
        description=description,
        required_resource_keys={resource_key(names, VersionedLanceDBResource)},
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with _ingest_context(context, settings) as ingest_context:
            return result(ingest_context)

    return check


def _freshness(ingest_context: IngestContext) -> dg.AssetCheckResult:
    with ingest_context.corpus.database.transaction() as connection:
        backoff = read_backoff(connection, ingest_context.corpus.generation)
    pages = Planner(ingest_context).one_pass()
    plans = (plan for page in pages for plan in without_unreadable(ingest_context, page.plans))
    return freshness_result(plans, datetime.now(UTC), backoff)


def _quarantine(ingest_context: IngestContext) -> dg.AssetCheckResult:
    with ingest_context.corpus.database.transaction() as connection:
        return quarantine_result(read_failures(connection, ingest_context.corpus.generation))


def _on_hold(ingest_context: IngestContext) -> dg.AssetCheckResult:
    return on_hold_result(documents_on_hold(ingest_context.corpus))


def _access(ingest_context: IngestContext, *, column: str) -> dg.AssetCheckResult:
    with ingest_context.corpus.database.transaction() as connection:
        return access_result(*documents_without_list(connection, ingest_context.corpus.generation, column, MAX_ROWS))
