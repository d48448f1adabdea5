"""Opens a corpus of documents by its settings."""

from __future__ import annotations

from collections.abc import Sequence

from ingest_pipeline.columns.declaration import NO_ACCESS
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.config.prices import price_of
from ingest_pipeline.corpus.corpus import Corpus, CorpusSettings, open_table
from ingest_pipeline.corpus.opening import find_unchanged, open_corpus
from ingest_pipeline.embedding.create import embeds_for_free
from ingest_pipeline.errors import ConfigurationError, CorpusMismatchError
from ingest_pipeline.ingestion.columns.column_guard import check_columns, put_columns_in_force
from ingest_pipeline.lance.chunk_table import chunk_schema
from ingest_pipeline.lance.storage import table_uri
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres.catalog import corpora, documents
from ingest_pipeline.postgres.catalog.binding import table_mismatch
from ingest_pipeline.postgres.catalog.corpora import Access, GenerationState
from ingest_pipeline.postgres.catalog.holds import Hold, read_holds, release
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.saga.columns import update_columns
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.types import corpus_name


def open_context(
    database: Database, settings: CorpusConfig, *, create: bool = True, confirm_columns: bool = False
) -> IngestContext:
    """Open the corpus, its source and its settings for an ingest.

    A corpus with publications keeps its embedding model, whatever the settings say. Only re-embedding changes it.

    Args:
        database: The database of the catalog.
        settings: The settings of the corpus.
        create: Create the corpus if it does not exist, and give the settings to a corpus without publications.
            If false, nothing is changed. The result can be planned against as if the corpus had been created.
        confirm_columns: Put the columns of the settings in force, even if columns or their values are lost.

    Raises:
        ConfigurationError: A setting is invalid or contradicts the corpus.
        UnavailableError: The database, the storage or the source does not answer.
    """
    with database.transaction() as connection:
        row = corpora.read_current(connection, settings.corpus)
        is_bound = row is not None and corpora.is_bound(connection, row.name)
        recorded = corpora.read_access(connection, settings.corpus)
        if not confirm_columns:
            check_columns(connection, settings.corpus, settings.declared_columns)
    _check_access_kept(settings, recorded)
    wanted = settings if row is None or not is_bound else settings.with_embedding(row.embedding)
    name = settings.corpus if row is None else row.name
    context = open_generation(
        database, wanted, name, GenerationState.CURRENT, create=create, confirm_columns=confirm_columns
    )
    if create and access_of(settings) != recorded:
        with database.transaction() as connection:
            corpora.set_access(connection, settings.corpus, access_of(settings))
    return context


def open_generation(
    database: Database,
    settings: CorpusConfig,
    name: str,
    state: GenerationState,
    *,
    create: bool = True,
    confirm_columns: bool = False,
) -> IngestContext:
    """Open one generation of the corpus with the embedding of the settings. Create it if it does not exist.

    Raises:
        CorpusMismatchError: The generation exists with other settings.
        ConfigurationError, UnavailableError: As `open_context`.
    """
    wanted = corpus_settings(settings, name, state)
    if not create:
        return context_of(find_unchanged(database, wanted), settings)
    corpus, declared = open_corpus(database, wanted), settings.declared_columns
    put_columns_in_force(database, corpus.name, declared, confirmed=confirm_columns)
    return context_of(update_columns(corpus, declared), settings)


def access_of(settings: CorpusConfig) -> Access:
    """Who may find the documents, as the settings say."""
    return Access(None if settings.access == NO_ACCESS else settings.access, required=settings.require_principals)


def _check_access_kept(settings: CorpusConfig, recorded: Access) -> None:
    """Refuse settings that do not name the restriction of a corpus: a forgotten setting must not lift it.

    Raises:
        CorpusMismatchError: The corpus has restricted access, and the settings do not say so.
    """
    if recorded.column is not None and settings.access is None:
        raise CorpusMismatchError(
            f"Corpus {settings.corpus!r} restricts who may find its documents by the column {recorded.column!r}, and "
            "the settings do not. Nothing was changed",
            f"Set INGEST_ACCESS={recorded.column} (of a component: access). To lift the restriction, set "
            f"INGEST_ACCESS={NO_ACCESS}.",
        )


