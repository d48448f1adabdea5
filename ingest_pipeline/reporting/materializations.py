"""Materializations of documents that the ingest step did not report itself."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.partitioning import PartitionScheme
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.postgres.catalog.documents import PartitionState
from ingest_pipeline.postgres.catalog.reports import DocumentChange
from ingest_pipeline.reporting.data_versions import input_versions, version_tags
from ingest_pipeline.reporting.lineage import lineage
from ingest_pipeline.reporting.partitions import add_partitions, corpus_partitions
from ingest_pipeline.reporting.partitions import drop_empty_partitions as drop_empty
from ingest_pipeline.resources.names import ASSETS, DagsterNames
from ingest_pipeline.types import Recipe, Usage


@dataclass(frozen=True, slots=True)
class DocumentReporter:
    """Materializes documents that were published, as the ingest step would have done it."""

    instance: dg.DagsterInstance
    names: DagsterNames
    recipe: Recipe
    """The corpus' current recipe."""
    upstream: Sequence[dg.AssetKey]
    """The assets that make the files of the source."""
    log: Callable[[dg.AssetMaterialization], None]
    """Called with the events."""

    def report(self, corpus: Corpus, changes: Sequence[DocumentChange], status: str) -> None:
        """Materialize documents, with the data version of the bytes and recipe they were made from; drop removed ones.

        Args:
            corpus: The corpus of the documents.
            changes: Documents that one saga published and that have not been replaced since.
            status: The status of the documents that the UI shows.
        """
        scheme = PartitionScheme.parse(corpus.head().partition_by or "file")
        partitions = {change.partition for change in changes if not change.removed}
        add_partitions(self.instance, corpus_partitions(self.names, scheme), partitions)
        before = max((change.published_at for change in changes), default=None)
        inputs = input_versions(self.instance, self.upstream, before)
        if scheme.kind == "file":
            for change in changes:
                if not change.removed:
                    version = f"{change.etag}/{change.recipe}"
                    self._log(change.partition, version, change.recipe, inputs, _document_metadata(change, status))
        else:
            for state in _states(corpus, {change.partition for change in changes}).values():
                metadata = _state_metadata(state, status)
                self._log(state.partition, state.data_version, state.recipe, inputs, metadata)
        drop_empty_partitions(self.instance, self.names, corpus, {change.partition for change in changes})

    def _log(
        self,
        partition: str,
        data_version: str,
        made_by: str | None,
        inputs: Mapping[dg.AssetKey, str],
        metadata: Mapping[str, dg.MetadataValue],
    ) -> None:
        for asset in ASSETS:
            found = inputs if asset == "chunks" else {}
            tags = {DATA_VERSION_TAG: data_version}
            # If another recipe made the partition, the code versions are unknown and omitted.
            if made_by in self.recipe.fingerprints:
                tags = version_tags(self.names, asset, data_version, self.recipe, found)
            described = {**metadata, **lineage(self.names, asset, sorted(found))}
            key = self.names.key(asset)
            self.log(dg.AssetMaterialization(key, partition=partition, metadata=described, tags=tags))


def drop_empty_partitions(
    instance: dg.DagsterInstance, names: DagsterNames, corpus: Corpus, partitions: Collection[str]
) -> list[str]:
    """Delete the partitions that have no documents at head; returns the others."""
    scheme = PartitionScheme.parse(corpus.head().partition_by or "file")
    return drop_empty(instance, names, corpus, scheme, partitions)


def _states(corpus: Corpus, partitions: Collection[str]) -> dict[str, PartitionState]:
    with corpus.database.transaction() as connection:
        return documents.partition_states(connection, corpus.generation, sorted(partitions))


def _state_metadata(state: PartitionState, status: str) -> Mapping[str, dg.MetadataValue]:
    return {
        "status": dg.MetadataValue.text(status),
        "documents": dg.MetadataValue.int(state.documents),
        "chunks": dg.MetadataValue.int(state.chunks),
        "head": dg.MetadataValue.int(state.published_version),
    }


def _document_metadata(change: DocumentChange, status: str) -> Mapping[str, dg.MetadataValue]:
    target = change.target_version
    return {
        "status": dg.MetadataValue.text(status),
        "run": dg.MetadataValue.text(change.run_id or ""),
        "saga": dg.MetadataValue.text(str(change.saga)),
        "chunks": dg.MetadataValue.int(change.chunk_count),
        **usage_metadata(change.usage),
        **cost_metadata("cost", change.cost, change.currency),
        "head": dg.MetadataValue.int(change.published_version),
        **({} if target is None else {"rolled_back_to": dg.MetadataValue.int(target)}),
    }


def usage_metadata(usage: Usage, prefix: str = "") -> Mapping[str, dg.MetadataValue]:
    """The counters of a usage, each under its name."""
    return {
        f"{prefix}embedded": dg.MetadataValue.int(usage.embedded),
        f"{prefix}cached": dg.MetadataValue.int(usage.cached),
        f"{prefix}tokens": dg.MetadataValue.int(usage.tokens),
        f"{prefix}requests": dg.MetadataValue.int(usage.requests),
        f"{prefix}retries": dg.MetadataValue.int(usage.retries),
        f"{prefix}seconds": dg.MetadataValue.float(round(usage.seconds, 3)),
    }


def cost_metadata(name: str, amount: Decimal | None, currency: str | None) -> Mapping[str, dg.MetadataValue]:
    """A cost as a number that can be plotted; empty if no price is configured."""
    if amount is None or currency is None:
        return {}
    return {f"{name}_{currency}": dg.MetadataValue.float(float(amount))}
