"""Reports of a run to Dagster, partition by partition, always after the publication that they report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import dagster as dg

from ingest_pipeline.assets.checks.check_reports import MAX_DOCUMENTS
from ingest_pipeline.assets.chunks import chunks_metadata
from ingest_pipeline.assets.embeddings import embeddings_metadata, run_metadata
from ingest_pipeline.assets.metadata import metadata_metadata
from ingest_pipeline.assets.shared_partitions import PartitionWork, shared_metadata
from ingest_pipeline.assets.skipped import SkippedDocuments, stale_observations
from ingest_pipeline.errors import UnavailableError
from ingest_pipeline.ingestion.outcome import Problem
from ingest_pipeline.ingestion.summary import Publication
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.source_comparison import Page
from ingest_pipeline.postgres.catalog import documents, reports
from ingest_pipeline.postgres.catalog.documents import PartitionState
from ingest_pipeline.postgres.ledger import embedding_cache, sagas
from ingest_pipeline.postgres.ledger.failures import Failure
from ingest_pipeline.preparation.batches import PreparedDocument
from ingest_pipeline.reporting.data_versions import input_versions, version_tags
from ingest_pipeline.reporting.event_log import log_events, log_planned
from ingest_pipeline.reporting.head import report_head
from ingest_pipeline.reporting.lineage import lineage
from ingest_pipeline.reporting.partitions import add_partitions, corpus_partitions, drop_empty_partitions
from ingest_pipeline.resources.names import ASSETS, HEAD, DagsterNames
from ingest_pipeline.types import counted

_UNCHANGED = "unchanged: head has the same bytes and recipe"
_EMPTY = "no document belongs to this partition"
_ALL_UNREADABLE = "no document of this partition can be read"
_MAX_FAILED_PARTITIONS = 50


def _no_work() -> defaultdict[str, PartitionWork]:
    return defaultdict(PartitionWork)


@dataclass(slots=True)
class RunReport:
    """The events of one run.

    A partition that is one document is materialized after its publication. A partition that several documents share may
    take several publications. It is materialized at the end of the run, if all of its documents equal the source.
    """

    context: dg.AssetExecutionContext
    names: DagsterNames
    ingest_context: IngestContext
    touched: list[str] = field(default_factory=list[str])
    """Keys of the documents that the run published or tried to, up to a few more than the checks take."""
    _reported: set[str] = field(default_factory=set[str])
    _work: defaultdict[str, PartitionWork] = field(default_factory=_no_work)
    _unreported: list[UUID] = field(default_factory=list[UUID])
    """Sagas whose documents are in shared partitions, which are reported at the end."""
    _materialized: bool = False
    _head_moved: bool = False
    _inputs: Mapping[dg.AssetKey, str] | None = None

    def compared(self, page: Page) -> None:
        """Log how many documents differ."""
        differing = counted(len(page.puts) + len(page.removals), "document differs", "documents differ")
        on_hold = counted(len(page.on_hold), "is", "are")
        self.context.log.info(
            f"{differing} between corpus {self.ingest_context.corpus.name!r} and the source; "
            f"{on_hold} on hold after a rollback"
        )

    def expect(self, plans: Sequence[DocumentPlan]) -> None:
        """Add the partitions that are about to be ingested."""
        # One key more than the maximum is enough for the checks to see that it is exceeded.
        self.touched += [plan.key for plan in plans[: MAX_DOCUMENTS + 1 - len(self.touched)]]
        self._add(plan.partition for plan in plans if plan.source is not None)

    def publication(self, publication: Publication) -> None:
        """Report what was just published, and materialize the partitions that it completes."""
        for plan in publication.removed:
            self.context.log.info(f"Document {plan.key!r} was removed from both stores, because the source lacks it")
        if self.ingest_context.scheme.kind != "file":
            self._collect(publication)
            return
        published = {document.plan.partition for document in publication.documents}
        events: list[dg.AssetMaterialization] = []
        # A run that removed the document may have deleted its partition since this run began.
        self._add(published)
        for document in publication.documents:
            events += self._document_events(publication, document)
        self._log(events)
        self._drop_empty(published.union(plan.partition for plan in publication.removed))
        self._mark_reported([publication.saga])

    def finish(self, partitions: Sequence[str], incomplete: set[str], unreadable: Mapping[str, int]) -> list[str]:
        """Materialize the partitions that are complete now.

        Args:
            partitions: The run's partitions. Those without any change are materialized as unchanged.
            incomplete: Partitions with documents that do not equal the source.
            unreadable: Number of unreadable documents by shared partition. They do not make a partition incomplete.

        Returns:
            The partitions that have no document at head and never had one.
        """
        names = [name for name in dict.fromkeys([*partitions, *self._work]) if name not in self._reported | incomplete]
        states = self._states(names)
        events: list[dg.AssetMaterialization] = []
        for name in names:
            if name in states:
                events += self._state_events(states[name], unreadable.get(name, 0))
            elif name in (self.ingest_context.scheme.partitions or ()):
                events += self._plain_events(name, "empty", _ALL_UNREADABLE if name in unreadable else _EMPTY)
        self._add(states)
        self._log(events)
        # A missing partition would hold back all assets that wait for the three.
        self._drop_empty(({*self._work, *states} - incomplete).union(unreadable))
        self._mark_reported(self._unreported)
        empty = [name for name in names if name not in {*states, *self._reported, *unreadable}]
        return [] if self.ingest_context.scheme.partitions is not None else empty

    def head(self, *, again: bool = False) -> None:
        """Materialize `head`, if a publication of this run or an unreported one of another run moved it."""
        log = self.context.log_event
        moved = report_head(self.context.instance, self.names, self.ingest_context.corpus, log, again=again)
        self._head_moved = self._head_moved or moved

    def changed(self) -> list[dg.AssetKey]:
        """The assets that changed: the steps after them have a reason to run.

        Publications of an earlier attempt count too, because the steps after it may not have run.
        """
        run = self.context.run
        group = self.context.instance.get_run_group(run.run_id) if run.root_run_id is not None else None
        attempts = {run.run_id, *(one.run_id for one in (group[1] if group is not None else ()))}
        with self.ingest_context.corpus.database.transaction() as connection:
            published = sagas.runs_published(connection, attempts)
        trio = [self.names.key(asset) for asset in ASSETS] if published or self._materialized else []
        return [*trio, *([self.names.key(HEAD)] if published or self._head_moved else [])]

    def failed(self, problems: Iterable[Problem]) -> None:
        """Show on the pages of partitions that they failed, and why."""
        reasons: dict[str, str] = {}
        for problem in problems:
            reasons.setdefault(problem.partition, str(problem.error))
        shown = sorted(reasons.items())[:_MAX_FAILED_PARTITIONS]
        # Dagster itself plans the partitions of a run that has some, and no others.
        if not (self.context.has_partition_key or self.context.has_partition_key_range):
            for partition, _ in shown:
                for asset in ASSETS:
                    log_planned(self.context.instance, self.context.run, self._step, self.names.key(asset), partition)
        self._log(
            [
                dg.AssetObservation(
                    self.names.key(asset), partition=partition, metadata={"failed": dg.MetadataValue.text(reason)}
                )
                for asset in ASSETS
                for partition, reason in shown
            ]
        )

    def skipped(self, skipped: SkippedDocuments, stale: Iterable[Failure]) -> None:
        """Report which documents the run skipped, and for which of them readers see an earlier file."""
        key = self.names.key("metadata")
        for observation in stale_observations(key, stale):
            self.context.log_event(observation)
        if skipped:
            self.context.log.warning(str(skipped))
            self.context.log_event(dg.AssetObservation(key, metadata=skipped.metadata))

    def usage(self) -> None:
        """Report the usage of the run so far, even if the run fails, because the usage is billed in any case."""
        run_id = self.context.run.run_id
        try:
            with self.ingest_context.corpus.database.transaction() as connection:
                progress, costs = (
                    reports.run_progress(connection, run_id),
                    embedding_cache.costs(connection, run_id=run_id),
                )
        except UnavailableError:
            return  # the run reports the error itself, and `status` shows the usage
        self.context.log_event(
            dg.AssetObservation(self.names.key("embeddings"), metadata=run_metadata(progress, costs))
        )

    @property
    def _step(self) -> str:
        return self.context.op_execution_context.get_step_execution_context().step.key

    def _collect(self, publication: Publication) -> None:
        self._unreported.append(publication.saga)
        for document in publication.documents:
            self._work[document.plan.partition].publish(publication, document)
        for plan in publication.removed:
            self._work[plan.partition].remove(publication)

    def _states(self, partitions: Sequence[str]) -> dict[str, PartitionState]:
        with self.ingest_context.corpus.database.transaction() as connection:
            return documents.partition_states(connection, self.ingest_context.corpus.generation, partitions)

    def _add(self, partitions: Iterable[str]) -> None:
        definition = corpus_partitions(self.names, self.ingest_context.scheme)
        add_partitions(self.context.instance, definition, partitions)

    def _drop_empty(self, partitions: Collection[str]) -> None:
        context = self.ingest_context
        drop_empty_partitions(self.context.instance, self.names, context.corpus, context.scheme, partitions)
        self._reported.update(partitions)

    def _mark_reported(self, published: Iterable[UUID]) -> None:
        with self.ingest_context.corpus.database.transaction() as connection:
            for saga in published:
                sagas.mark_reported(connection, saga)

    def _document_events(self, publication: Publication, document: PreparedDocument) -> list[dg.AssetMaterialization]:
        recipe, plan = self.ingest_context.recipe, document.plan
        assert plan.source is not None  # noqa: S101  a removal is not among the documents
        version = f"{plan.source.document_etag}/{recipe.fingerprint_of(plan.key)}"
        return [
            self._event("chunks", plan.partition, version, chunks_metadata(document)),
            self._event("embeddings", plan.partition, version, embeddings_metadata(publication, document, recipe)),
            self._event("metadata", plan.partition, version, metadata_metadata(publication, document)),
        ]

    def _state_events(self, state: PartitionState, unreadable: int) -> list[dg.AssetMaterialization]:
        work = self._work.get(state.partition)
        if work is None:
            status = f"{_UNCHANGED}; {counted(unreadable, 'document')} cannot be read" if unreadable else _UNCHANGED
            return self._plain_events(state.partition, state.data_version, status)
        metadata = shared_metadata(state, work, self.ingest_context.recipe, unreadable)
        return [self._event(asset, state.partition, state.data_version, metadata[asset]) for asset in ASSETS]

    def _plain_events(self, partition: str, version: str, status: str) -> list[dg.AssetMaterialization]:
        return [self._event(asset, partition, version, {"status": dg.MetadataValue.text(status)}) for asset in ASSETS]

    def _event(
        self, asset: str, partition: str, version: str, metadata: Mapping[str, dg.MetadataValue]
    ) -> dg.AssetMaterialization:
        inputs = self._upstream() if asset == "chunks" else None
        metadata = {**metadata, **lineage(self.names, asset, sorted(inputs or ()))}
        tags = version_tags(self.names, asset, version, self.ingest_context.recipe, inputs)
        return dg.AssetMaterialization(self.names.key(asset), partition=partition, metadata=metadata, tags=tags)

    def _upstream(self) -> Mapping[dg.AssetKey, str]:
        """Data versions of the assets of other makers that the chunks depend on."""
        if self._inputs is None:
            keys = {dep.asset_key for spec in self.context.assets_def.specs for dep in spec.deps}
            others = keys.difference(spec.key for spec in self.context.assets_def.specs)
            self._inputs = input_versions(self.context.instance, others)
        return self._inputs

    def _log(self, events: Sequence[dg.AssetMaterialization | dg.AssetObservation]) -> None:
        log_events(self.context.instance, self.context.run, self._step, events)
        self._materialized = self._materialized or any(isinstance(event, dg.AssetMaterialization) for event in events)
