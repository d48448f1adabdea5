"""A corpus of documents as a whole: its settings, its workshop, and what has to be done to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingest_pipeline import catalog, ledger
from ingest_pipeline.chunk_rows import chunk_schema
from ingest_pipeline.chunking import CHUNKER, Chunker
from ingest_pipeline.corpus import Corpus, CorpusSettings, open_corpus
from ingest_pipeline.database import Database
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.holds import Hold, read_holds, release
from ingest_pipeline.lance_storage import storage_options
from ingest_pipeline.lance_table import LanceTable
from ingest_pipeline.model import Recipe, SourceObject, corpus_name
from ingest_pipeline.parsing import PARSER
from ingest_pipeline.partitioning import key_of, partition_of
from ingest_pipeline.planning import DocumentPlan, plan, without_held
from ingest_pipeline.preparation import Workshop
from ingest_pipeline.source import ObjectSource


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """What a corpus is made from and where its table lies."""

    corpus: str
    source: str
    lancedb_uri: str
    embedding_model: str
    embedding_dimensions: int
    chunk_size: int = 1000
    chunk_overlap: int = 0

    @property
    def recipe(self) -> Recipe:
        """What decides the output besides the bytes."""
        return Recipe(
            PARSER, CHUNKER, self.chunk_size, self.chunk_overlap, self.embedding_model, self.embedding_dimensions
        )

    @property
    def table_uri(self) -> str:
        """Folder of the Lance dataset, where LanceDB looks for a table of the corpus' name."""
        return table_uri(self.lancedb_uri, self.corpus)


def table_uri(lancedb_uri: str, name: str) -> str:
    """Folder of the Lance dataset of a LanceDB table.

    Raises:
        ConfigurationError: The name does not serve.
    """
    return f"{lancedb_uri.rstrip('/')}/{corpus_name(name)}.lance"


def open_workshop(database: Database, settings: PipelineSettings) -> Workshop:
    """Open the corpus, creating it if need be, and what else preparing takes.

    Raises:
        ConfigurationError: A setting is wrong or contradicts what the corpus was created with.
        UnavailableError: Something outside does not answer.
    """
    recipe = settings.recipe
    chunker = Chunker(settings.chunk_size, settings.chunk_overlap)
    source = ObjectSource(settings.source)
    corpus = open_corpus(
        database,
        CorpusSettings(
            settings.corpus,
            settings.table_uri,
            chunk_schema(settings.embedding_dimensions),
            settings.source,
            "file",
            recipe.embedding,
            storage_options(settings.lancedb_uri),
        ),
    )
    return Workshop(corpus, source, chunker, recipe)


def find_corpus(database: Database, settings: PipelineSettings) -> Corpus:
    """The corpus as it is, to read from.

    Raises:
        ConfigurationError: There is none of that name yet.
    """
    with database.transaction() as connection:
        row = catalog.read_corpus(connection, settings.corpus)
    if row is None:
        raise ConfigurationError(f"There is no corpus {settings.corpus!r}", "Run `ingest-pipeline ingest` first.")
    return Corpus(row.name, database, LanceTable(row.table_uri, storage_options(row.table_uri)))


def plan_partitions(workshop: Workshop, partitions: Sequence[str] | None = None) -> list[DocumentPlan]:
    """What differs between the source and head, and is not held back by a rollback.

    Args:
        workshop: Of the corpus.
        partitions: Look at these only. None: at all.
    """
    return plan_and_held(workshop, partitions)[0]


def plan_and_held(
    workshop: Workshop, partitions: Sequence[str] | None = None
) -> tuple[list[DocumentPlan], list[DocumentPlan]]:
    """What differs between the source and head: what is to be done, and what a rollback holds back."""
    # The catalog first: a document that another writer publishes meanwhile must not look like one that is gone.
    with workshop.corpus.database.transaction() as connection:
        standing = catalog.standing_documents(connection, workshop.corpus.name, partitions)
        holds = read_holds(connection, workshop.corpus.name)
    listed = _listed(workshop, partitions)
    names = {source.key: partition_of(source.key) for source in listed}
    plans = plan(names, listed, standing, workshop.recipe.fingerprint)
    return without_held(plans, holds, workshop.recipe.fingerprint)


def release_holds(corpus: Corpus, names: Sequence[str]) -> list[str]:
    """Let documents that were rolled back be ingested again; a person asked for them.

    Args:
        corpus: Whose documents.
        names: Keys or partitions.

    Returns:
        Keys of those that were held.
    """
    with corpus.database.transaction() as connection:
        return release(connection, corpus.name, names)


def held_documents(corpus: Corpus) -> list[Hold]:
    """Documents that are left as they were rolled back, by key."""
    with corpus.database.transaction() as connection:
        return list(read_holds(connection, corpus.name).values())


def clear_settled_failures(
    workshop: Workshop, plans: Sequence[DocumentPlan], held: Sequence[DocumentPlan] = ()
) -> None:
    """Forget failures and holds of documents that need nothing any more: published since, or gone from the source.

    Args:
        workshop: Of the corpus.
        plans: All that is to be done, as `plan_and_held` found it.
        held: All that is held.
    """
    differing = {document.key for document in (*plans, *held)}
    corpus = workshop.corpus
    with corpus.database.transaction() as connection:
        failures = ledger.failures(connection, corpus.name)
        settled = [failure.key for failure in failures if failure.key not in differing]
        ledger.clear_failures(connection, corpus.name, settled)
        release(connection, corpus.name, [key for key in read_holds(connection, corpus.name) if key not in differing])


def standing_etags(workshop: Workshop, partitions: Sequence[str]) -> dict[str, str]:
    """The ETag of the document at head, for those of the partitions that have one."""
    with workshop.corpus.database.transaction() as connection:
        standing = catalog.standing_documents(connection, workshop.corpus.name, partitions)
    return {document.partition: document.etag or "" for document in standing if not document.removed}


def _listed(workshop: Workshop, partitions: Sequence[str] | None) -> list[SourceObject]:
    if partitions is None:
        return list(workshop.source.list())
    keys = [key_of(partition) for partition in partitions]
    if any(key is None for key in keys):
        wanted = set(partitions)
        return [source for source in workshop.source.list() if partition_of(source.key) in wanted]
    return [found for key in keys if key is not None and (found := workshop.source.stat(key)) is not None]
