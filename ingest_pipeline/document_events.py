"""What Dagster is told of documents that were published without the ingest step there to tell it."""

from collections.abc import Callable, Mapping, Sequence

import dagster as dg

from ingest_pipeline import catalog
from ingest_pipeline.assets.embeddings import cost_metadata
from ingest_pipeline.assets.partitions import document_partitions
from ingest_pipeline.catalog import DocumentChange
from ingest_pipeline.corpus import Corpus

_ASSETS = ("chunks", "embeddings", "metadata")


def report_documents(
    instance: dg.DagsterInstance,
    corpus: Corpus,
    changes: Sequence[DocumentChange],
    status: str,
    log: Callable[[dg.AssetMaterialization], None],
) -> None:
    """Materialize documents, with the data version of the bytes and recipe they were made from; drop what was removed.

    Args:
        instance: Whose partitions these are.
        corpus: Whose documents.
        changes: Documents that were published, and still stand.
        status: What became of them, for a person.
        log: Takes the events.
    """
    name = document_partitions(corpus.name).name
    assert name is not None  # noqa: S101  ours has one
    published = {change.partition for change in changes if not change.removed}
    missing = published - set(instance.get_dynamic_partitions(name))
    if missing:
        instance.add_dynamic_partitions(name, sorted(missing))
    for change in changes:
        if not change.removed:
            for asset in _ASSETS:
                log(_materialization(dg.AssetKey([corpus.name, asset]), change, status))
    partitions = sorted({change.partition for change in changes if change.removed})
    with corpus.database.transaction() as connection:
        states = catalog.partition_states(connection, corpus.name, partitions)
    for partition in partitions:
        if partition not in states:
            instance.delete_dynamic_partition(name, partition)


def _materialization(key: dg.AssetKey, change: DocumentChange, status: str) -> dg.AssetMaterialization:
    target = change.target_version
    metadata: Mapping[str, dg.MetadataValue] = {
        "status": dg.MetadataValue.text(status),
        "run": dg.MetadataValue.text(change.run_id or ""),
        "saga": dg.MetadataValue.text(str(change.saga)),
        "chunks": dg.MetadataValue.int(change.chunk_count),
        "bought": dg.MetadataValue.int(change.bought),
        "reused": dg.MetadataValue.int(change.reused),
        "tokens": dg.MetadataValue.int(change.tokens),
        "requests": dg.MetadataValue.int(change.requests),
        "retries": dg.MetadataValue.int(change.retries),
        "seconds": dg.MetadataValue.float(round(change.seconds, 3)),
        **cost_metadata("cost", change.cost, change.currency),
        "head": dg.MetadataValue.int(change.published_version),
        **({} if target is None else {"rolled_back_to": dg.MetadataValue.int(target)}),
    }
    tags = {"dagster/data_version": f"{change.etag}/{change.recipe}"}
    return dg.AssetMaterialization(key, partition=change.partition, metadata=metadata, tags=tags)
