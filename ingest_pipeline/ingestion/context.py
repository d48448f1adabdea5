"""A corpus of documents as a whole: its settings, its workshop, and what has to be done to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ingest_pipeline.chunking.content_defined import CHUNKER, Chunker
from ingest_pipeline.corpus.corpus import Corpus, CorpusSettings, find_unchanged, open_corpus
from ingest_pipeline.embedding.pricing import price_of
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.lance.chunk_table import chunk_schema
from ingest_pipeline.lance.storage import storage_options
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.parsing.formats import PARSER
from ingest_pipeline.partitioning import PartitionScheme
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.planner import Planner
from ingest_pipeline.postgres import catalog, generations
from ingest_pipeline.postgres.binding import table_mismatch
from ingest_pipeline.postgres.catalog import GenerationState
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.holds import Hold, read_holds, release
from ingest_pipeline.sources.filters import Selection
from ingest_pipeline.sources.local import FollowLinks
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.spending_limits import DEFAULT_LIMITS, SpendingLimits
from ingest_pipeline.types import (
    DEFAULT_RETENTION,
    OnUnreadable,
    Price,
    Recipe,
    Retention,
    corpus_name,
    split_embedding,
)


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
    partition_by: str = "file"
    """Partition scheme: file, folder, folder:LEVELS or bucket:BUCKETS."""
    include: tuple[str, ...] = ()
    """Patterns of the documents to take, as in a ``.gitignore``. None: all."""
    exclude: tuple[str, ...] = ()
    """Patterns of the documents to leave out of these."""
    max_bytes: int | None = None
    """Largest object to take."""
    min_age_seconds: int = 5
    """The sensor leaves files alone that were modified so little time ago; every run does, of those that are empty."""
    prices: tuple[Price, ...] = ()
    """Of embedding models."""
    retention: Retention = DEFAULT_RETENTION
    """How long versions are kept."""
    limits: SpendingLimits = DEFAULT_LIMITS
    """On chunks of a document, and on tokens of a run and a day."""
    follow_links: FollowLinks = "inside"
    """Which links of a local folder are followed."""
    on_unreadable: OnUnreadable = "skip"
    """Whether runs skip files that cannot be read, or fail when they have done the rest."""
    encoding: str | None = None
    """Of text that is neither UTF-8 nor marked, by Python's name for it. None: such text cannot be read."""

    @property
    def scheme(self) -> PartitionScheme:
        """How documents are shared out among partitions.

        Raises:
            ConfigurationError: ``partition_by`` is malformed.
        """
        return PartitionScheme.parse(self.partition_by)

    @property
    def recipe(self) -> Recipe:
        """What decides the output besides the bytes."""
        return Recipe(
            PARSER,
            CHUNKER,
            self.chunk_size,
            self.chunk_overlap,
            self.embedding_model,
            self.embedding_dimensions,
            self.encoding,
        )

    def with_embedding(self, embedding: str | None) -> PipelineSettings:
        """The same with the model and dimensions of a generation that exists."""
        if embedding is None:
            return self
        model, dimensions = split_embedding(embedding)
        return replace(self, embedding_model=model, embedding_dimensions=dimensions)

    @property
    def table_uri(self) -> str:
        """Folder of the Lance dataset, where LanceDB looks for a table of the corpus' name."""
        return table_uri(self.lancedb_uri, self.corpus)

    def uri_of(self, generation: str) -> str:
        """Folder of the Lance dataset of a generation of the corpus."""
        return f"{self.lancedb_uri.rstrip('/')}/{generation}.lance"


def table_uri(lancedb_uri: str, name: str) -> str:
    """Folder of the Lance dataset of a LanceDB table.

    Raises:
        ConfigurationError: The name does not serve.
    """
    return f"{lancedb_uri.rstrip('/')}/{corpus_name(name)}.lance"


