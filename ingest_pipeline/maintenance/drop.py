"""Drop: deleting a corpus. Its generations are marked first, then rows are deleted, then its tables.

    BEGIN; lock the rows of all generations
    end the active sagas: their writers are fenced
    mark every generation as dropped
    COMMIT                                from here on the corpus is gone for readers and writers
    delete catalog and ledger, some rows in each transaction
    delete the tables that this corpus created

If the process dies before COMMIT, the corpus still exists. If it dies later, a repeated drop deletes the rest. The rows
of the generations remain as a record that their tables' folders were used: a new corpus of the same name gets other
folders, so a process that was paused during a drop cannot delete the new corpus' files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.corpus.table_identity import this_database
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.postgres.catalog import corpora, prepared_documents
from ingest_pipeline.postgres.catalog.corpora import Generation, GenerationState
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import extension_results, sagas
from ingest_pipeline.saga.generations import opened

# Deleting a document also deletes its chunks, and each statement must end within its time limit.
_STEP_DOCUMENTS = 1000


@dataclass(slots=True)
class Dropped:
    """What a drop deleted."""

    corpus: str
    documents: int = 0
    """Number of documents that readers saw before the drop."""
    tables: list[str] = field(default_factory=list[str])
    """Folders of the tables that were deleted, now or by an earlier drop."""
    kept: list[str] = field(default_factory=list[str])
    """Folders with a table of another program or database. They were not touched."""


def generations_of(database: Database, corpus: str) -> list[Generation]:
    """All generations of a corpus, even if the corpus was dropped.

    Raises:
        ConfigurationError: No corpus of this name ever existed.
    """
    with database.transaction() as connection:
        found = corpora.read_generations(connection, corpus)
    if not found:
        raise ConfigurationError(f"There is no corpus {corpus!r}", "`ingest-pipeline corpora` lists the existing ones.")
    return found


def drop_corpus(database: Database, corpus: str) -> Dropped:
    """Delete a corpus from both stores. The call can be repeated at any time.

    Raises:
        ConfigurationError: No corpus of this name ever existed.
        UnavailableError: One of the stores does not answer. If anything was deleted, the corpus is gone for readers,
            and the same call deletes the rest.
    """
    found = generations_of(database, corpus)
    dropped = Dropped(
        corpus, sum(generation.documents for generation in found if generation.state == GenerationState.CURRENT)
    )
    _fence(database, found)
    for generation in found:
        _forget_rows(database, generation.name)
    with database.transaction() as connection:
        extension_results.drop_results(connection, corpus)
    for generation in found:
        there = opened(database, corpus, generation)
        if _is_ours(there):
            # After a rebuild of the catalog, the table still names the lost database as its owner.
            there.table.drop(owner=there.table.owner or "" if there.table.exists() else there.owner)
            dropped.tables.append(generation.table_uri)
        else:
            dropped.kept.append(generation.table_uri)
    return dropped


def _is_ours(there: Corpus) -> bool:
    """Whether the table is gone or was last written by this database, not by a copy of it or another program."""
    if not there.table.exists():
        return True
    mark = there.table.mark_of(there.table.latest_version())
    with there.database.transaction() as connection:
        here = this_database(connection).identity
    return mark is not None and mark.database == here and (there.table.owner or "").endswith(f"/{there.generation}")


def _fence(database: Database, found: Sequence[Generation]) -> None:
    """Prevent further publications."""
    with database.transaction() as connection:
        with boundary(Boundary.LOCK_TAKEN):
            rows = corpora.lock_generations(connection, [generation.name for generation in found])
        for name, row in rows.items():
            for saga in sagas.abandon_live(connection, name, "the corpus was dropped"):
                prepared_documents.forget_documents(connection, saga)
            if row.state != GenerationState.DROPPED:
                with boundary(Boundary.GENERATION_MOVED):
                    corpora.set_state(connection, name, GenerationState.DROPPED)


def _forget_rows(database: Database, name: str) -> None:
    deleted = _STEP_DOCUMENTS
    while deleted == _STEP_DOCUMENTS:
        with database.transaction() as connection:
            deleted = corpora.forget_some_documents(connection, name, _STEP_DOCUMENTS)
    with database.transaction() as connection:
        corpora.forget_generation(connection, name)
        sagas.forget_sagas(connection, name)
