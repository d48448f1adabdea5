"""Materializations of documents that the ingest step did not report itself."""

from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.partitioning import PartitionScheme
from ingest_pipeline.postgres import documents
from ingest_pipeline.postgres.documents import PartitionState
from ingest_pipeline.postgres.reports import DocumentChange
from ingest_pipeline.reporting.data_versions import version_tags
from ingest_pipeline.reporting.lineage import lineage
from ingest_pipeline.reporting.partitions import add_partitions, corpus_partitions
from ingest_pipeline.reporting.partitions import drop_empty_partitions as drop_empty
from ingest_pipeline.resources.names import ASSETS, DagsterNames
from ingest_pipeline.types import Recipe, Usage


def report_documents(
    instance: dg.DagsterInstance,
    names: DagsterNames,
    corpus: Corpus,
    changes: Sequence[DocumentChange],
    *,
    status: str,
    log: Callable[[dg.AssetMaterialization], None],
    recipe: Recipe,
) -> None:
    """Materialize documents, with the data version of the bytes and recipe they were made from; drop what was removed.

    Args:
        instance: Dagster's instance.
        names: Names of the corpus in Dagster.
        corpus: The corpus of the documents.
        changes: Documents that were published and have not been replaced since.
        status: The status of the documents that the UI shows.
        log: Called with the events.
        recipe: The corpus' current recipe.
    """
    scheme = PartitionScheme.parse(corpus.head().partition_by or "file")
    partitions = {change.partition for change in changes if not change.removed}
    add_partitions(instance, corpus_partitions(names, scheme), partitions)
    if scheme.kind == "file":
        for change in changes:
            if not change.removed:
                for asset in ASSETS:
                    log(_materialization(names, asset, change, status, recipe))
    else:
        for state in _states(corpus, {change.partition for change in changes}).values():
            for asset in ASSETS:
                log(_shared_materialization(names, asset, state, status, recipe))
    drop_empty_partitions(instance, names, corpus, {change.partition for change in changes})


def drop_empty_partitions(
    instance: dg.DagsterInstance, names: DagsterNames, corpus: Corpus, partitions: Collection[str]
) -> list[str]:
    """Delete the partitions that have no documents at head; returns the others."""
    scheme = PartitionScheme.parse(corpus.head().partition_by or "file")
    return drop_empty(instance, names, corpus, scheme, partitions)


def _states(corpus: Corpus, partitions: Collection[str]) -> dict[str, PartitionState]:
    with corpus.database.transaction() as connection:
        return documents.partition_states(connection, corpus.generation, sorted(partitions))


def _shared_materialization(
    names: DagsterNames, asset: str, state: PartitionState, status: str, recipe: Recipe
) -> dg.AssetMaterialization:
    metadata: Mapping[str, dg.MetadataValue] = {
        "status": dg.MetadataValue.text(status),
        "documents": dg.MetadataValue.int(state.documents),
        "chunks": dg.MetadataValue.int(state.chunks),
        "head": dg.MetadataValue.int(state.published_version),
        **lineage(names, asset),
    }
    tags = _tags(names, asset, state.data_version, state.recipe, recipe)
    return dg.AssetMaterialization(names.key(asset), partition=state.partition, metadata=metadata, tags=tags)


def _materialization(
    names: DagsterNames, asset: str, change: DocumentChange, status: str, recipe: Recipe
) -> dg.AssetMaterialization:
    target = change.target_version
    metadata: Mapping[str, dg.MetadataValue] = {
        "status": dg.MetadataValue.text(status),
        "run": dg.MetadataValue.text(change.run_id or ""),
        "saga": dg.MetadataValue.text(str(change.saga)),
        "chunks": dg.MetadataValue.int(change.chunk_count),
        **usage_metadata(change.usage),
        **cost_metadata("cost", change.cost, change.currency),
        "head": dg.MetadataValue.int(change.published_version),
        **({} if target is None else {"rolled_back_to": dg.MetadataValue.int(target)}),
        **lineage(names, asset),
    }
    tags = _tags(names, asset, f"{change.etag}/{change.recipe}", change.recipe, recipe)
    return dg.AssetMaterialization(names.key(asset), partition=change.partition, metadata=metadata, tags=tags)


def _tags(names: DagsterNames, asset: str, data_version: str, made_by: str | None, recipe: Recipe) -> dict[str, str]:
    """Tags of a materialization. If another recipe made it, the code versions are unknown and omitted."""
    if made_by not in recipe.fingerprints:
        return {DATA_VERSION_TAG: data_version}
    return version_tags(names, asset, data_version, recipe)


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