def open_context(database: Database, settings: PipelineSettings, *, create: bool = True) -> IngestContext:
    """Open the corpus and what else preparing takes.

    A corpus into which something was published keeps its embedding model, whatever the settings say: only a migration
    moves it to another one.

    Args:
        database: Where the catalog is.
        settings: Of the corpus.
        create: Create the corpus if there is none, and let one into which nothing was published take the settings.
            Else nothing is changed, and such a corpus can be planned against: it looks as if it had been created.

    Raises:
        ConfigurationError: A setting is wrong or contradicts what the corpus was made with.
        UnavailableError: Something outside does not answer.
    """
    with database.transaction() as connection:
        row = catalog.read_current(connection, settings.corpus)
        is_bound = row is not None and generations.is_bound(connection, row.name)
    if row is None:
        return open_generation(database, settings, settings.corpus, "current", create=create)
    wanted = settings.with_embedding(row.embedding) if is_bound else settings
    return open_generation(database, wanted, row.name, "current", create=create)


def open_generation(
    database: Database, settings: PipelineSettings, name: str, state: GenerationState, *, create: bool = True
) -> IngestContext:
    """Open one generation of the corpus, creating it if need be, with the embedding that the settings say.

    Raises:
        CorpusMismatchError: It exists with other settings.
        ConfigurationError, UnavailableError: As `open_context`.
    """
    wanted = corpus_settings(settings, name, state)
    return context_of(open_corpus(database, wanted) if create else find_unchanged(database, wanted), settings)


def corpus_settings(settings: PipelineSettings, name: str, state: GenerationState) -> CorpusSettings:
    """What one generation of the corpus is created with."""
    return CorpusSettings(
        name,
        settings.uri_of(name),
        chunk_schema(settings.embedding_dimensions),
        ObjectSource(settings.source, settings.follow_links).url,
        str(settings.scheme),
        settings.recipe.embedding,
        storage_options(settings.lancedb_uri),
        corpus_name(settings.corpus),
        state,
    )


def context_of(corpus: Corpus, settings: PipelineSettings) -> IngestContext:
    """A corpus that is open already, with what else preparing takes."""
    return IngestContext(
        corpus,
        ObjectSource(settings.source, settings.follow_links),
        Chunker(settings.chunk_size, settings.chunk_overlap),
        settings.recipe,
        settings.scheme,
        Selection(settings.include, settings.exclude, settings.max_bytes),
        price_of(settings.embedding_model, settings.prices),
        limits=settings.limits,
        min_age_seconds=settings.min_age_seconds,
    )


def find_corpus(database: Database, settings: PipelineSettings) -> Corpus:
    """The corpus as it is, to read from.

    Raises:
        CorpusMismatchError: Its table is not where the settings say, as after a copy of a state folder.
        ConfigurationError: There is none of that name yet.
    """
    corpus = named_corpus(database, settings.corpus)
    problem = table_mismatch(corpus.name, corpus.table.uri, settings.uri_of(corpus.generation))
    with database.transaction() as connection:
        is_bound = generations.is_bound(connection, corpus.generation)
    if problem is not None and is_bound:
        raise problem
    return corpus


def named_corpus(database: Database, name: str) -> Corpus:
    """As `find_corpus`, by name alone."""
    with database.transaction() as connection:
        row = catalog.read_current(connection, name)
    if row is None:
        raise ConfigurationError(f"There is no corpus {name!r}", "Run `ingest-pipeline ingest` first.")
    return Corpus(row.name, database, LanceTable(row.table_uri, storage_options(row.table_uri)), row.corpus)


def plan_partitions(context: IngestContext, partitions: Sequence[str] | None = None) -> list[DocumentPlan]:
    """The documents of some partitions, or of the whole source, that differ from head and are not on hold."""
    planner = Planner(context)
    return (planner.page() if partitions is None else planner.partitions(partitions)).plans


def release_holds(corpus: Corpus, names: Sequence[str]) -> list[str]:
    """Let documents that were rolled back be ingested again; a person asked for them.

    Args:
        corpus: Whose documents.
        names: Keys or partitions.

    Returns:
        Keys of those that were held.
    """
    with corpus.database.transaction() as connection:
        return release(connection, corpus.generation, names)


def held_documents(corpus: Corpus) -> list[Hold]:
    """Documents that are left as they were rolled back, by key."""
    with corpus.database.transaction() as connection:
        return list(read_holds(connection, corpus.generation).values())


def documents_of(context: IngestContext, partitions: Sequence[str]) -> list[str]:
    """Keys of the documents of some partitions that stand at head."""
    with context.corpus.database.transaction() as connection:
        found = catalog.latest_documents(connection, context.corpus.generation, partitions=partitions)
    return [document.key for document in found if not document.removed]