def corpus_settings(settings: CorpusConfig, name: str, state: GenerationState) -> CorpusSettings:
    """The settings with which one generation of the corpus is created."""
    return CorpusSettings(
        name,
        table_uri(settings.lancedb_uri, name),
        chunk_schema(settings.embedding_dimensions, settings.declared_columns),
        ObjectSource(settings.source, settings.follow_links).url,
        str(settings.scheme),
        settings.recipe.embedding,
        corpus_name(settings.corpus),
        settings.declared_columns,
        state,
    )


def context_of(corpus: Corpus, settings: CorpusConfig) -> IngestContext:
    """The ingest context of a corpus that is open already."""
    return IngestContext(
        corpus,
        ObjectSource(settings.source, settings.follow_links),
        settings.create_chunker(),
        settings.recipe,
        settings.scheme,
        settings.selection,
        price_of(settings.embedding_model, settings.prices),
        embeds_for_free=embeds_for_free(settings.embedder_settings),
        limits=settings.limits,
        extensions=settings.extensions,
        min_age_seconds=settings.min_age_seconds,
        columns=settings.declared_columns,
        gates=settings.gates,
    )


def find_corpus(database: Database, settings: CorpusConfig) -> Corpus:
    """Open the corpus as it is, for reading.

    Raises:
        CorpusMismatchError: The table is in another folder than the settings say, as after a copy of a state folder,
            or the settings restrict access and the corpus does not do so yet.
        ConfigurationError: No corpus of that name exists yet.
    """
    corpus = named_corpus(database, settings.corpus)
    problem = table_mismatch(corpus.name, corpus.table.uri, table_uri(settings.lancedb_uri, corpus.generation))
    with database.transaction() as connection:
        is_bound = corpora.is_bound(connection, corpus.generation)
        access = corpora.read_access(connection, corpus.name).column
    if settings.access not in (None, NO_ACCESS, access):
        raise CorpusMismatchError(
            f"The settings restrict access by the column {settings.access!r}, and corpus {corpus.name!r} by "
            f"{access or 'none'}",
            "Run `ingest-pipeline ingest`, which records the restriction and fills the column.",
        )
    if problem is not None and is_bound:
        raise problem
    return corpus


def named_corpus(database: Database, name: str) -> Corpus:
    """Open a corpus for reading, by its name alone."""
    with database.transaction() as connection:
        row = corpora.read_current(connection, name)
    if row is None:
        raise ConfigurationError(
            f"There is no corpus {name!r}",
            "`ingest-pipeline ingest` creates it; `ingest-pipeline corpora` lists the existing ones.",
        )
    return Corpus(row.name, database, open_table(database, row.name, row.table_uri), row.corpus)


def release_holds(corpus: Corpus, names: Sequence[str]) -> list[str]:
    """Release holds at the user's request, so that documents that were rolled back are ingested again.

    Args:
        corpus: The corpus of the documents.
        names: Keys or partitions.

    Returns:
        The keys of the documents that were on hold.
    """
    with corpus.database.transaction() as connection:
        return release(connection, corpus.generation, names)


def documents_on_hold(corpus: Corpus) -> list[Hold]:
    """The holds of documents that were rolled back, by key."""
    with corpus.database.transaction() as connection:
        return list(read_holds(connection, corpus.generation).values())


def documents_of(context: IngestContext, partitions: Sequence[str]) -> list[str]:
    """Keys of the documents at head in some partitions."""
    with context.corpus.database.transaction() as connection:
        found = documents.latest_documents(connection, context.corpus.generation, partitions=partitions)
    return [document.key for document in found if not document.removed]
