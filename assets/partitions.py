"""The partitions of a corpus, as its scheme makes them."""

from __future__ import annotations

from collections.abc import Iterable

from dagster import DagsterInstance, DynamicPartitionsDefinition, PartitionsDefinition, StaticPartitionsDefinition

from ingest_pipeline.partitioning import PartitionScheme


def corpus_partitions(corpus: str, scheme: PartitionScheme) -> PartitionsDefinition:
    """The partitions definition that the three assets of a corpus share.

    Partitions of documents and of folders are added when a document of theirs is seen, and dropped when the rows of
    the last one are gone. Buckets are always there.
    """
    if scheme.partitions is not None:
        return StaticPartitionsDefinition(scheme.partitions)
    return DynamicPartitionsDefinition(name=f"{corpus}_{'documents' if scheme.kind == 'file' else 'folders'}")


def add_partitions(instance: DagsterInstance, definition: PartitionsDefinition, partitions: Iterable[str]) -> None:
    """Let Dagster know of partitions that it does not know yet."""
    if isinstance(definition, DynamicPartitionsDefinition) and definition.name is not None:
        known = set(instance.get_dynamic_partitions(definition.name))
        instance.add_dynamic_partitions(definition.name, sorted(set(partitions) - known))


def drop_partitions(instance: DagsterInstance, definition: PartitionsDefinition, partitions: Iterable[str]) -> None:
    """Let Dagster forget partitions in which nothing stands any more."""
    if isinstance(definition, DynamicPartitionsDefinition) and definition.name is not None:
        for partition in sorted(partitions):
            instance.delete_dynamic_partition(definition.name, partition)
