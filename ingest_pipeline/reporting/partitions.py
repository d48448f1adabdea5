"""The partitions of a corpus in Dagster."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice

from dagster import DagsterInstance, DynamicPartitionsDefinition, PartitionsDefinition, StaticPartitionsDefinition

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.partitioning import PartitionScheme
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.saga.reconcile import lock

# Dagster deletes partitions one by one, 40 ms each, and publications wait for the lock meanwhile.
_MAX_DROPPED_UNDER_LOCK = 10
# To add more partitions, reading all existing ones first is cheaper than letting Dagster check each.
_MAX_ADDED_UNCHECKED = 200


def corpus_partitions(names: DagsterNames, scheme: PartitionScheme) -> PartitionsDefinition:
    """The partitions definition that the three assets of a corpus share.

    Partitions of documents and of folders are added when one of their documents is seen, and dropped when the rows of
    the last one are deleted. Buckets always exist.
    """
    if scheme.partitions is not None:
        return StaticPartitionsDefinition(scheme.partitions)
    return DynamicPartitionsDefinition(name=names.name("documents" if scheme.kind == "file" else "folders"))


def add_partitions(instance: DagsterInstance, definition: PartitionsDefinition, partitions: Iterable[str]) -> None:
    """Add partitions that Dagster does not have yet."""
    name = _dynamic_name(definition)
    if name is not None:
        wanted = set(partitions)
        if len(wanted) > _MAX_ADDED_UNCHECKED:
            wanted -= set(instance.get_dynamic_partitions(name))
        instance.add_dynamic_partitions(name, sorted(wanted))


def recall_partitions(instance: DagsterInstance, names: DagsterNames, corpus: Corpus, scheme: PartitionScheme) -> int:
    """Add all partitions to an instance of Dagster that is new or lost its storage; returns how many.

    Only the first partition is checked: an instance that has it has all of them. Dagster shows added partitions as
    missing until a run materializes them. That run does not read documents that have not changed.
    """
    definition = corpus_partitions(names, scheme)
    name = _dynamic_name(definition)
    if name is None:
        return 0
    with corpus.database.transaction() as connection:
        first = documents.first_partition(connection, corpus.generation)
    if first is None or instance.has_dynamic_partition(name, first):
        return 0
    with corpus.database.transaction() as connection:
        partitions = documents.all_partitions(connection, corpus.generation)
    add_partitions(instance, definition, partitions)
    return len(partitions)


def drop_empty_partitions(
    instance: DagsterInstance,
    names: DagsterNames,
    corpus: Corpus,
    scheme: PartitionScheme,
    partitions: Collection[str],
) -> list[str]:
    """Delete the partitions that have no documents at head; returns the others.

    Dagster never shows a materialization that was logged before its partition was added. So a writer adds the partition
    first, and no partition with documents may be deleted: the row lock is taken, the partition is checked once more to
    be empty, and is deleted before another writer can publish.
    """
    with corpus.database.transaction() as connection:
        latest = set(documents.partition_states(connection, corpus.generation, sorted(partitions)))
    name = _dynamic_name(corpus_partitions(names, scheme))
    if name is None:
        return sorted(latest)
    empty = iter(sorted(set(partitions) - latest))
    while some := list(islice(empty, _MAX_DROPPED_UNDER_LOCK)):
        with corpus.database.transaction() as connection:
            lock(connection, corpus)
            returned = documents.partition_states(connection, corpus.generation, some)
            for partition in (partition for partition in some if partition not in returned):
                instance.delete_dynamic_partition(name, partition)
        latest.update(returned)
    return sorted(latest)


def drop_stray_partitions(
    instance: DagsterInstance,
    names: DagsterNames,
    corpus: Corpus,
    scheme: PartitionScheme,
    wanted: Collection[str],
) -> list[str]:
    """Delete partitions without documents, neither at head nor in the source; returns them.

    The file of such a partition was deleted before anything of it was published, or cannot be read. Dagster would show
    the partition as failed or missing for ever, and assets that wait for all partitions would never run.

    Args:
        instance: Dagster's instance.
        names: Names of the corpus in Dagster.
        corpus: The corpus.
        scheme: The partition scheme.
        wanted: Partitions without documents at head that are kept.
    """
    name = _dynamic_name(corpus_partitions(names, scheme))
    if name is None:
        return []
    with corpus.database.transaction() as connection:
        latest = documents.all_partitions(connection, corpus.generation)
    found = set(instance.get_dynamic_partitions(name)).difference(latest, wanted)
    return sorted(found.difference(drop_empty_partitions(instance, names, corpus, scheme, found))) if found else []


def forget_partitions(instance: DagsterInstance, names: DagsterNames) -> int:
    """Delete all partitions of a corpus that was dropped; returns how many."""
    count = 0
    for name in (names.name("documents"), names.name("folders")):
        for partition in instance.get_dynamic_partitions(name):
            instance.delete_dynamic_partition(name, partition)
            count += 1
    return count


def _dynamic_name(definition: PartitionsDefinition) -> str | None:
    """The name of a dynamic partitions definition, None for static partitions."""
    return definition.name if isinstance(definition, DynamicPartitionsDefinition) else None
