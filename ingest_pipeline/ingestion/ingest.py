"""Ingest: update documents to the source in groups. Each group is one saga, which is prepared and then published."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from time import perf_counter
from uuid import UUID

from ingest_pipeline.config.spending_limits import NO_LIMITS
from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.errors import (
    CorpusMismatchError,
    GenerationRetiredError,
    IngestError,
    StaleError,
    TableDamagedError,
    TooRecentError,
    UnavailableError,
)
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.gates.judge import Gates
from ingest_pipeline.ingestion.columns.column_changes import (
    ChangedColumns,
    ColumnUpdate,
    PreparedColumns,
    column_update,
    has_same_chunks,
    prepare_columns,
)
from ingest_pipeline.ingestion.columns.reread import Reread, reread
from ingest_pipeline.ingestion.groups import groups
from ingest_pipeline.ingestion.metrics import count_failure, count_others, count_publication, named
from ingest_pipeline.ingestion.summary import BlockedDocuments, Publication, Summary
from ingest_pipeline.ingestion.touched_objects import TouchedObjects
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.removal_guard import is_suspicious, withheld
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.postgres.catalog.corpora import GenerationState
from ingest_pipeline.postgres.catalog.prepared_documents import CopiedDocument
from ingest_pipeline.postgres.ledger import failures
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.preparation.batches import PreparedDocument
from ingest_pipeline.preparation.prepare import Preparation, Prepared
from ingest_pipeline.preparation.reading.preview import ChunkPreview
from ingest_pipeline.preparation.spending_guard import SpendingGuard
from ingest_pipeline.processes import frozen_heap, map_large_blocks, release_memory
from ingest_pipeline.saga.documents import DocumentRows
from ingest_pipeline.saga.lifecycle import Saga
from ingest_pipeline.telemetry.logs import get_logger
from ingest_pipeline.types import Usage

log = get_logger(__name__)

# A document that changes during this many attempts in a row is written faster than it can be read.
_PLANNINGS = 3
_NO_PREVIEW = ChunkPreview(is_off=True)


class Ingestion:
    """A run that ingests into one corpus.

    Args:
        context: The corpus, its source and its settings.
        embedder: The embedder of this process.
        run_id: The Dagster run that the usage is counted for, if there is one.
        report: Called after each publication.
        search_for_rows: Remove old rows by a search of the whole table, instead of where the catalog locates them.
        spending: Counts the tokens of a run that has several ingestions. Default: of this one alone.
        gates: The gates of an earlier ingestion of the same process, which has embedded the golden set.
        previews: Whether publications have previews of their documents.
    """

    def __init__(
        self,
        context: IngestContext,
        embedder: EmbeddingClient,
        *,
        run_id: str | None = None,
        report: Callable[[Publication], None] = lambda _: None,
        search_for_rows: bool = False,
        spending: SpendingGuard | None = None,
        gates: Gates | None = None,
        previews: bool = True,
    ) -> None:
        self._context = context
        self._embedder = embedder
        self._run_id = run_id
        self._report = report
        self._search_for_rows = search_for_rows
        self._previews = previews
        self._summary = Summary()
        self._in_full = set[str]()
        """Keys of documents whose rows are not where the catalog says. Edits of them are ingested as a whole."""
        limits = NO_LIMITS if embedder.is_free else context.limits
        is_judged = (
            context.gates is not None and not search_for_rows and context.corpus.opened_as == GenerationState.CURRENT
        )
        self.gates: Gates | None = None
        """Judge each publication before readers see it."""
        if is_judged and context.gates is not None:
            known = gates is not None and gates.continue_with(context.corpus, embedder)
            self.gates = gates if known else Gates(context.corpus, context.gates, embedder)
        self.spending = spending or SpendingGuard(context.corpus, limits, run_id, enrichment=context.limits)
        """Enforces the limits on tokens."""

    async def run(self, plans: Sequence[DocumentPlan]) -> Summary:
        """Publish the plans. Documents that cannot be ingested are in the summary, and do not stop the others.

        Raises:
            IngestError: A failure that affects all documents. Earlier publications remain.
        """
        map_large_blocks()
        with named(self._context, self._run_id), frozen_heap():
            return await self._run(plans)

    async def _run(self, plans: Sequence[DocumentPlan]) -> Summary:
        self._check_model(plans)
        grouped = groups(self._changed(plans))
        for planning in range(_PLANNINGS):
            stale: list[DocumentPlan] = []
            while (group := await asyncio.to_thread(next, grouped, None)) is not None:
                last = planning == _PLANNINGS - 1
                stale += await self._publish_columns(group.updates, last=last) if group.updates else []
                stale += await self._publish_group(group.plans, last=last) if group.plans else []
                del group
                release_memory()
            if not stale:
                break
            grouped = groups(self._changed(await asyncio.to_thread(self._plan_again, stale)))
        found = self._summary
        count_others(unchanged=len(found.unchanged), on_hold=len(found.on_hold), too_recent=len(found.too_recent))
        return found

    def _check_model(self, plans: Sequence[DocumentPlan]) -> None:
        """Refuse an embedder of another model than the corpus has, since a table never mixes two models."""
        theirs, recipe = self._embedder.settings.embedding, self._context.recipe
        if theirs != recipe.embedding and any(plan.source is not None for plan in plans):
            raise CorpusMismatchError(
                f"Corpus {self._context.corpus.name!r} has vectors of {recipe.embedding}, but the embedder computes "
                f"{theirs}. Nothing was embedded",
                "Use the embedding model of the corpus, or run `ingest-pipeline reembed`.",
            )

    def _changed(self, plans: Iterable[DocumentPlan]) -> Iterator[DocumentPlan | ColumnUpdate]:
        """Yield the plans of objects that changed. For objects that were only touched, record the new ETags."""
        touched, recipe = TouchedObjects(self._context), self._context.recipe
        for document in plans:
            if touched.has_bytes_on_hold(document):
                self._summary.on_hold.append(document)
                continue
            latest, wanted = document.latest, recipe.fingerprint_of(document.key)
            if latest and latest.recipe == wanted and touched.has_latest_bytes(document):
                self._summary.unchanged.append(document)
            elif self._search_for_rows or latest is None:  # a repair writes the rows of a document that is the same
                yield document
            elif has_same_chunks(latest.recipe, wanted) and touched.has_bytes_at_head(document):
                update = column_update(self._context, document)
                if isinstance(update, IngestError):
                    self._note_failure(document, update)
                elif update is None:
                    self._summary.unchanged.append(document)
                else:
                    yield update
            else:
                yield document

    def _plan_again(self, stale: Sequence[DocumentPlan]) -> list[DocumentPlan]:
        page = Planner(self._context).documents(sorted(document.key for document in stale))
        # A rollback may have made them stale.
        self._summary.on_hold += page.on_hold
        planned = {document.key for document in (*page.plans, *page.on_hold)}
        self._summary.unchanged += [document for document in stale if document.key not in planned]
        plans = sorted(page.plans, key=lambda document: document.key)
        return self._without_vanished(plans, {document.key for document in stale if document.source is None})

    def _without_vanished(self, plans: Sequence[DocumentPlan], meant_to_go: Collection[str]) -> list[DocumentPlan]:
        """Skip documents that vanished from the source during the run, if their removal needs a confirmation.

        The removal guard has not counted these removals, and a source that disappears during a run looks like many.
        """
        vanished = {document.key for document in plans if document.source is None} - set(meant_to_go)
        if not vanished:
            return list(plans)
        with self._context.corpus.database.transaction() as connection:
            latest = documents.count_documents(connection, self._context.corpus.generation)
        is_empty = next(self._context.objects(), None) is None  # it fails if the source itself is gone
        if not (is_empty or is_suspicious(len(vanished), latest)):
            return list(plans)
        error = withheld(self._context.corpus.name, self._context.source.url, len(vanished), latest)
        self._summary.failed |= {plan.key: (plan, error) for plan in plans if plan.key in vanished}
        return [document for document in plans if document.key not in vanished]

    async def _publish_columns(self, updates: Sequence[ColumnUpdate], *, last: bool) -> list[DocumentPlan]:
        """Run one saga that changes nothing but columns; returns the documents to plan again."""
        start, plans = perf_counter(), [update.plan for update in updates]
        begun = await asyncio.to_thread(self._begin)
        version: int | None = None
        try:
            with begun as saga:
                found = await reread(self._context, saga, updates, self.spending)
                prepared = await asyncio.to_thread(prepare_columns, self._context, saga, found.updates)
                if prepared.documents:
                    await asyncio.to_thread(saga.prepared)
                    rows = ChangedColumns(self._context, saga.id, prepared)
                    version = await asyncio.to_thread(saga.publish, rows)
                else:
                    await asyncio.to_thread(saga.fail, "a document cannot keep its rows")
        except GenerationRetiredError:
            raise
        except StaleError as error:
            log.info("corpus %s: planning again: %s", self._context.corpus.generation, error)
            if not last:
                return plans
            self._summary.failed |= {plan.key: (plan, error) for plan in plans}
            return []
        if version is not None:
            self._report_publication(self._of_columns(saga.id, version, found, prepared, perf_counter() - start))
        stale = self._sort_out(found.failed, plans, last=last)
        if again := [*found.recut, *prepared.damaged]:
            stale += await self._publish_group(again, last=last)
        keys = {plan.key for plan in prepared.damaged}
        rest = [update for update in found.updates if update.plan.key not in keys]
        if keys and rest:
            stale += await self._publish_columns(rest, last=last)
        return stale

    def _of_columns(
        self, saga: UUID, version: int, found: Reread, prepared: PreparedColumns, seconds: float
    ) -> Publication:
        done = [_with_columns(update, prepared.documents[update.plan.key]) for update in found.updates]
        return Publication(saga, version - 1, version, done, [], Usage(), self._context.price, seconds)

    async def _publish_group(self, group: Sequence[DocumentPlan], *, last: bool) -> list[DocumentPlan]:
        """Run one saga; returns the documents to plan again."""
        start = perf_counter()
        begun = await asyncio.to_thread(self._begin)
        try:
            with begun as saga:
                # Repairs do not know where rows are, and a blocked publication keeps no record of moves.
                if self._search_for_rows or self.gates is not None:
                    self._in_full |= {plan.key for plan in group}
                prepared = await Preparation(
                    self._context,
                    self._embedder,
                    saga,
                    group,
                    self.spending,
                    in_full=self._in_full,
                    previews=self._previews,
                ).run()
                await asyncio.to_thread(saga.prepared)
                stale = self._sort_out(prepared.failed, group, last=last)
                if not prepared.documents and not prepared.removed:
                    await asyncio.to_thread(saga.fail, "none of its documents could be ingested")
                    return stale
                rows = DocumentRows(
                    self._context.corpus.generation,
                    saga.id,
                    prepared.staged,
                    {key: document.files for key, document in prepared.documents.items()},
                    [plan.key for plan in prepared.removed],
                    self._context.corpus.table.schema,
                    forgets_vectors=not prepared.failed,
                    search_for_rows=self._search_for_rows,
                    edits=prepared.moves,
                )
                if self.gates is not None and await self._is_blocked(self.gates, saga, prepared, rows):
                    return stale
                # Read before the publication, because nothing may fail between publishing and recording it.
                row = await asyncio.to_thread(saga.row)
                version = await asyncio.to_thread(saga.publish, rows)
        except GenerationRetiredError:
            raise
        except TableDamagedError as error:
            return self._without_damaged(group, error, last=last)
        except StaleError as error:
            log.info("corpus %s: planning again: %s", self._context.corpus.generation, error)
            if not last:
                return list(group)
            # Nothing is wrong with the documents, so no attempt at them is counted.
            self._summary.failed |= {document.key: (document, error) for document in group}
            return []
        self._acknowledge(prepared, row.usage, version, perf_counter() - start)
        await asyncio.gather(*(asyncio.to_thread(self._remove_spooled, name) for name in rows.spooled))
        return stale

    async def _is_blocked(self, gates: Gates, saga: Saga, prepared: Prepared, rows: DocumentRows) -> bool:
        """Judge a prepared publication. If it does not pass, keep it, and return True."""
        with boundary(Boundary.JUDGED):
            judgement = await gates.judge(saga, prepared, rows)
        self._summary.judgements.append(judgement)
        if judgement.passed:
            await asyncio.to_thread(gates.record, saga.id, judgement)
            return False
        await asyncio.to_thread(saga.block, rows, judgement.findings)
        error = judgement.error(self._context.corpus.name, saga.id)
        log.warning("corpus %s: %s", self._context.corpus.generation, error)
        plans = [*(document.plan for document in prepared.documents.values()), *prepared.removed]
        self._summary.blocked.append(BlockedDocuments(saga.id, plans, error))
        return True

    def _remove_spooled(self, name: str) -> None:
        with suppress(UnavailableError):  # the next sweep removes it
            self._context.corpus.table.remove_file(name)

    def _without_damaged(
        self, group: Sequence[DocumentPlan], error: TableDamagedError, *, last: bool
    ) -> list[DocumentPlan]:
        """Skip documents whose old rows cannot be read and so cannot be removed. Returns the others.

        Nothing is wrong with the documents, so no attempt at them is counted.
        """
        damaged = {
            document.key
            for document in group
            if document.latest is not None and error.fragments.intersection(document.latest.fragments)
        }
        if not damaged:
            raise error
        left = {document.key: (document, error) for document in group if last or document.key in damaged}
        self._summary.failed |= left
        return [document for document in group if document.key not in left]

    def _sort_out(
        self, failed: Mapping[str, IngestError], group: Sequence[DocumentPlan], *, last: bool
    ) -> list[DocumentPlan]:
        """Record the documents that failed. Returns those that failed only because they changed meanwhile."""
        plans = {document.key: document for document in group}
        stale: list[DocumentPlan] = []
        for key, error in failed.items():
            if isinstance(error, StaleError) and not last:
                stale.append(plans[key])
            elif isinstance(error, TooRecentError):
                self._summary.too_recent[key] = (plans[key], error)
            else:
                self._note_failure(plans[key], error)
        return stale

    def _note_failure(self, document: DocumentPlan, error: IngestError) -> None:
        self._summary.failed[document.key] = (document, error)
        count_failure(error)
        with self._context.corpus.database.transaction() as connection:
            failures.record_failure(
                connection,
                self._context.corpus.generation,
                key=document.key,
                partition=document.partition,
                etag=document.source.document_etag if document.source else "",
                recipe=self._context.recipe.fingerprint_of(document.key),
                error=error,
            )

    def _begin(self) -> Saga:
        corpus = self._context.corpus
        head = corpus.head()
        corpus.check_generation(head)
        return Saga.begin(
            corpus, SagaKind.INGEST, base_version=head.head_version, run_id=self._run_id, price=self._context.price
        )

    def _acknowledge(self, prepared: Prepared, usage: Usage, version: int, seconds: float) -> None:
        done, price = list(prepared.documents.values()), self._context.price
        self._report_publication(
            Publication(prepared.saga, version - 1, version, done, prepared.removed, usage, price, seconds)
        )

    def _report_publication(self, publication: Publication) -> None:
        self._summary.publications.append(publication)
        count_publication(publication.documents, len(publication.removed))
        self._report(publication)
        for document in publication.documents:
            document.preview = _NO_PREVIEW  # its texts would otherwise stay in memory until the run ends


def _with_columns(update: ColumnUpdate, copied: CopiedDocument) -> PreparedDocument:
    usage = Usage(cached=copied.chunk_count)
    return PreparedDocument(update.plan, copied.character_count, copied.chunk_count, usage, [], ChunkPreview())
