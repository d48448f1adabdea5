"""Opens a corpus, or creates it, or gives it other settings while it has no publication.

A corpus is bound to its settings by its first publication. Before that, `open_corpus` gives it the settings that it is
opened with, under its lock and only while no living writer works on it. A Lance commit changes the columns of the empty
table. A table in another folder is another generation. So no folder is used twice, and a late deletion is harmless.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus, CorpusSettings, open_table
from ingest_pipeline.corpus.head_manifest import install_head
from ingest_pipeline.corpus.saga_timeouts import ATTEMPTS, SILENCE_SECONDS
from ingest_pipeline.corpus.table_identity import check_ours, mark_for
from ingest_pipeline.errors import (
    ConflictError,
    CorpusMismatchError,
    NotOurTableError,
    UnavailableError,
)
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import NewColumns
from ingest_pipeline.lance.files.spool import Spool, spool_name
from ingest_pipeline.lance.storage import storage_options
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.postgres.catalog import corpora, prepared_documents
from ingest_pipeline.postgres.catalog.binding import mismatch, rebind
from ingest_pipeline.postgres.catalog.corpora import GenerationRow, GenerationState
from ingest_pipeline.postgres.database import Connection, Database
from ingest_pipeline.postgres.ledger import embedding_cache, failures, sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind, SagaState


def open_corpus(database: Database, settings: CorpusSettings) -> Corpus:
    """Open the corpus, or create it with an empty table. A corpus without publications is given the settings.

    Raises:
        OtherDatabaseError: The table is written by another database, or this one is older than it.
        CorpusMismatchError: The corpus is bound to another table, source, partition scheme, embedding or columns.
        ConfigurationError: The name is invalid.
        TableInUseError: Another corpus has the table.
        NotOurTableError: The folder contains a table that no corpus created.
        TableUnavailableError: The store does not answer.
        ConflictError: Other processes changed the corpus at every attempt.
    """
    for _ in range(ATTEMPTS):
        row, is_bound = _read(database, settings)
        if row is None:
            _create(database, settings)
            continue
        wanted = settings.named(row.name)
        corpus = _opened(database, wanted)
        problem = _other_kind(row, wanted) or mismatch(row, wanted.binding)
        if problem is None and not (is_bound or corpus.table.exists()):
            problem = CorpusMismatchError(f"The table of corpus {row.corpus!r} at {row.table_uri} is gone")
        if problem is None:
            install_head(corpus.table, row)
            _check_owner(corpus)
            check_writable(corpus)
            problem = _wrong_columns(corpus, wanted)
        if problem is None:
            return corpus
        if is_bound:
            raise problem
        if not _take_settings(corpus, row, wanted):
            raise CorpusMismatchError(
                f"{problem.message}. A process is working on the corpus with the recorded settings",
                "Wait until that process has ended, then run again: settings may change before the first publication.",
            )
    raise ConflictError(f"Corpus {settings.corpus!r} was created or changed by other processes at every attempt")


def find_unchanged(database: Database, settings: CorpusSettings) -> Corpus:
    """Return the corpus as it is, or as `open_corpus` would create or change it, without any effect.

    Raises:
        CorpusMismatchError, NotOurTableError, TableUnavailableError: As `open_corpus`.
    """
    row, is_bound = _read(database, settings)
    if row is None:
        return _opened(database, settings)
    wanted = settings.named(row.name)
    if not is_bound:
        # Head and catalog rows exist, but the settings may name another table before the first publication.
        return replace(_opened(database, wanted), table=open_table(database, row.name, row.table_uri))
    problem = _other_kind(row, wanted) or mismatch(row, wanted.binding)
    if problem is not None:
        raise problem
    corpus = _opened(database, wanted)
    install_head(corpus.table, row)
    _check_owner(corpus)
    check_writable(corpus)
    problem = _wrong_columns(corpus, wanted)
    if problem is not None:
        raise problem
    return corpus


def _read(database: Database, settings: CorpusSettings) -> tuple[GenerationRow | None, bool]:
    """Read the generation that the settings name, and whether it is bound."""
    with database.transaction() as connection:
        if settings.state == GenerationState.CURRENT:
            row = corpora.read_current(connection, settings.corpus)
        else:
            row = corpora.read_generation(connection, settings.generation)
        is_bound = row is not None and (row.state != GenerationState.CURRENT or corpora.is_bound(connection, row.name))
    return row, is_bound


def _opened(database: Database, settings: CorpusSettings) -> Corpus:
    table = open_table(database, settings.generation, settings.table_uri)
    return Corpus(settings.generation, database, table, settings.corpus, settings.state, settings.binding)


def check_writable(corpus: Corpus) -> None:
    """Refuse to write a table that another database writes, or that is newer than this database.

    Raises:
        OtherDatabaseError: The user must first decide which of the two databases continues with the table.
        NotOurTableError: The table is not the one that the corpus created.
        TableUnavailableError: The store does not answer.
    """
    with corpus.database.transaction() as connection:
        row = corpora.read_generation(connection, corpus.generation)
        if row is not None:
            check_ours(connection, row, corpus.table)


def _create(database: Database, settings: CorpusSettings) -> None:
    """Create table and corpus in one saga. An empty table from a creation that died is used."""
    installation = database.installation
    with corpora.created_once(settings.corpus, settings.table_uri), database.transaction() as connection:
        if settings.state == GenerationState.CURRENT:
            settings = settings.named(corpora.next_name(connection, settings.corpus))
        _insert(connection, database, installation, settings)


def _insert(connection: Connection, database: Database, installation: UUID, settings: CorpusSettings) -> None:
    """Insert the row of a generation and create its table."""
    saga = uuid.uuid4()
    row = GenerationRow(
        settings.generation,
        settings.corpus,
        settings.state,
        settings.table_uri,
        settings.source,
        settings.partition_by,
        settings.embedding,
        1,
        saga,
    )
    corpora.insert_generation(connection, row)
    sagas.begin(connection, generation=settings.generation, kind=SagaKind.CREATE, base_version=0, saga=saga)
    table = open_table(database, settings.generation, settings.table_uri)
    mark = mark_for(connection, row, saga)
    made = table.create(settings.schema, owner=f"{installation}/{settings.generation}", mark=mark)
    _record_creations_that_died(connection, table, settings.generation, made.number)
    corpora.move_head(connection, settings.generation, version=made.number, saga=saga, manifest=made.manifest)
    sagas.mark_prepared(connection, saga)
    sagas.mark_published(connection, saga, base_version=0, version=made.number)


def _record_creations_that_died(connection: Connection, table: LanceTable, name: str, version: int) -> None:
    """Record the sagas of earlier versions, because the sweep spares the files of sagas that the ledger lacks."""
    makers = {table.saga_of(before): before for before in range(1, version)}
    died = {saga: before for saga, before in makers.items() if saga is not None}
    sagas.record_unknown(connection, name, died, SagaState.COMPENSATED, "the creation of the corpus died")


def _take_settings(corpus: Corpus, row: GenerationRow, settings: CorpusSettings) -> bool:
    """Give other settings to a corpus without publications.

    Args:
        corpus: The corpus with the new settings.
        row: The row of the generation as it was read.
        settings: The new settings.

    Returns:
        False if a living writer works on the corpus with its present settings.
    """
    recorded = open_table(corpus.database, row.name, row.table_uri)
    if recorded.exists():
        with corpus.database.transaction() as connection:
            check_ours(connection, row, recorded)
    former: LanceTable | None = None
    owner, installation = corpus.owner, corpus.database.installation
    with corpus.database.transaction() as connection:
        with boundary(Boundary.LOCK_TAKEN):
            locked = corpora.lock_generation(connection, row.name)
        if locked != row or corpora.is_bound(connection, row.name):
            return True  # another process was faster: read the row again
        for dead in sagas.abandon_dead(connection, row.name, limit=SILENCE_SECONDS)[0]:
            prepared_documents.forget_documents(connection, dead)
        if any(other.kind != SagaKind.CREATE for other in sagas.unfinished(connection, row.name)):
            return False
        failures.forget_failures(connection, row.name)
        if row.table_uri == settings.table_uri and _has_latest(corpus.table, row):
            _change_in_place(connection, corpus, row, settings)
        else:
            _move(connection, corpus.database, installation, row, settings)
            former = recorded
    if former is not None:
        with suppress(UnavailableError):  # the folder may never have existed; maintenance tries again
            former.drop(owner=owner)
    return True


def _has_latest(table: LanceTable, row: GenerationRow) -> bool:
    """Whether the table exists and has no version above head from a dead writer."""
    return table.exists() and table.latest_version() == row.head_version


def _change_in_place(connection: Connection, corpus: Corpus, row: GenerationRow, settings: CorpusSettings) -> None:
    rebind(connection, row.name, settings.binding)
    if _wrong_columns(corpus, settings) is None:
        return
    saga = sagas.begin(connection, generation=row.name, kind=SagaKind.CREATE, base_version=row.head_version)
    sagas.mark_prepared(connection, saga)
    change = NewColumns(settings.schema, corpus.owner)
    made = corpus.table.stage_version(row.head_version, change, mark_for(connection, row, saga))
    if made.number != row.head_version + 1 or not _has_latest(corpus.table, row):
        raise ConflictError(f"The empty table of corpus {row.corpus!r} was changed by another program")
    corpora.move_head(connection, row.name, version=made.number, saga=saga, manifest=made.manifest)
    sagas.mark_published(connection, saga, base_version=row.head_version, version=made.number)


def _move(
    connection: Connection, database: Database, installation: UUID, row: GenerationRow, settings: CorpusSettings
) -> None:
    """Create the table in another folder, as another generation, and retire the first one."""
    with boundary(Boundary.GENERATION_MOVED):
        corpora.set_state(connection, row.name, GenerationState.DROPPED)
    new = settings.named(corpora.next_name(connection, settings.corpus))
    _insert(connection, database, installation, new)
    source, target = (Spool(uri, storage_options(uri)) for uri in (row.table_uri, new.table_uri))
    for saga, ordinal in embedding_cache.spooled_batches(connection, row.name):
        source.copy(spool_name(saga, ordinal), target)
    corpora.move_ended_sagas(connection, row.name, new.generation)


def _check_owner(corpus: Corpus) -> None:
    # After a rebuild of the catalog, the table keeps the mark of the lost database.
    if not (corpus.table.owner or "").endswith(f"/{corpus.generation}"):
        raise NotOurTableError(f"The LanceDB table at {corpus.table.uri} was not created by corpus {corpus.name!r}")


def _other_kind(row: GenerationRow, settings: CorpusSettings) -> CorpusMismatchError | None:
    """The error if a corpus of documents is opened as a table of the user's own, or the other way round."""
    if (row.source is None) == (settings.source is None):
        return None
    what = "a table of a user's own" if row.source is None else f"the corpus of {row.source}"
    return CorpusMismatchError(f"The name {row.corpus!r} belongs to {what}. Nothing was changed", "Use another name.")


def _wrong_columns(corpus: Corpus, settings: CorpusSettings) -> CorpusMismatchError | None:
    """The error if the table lacks columns of the settings. A table that a user manages may have more."""
    there = {field.name: field.type for field in corpus.table.schema}
    for field in settings.schema:
        if field.name not in settings.columns.names and there.get(field.name) != field.type:
            return CorpusMismatchError(
                f"Corpus {corpus.name!r} has a table whose column {field.name!r} is {there.get(field.name)}, but the "
                f"settings require {field.type}. Nothing was changed",
                "Change the setting back, or use another corpus name for the new settings.",
            )
    return None
