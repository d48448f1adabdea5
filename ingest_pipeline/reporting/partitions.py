"""The partitions of a corpus, as its scheme makes them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice

from dagster import DagsterInstance, DynamicPartitionsDefinition, PartitionsDefinition, StaticPartitionsDefinition

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.partitioning import PartitionScheme
from ingest_pipeline.postgres import documents
from ingest_pipeline.saga.reconcile import lock

# Dagster deletes them one by one, in some 40 ms each, and publications wait so long.
_DROPPED_AT_ONCE = 10
# Of more it is cheaper to read all that Dagster knows than to have it look at each.
_ADDED_UNASKED = 200


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
    name = _dynamic_name(definition)
    if name is not None:
        wanted = set(partitions)
        if len(wanted) > _ADDED_UNASKED:
            wanted -= set(instance.get_dynamic_partitions(name))
        instance.add_dynamic_partitions(name, sorted(wanted))


def recall_partitions(instance: DagsterInstance, corpus: Corpus, scheme: PartitionScheme) -> int:
    """Let an instance of Dagster that is new, or lost its storage, know what stands; returns how many partitions.

    Looks at one partition only: whoever knows the first knows all. Dagster shows them as missing until they are
    materialized, which reads no document that has not changed.
    """
    definition = corpus_partitions(corpus.name, scheme)
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
    instance: DagsterInstance, corpus: Corpus, scheme: PartitionScheme, partitions: Collection[str]
) -> list[str]:
    """Let Dagster forget those of the partitions in which nothing stands; returns the others.

    Dagster shows no materialization that was logged while its partition was unknown, also if that is added later. So
    whoever publishes adds the partition before the materialization is logged, and nobody deletes one in which something
    stands: what is empty is asked again under the row lock, and deleted before anybody can publish.
    """
    with corpus.database.transaction() as connection:
        latest = set(documents.partition_states(connection, corpus.generation, sorted(partitions)))
    name = _dynamic_name(corpus_partitions(corpus.name, scheme))
    if name is None:
        return sorted(latest)
    empty = iter(sorted(set(partitions) - latest))
    while some := list(islice(empty, _DROPPED_AT_ONCE)):
        with corpus.database.transaction() as connection:
            lock(connection, corpus)
            returned = documents.partition_states(connection, corpus.generation, some)
            for partition in (partition for partition in some if partition not in returned):
                instance.delete_dynamic_partition(name, partition)
        latest.update(returned)
    return sorted(latest)


def forget_partitions(instance: DagsterInstance, corpus: str) -> int:
    """Let Dagster forget all partitions of a corpus that was dropped; returns how many."""
    count = 0
    for name in (f"{corpus}_documents", f"{corpus}_folders"):
        for partition in instance.get_dynamic_partitions(name):
            instance.delete_dynamic_partition(name, partition)
            count += 1
    return count


def _dynamic_name(definition: PartitionsDefinition) -> str | None:
    """Under which Dagster keeps the partitions, None if they are always there."""
    return definition.name if isinstance(definition, DynamicPartitionsDefinition) else None
