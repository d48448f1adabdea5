"""Opens a corpus for a rebuild of its catalog: from the catalog, or from the marks of the table if there is none."""

from __future__ import annotations

import uuid
from dataclasses import replace
from itertools import count

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.corpus import Corpus, open_table
from ingest_pipeline.errors import ConfigurationError, CorpusMismatchError, NotOurTableError
from ingest_pipeline.ingestion.context import context_of, corpus_settings
from ingest_pipeline.lance.storage import storage_options, table_uri
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.lance.versions.version_mark import CorpusFacts, VersionMark
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres.catalog import corpora
from ingest_pipeline.postgres.catalog.binding import Binding, mismatch
from ingest_pipeline.postgres.catalog.corpora import GenerationRow, GenerationState
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.sql import query

# Names of generations have gaps, because a table is dropped a week after its generation was retired.
_MAX_GAP = 8


def open_for_rebuild(database: Database, settings: CorpusConfig) -> IngestContext:
    """Open the corpus with the table that the settings name, even if another database published into it.

    If the database has no such corpus, it is created from the mark of the table's newest version. Readers see no
    documents before the rebuild ends, because the catalog has none.

    Raises:
        CorpusMismatchError: The table was created with another source or partition scheme than that of the settings.
        NotOurTableError: The table belongs to another corpus or program.
        TableUnavailableError: There is no table, or the store does not answer.
    """
    with database.transaction() as connection:
        row = corpora.read_current(connection, settings.corpus)
    if row is None:
        row = _record(database, settings)
    uri = table_uri(settings.lancedb_uri, row.name)
    _check(row, replace(_binding(settings, row), table_uri=row.table_uri))
    corpus = Corpus(row.name, database, open_table(database, row.name, uri), row.corpus)
    return context_of(corpus, settings.with_embedding(row.embedding))


def _binding(settings: CorpusConfig, row: GenerationRow) -> Binding:
    return corpus_settings(settings.with_embedding(row.embedding), row.name, GenerationState.CURRENT).binding


def _check(row: GenerationRow, wanted: Binding) -> None:
    problem = mismatch(row, wanted)
    if problem is not None:
        raise problem


def _record(database: Database, settings: CorpusConfig) -> GenerationRow:
    """Record a corpus that only its table knows."""
    table, version, mark, facts = _find(settings)
    row = GenerationRow(
        facts.generation,
        facts.corpus,
        GenerationState.CURRENT,
        table.uri,
        facts.source,
        facts.partition_by,
        facts.embedding,
        version,
        mark.saga,
    )
    _check(row, replace(_binding(settings, row), table_uri=table.uri))
    installation = (table.owner or "").partition("/")[0]
    with database.transaction() as connection:
        try:
            connection.execute(query("set_installation"), {"id": uuid.UUID(installation)})
        except ValueError as error:
            raise NotOurTableError(f"The LanceDB table at {table.uri} was created by another program") from error
        corpora.insert_generation(connection, row)
    return row


def _find(settings: CorpusConfig) -> tuple[LanceTable, int, VersionMark, CorpusFacts]:
    """Find the table of the corpus' newest generation with the embedding of the settings."""
    found: list[tuple[LanceTable, int, VersionMark, CorpusFacts]] = []
    missing = 0
    for number in count(1):
        name = settings.corpus if number == 1 else f"{settings.corpus}-{number}"
        uri = table_uri(settings.lancedb_uri, name)
        table = LanceTable(uri, storage_options(uri))
        made = _newest_mark(table)
        if made is None:
            missing += 1
            if missing == _MAX_GAP:
                break
            continue
        missing = 0
        version, mark = made
        if mark.corpus is not None and (mark.corpus.generation, mark.corpus.corpus) == (name, settings.corpus):
            found.append((table, version, mark, mark.corpus))
    matching = [one for one in found if one[3].embedding == settings.recipe.embedding]
    if matching:
        return matching[-1]
    if found:
        models = ", ".join(sorted({str(one[3].embedding) for one in found}))
        raise CorpusMismatchError(
            f"The tables of corpus {settings.corpus!r} in {settings.lancedb_uri} have vectors of {models}, but the "
            f"settings name {settings.recipe.embedding}. Nothing was changed",
            "Set INGEST_EMBEDDING_MODEL and INGEST_EMBEDDING_DIMENSIONS to one of these.",
        )
    raise ConfigurationError(
        f"Corpus {settings.corpus!r} has neither a table in {settings.lancedb_uri} nor a row in the database. Nothing "
        "was changed",
        "Check INGEST_LANCEDB_URI and INGEST_CORPUS.",
    )


def _newest_mark(table: LanceTable) -> tuple[int, VersionMark] | None:
    """The newest version that a saga made, with its mark; None if there is no table."""
    for version in reversed(table.versions()):
        mark = table.readable_mark(version)
        if mark is not None:
            return version, mark
    return None
