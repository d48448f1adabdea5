"""Moving a corpus from one generation to another, and what becomes of the one that is left.

A generation is one table with its head, sagas and catalog rows, made with one embedding model. Readers see the current
one. A migration fills another beside it through ordinary publications, which nobody sees, and then this happens:

    BEGIN; lock the rows of both: no publication is half way in either
    compare: is there a document that they hold differently, and that was not looked at as they hold it?  -> not yet
    end the sagas that are at work on the old one: their writers are fenced
    the old one is left, the new one current
    COMMIT

A writer that is told nothing of it finds its generation left when it takes the lock, and publishes nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta

from ingest_pipeline.corpus.corpus import Corpus, check_writable
from ingest_pipeline.errors import ConfigurationError, GenerationRetiredError, NotOurTableError, UnavailableError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.storage import storage_options
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.postgres import corpora, documents, sagas
from ingest_pipeline.postgres.corpora import Generation, GenerationDifference, GenerationState
from ingest_pipeline.postgres.database import Connection, Database
from ingest_pipeline.saga.reconcile import lock

# As long as what a failed saga bought: whoever changes their mind within it pays nothing again.
KEPT = timedelta(days=7)


def list_generations(database: Database, corpus: str) -> list[Generation]:
    """Of a corpus, oldest first, dropped ones included."""
    with database.transaction() as connection:
        return corpora.read_generations(connection, corpus)


def other_generations(corpus: Corpus) -> list[Corpus]:
    """The generations of a corpus besides this one that still have a table."""
    return [
        opened(corpus.database, corpus.name, found)
        for found in list_generations(corpus.database, corpus.name)
        if found.name != corpus.generation and found.state != "dropped"
    ]


def differences(old: Corpus, new: Corpus) -> list[GenerationDifference]:
    """Documents that two generations hold differently."""
    with old.database.transaction() as connection:
        return corpora.generation_differences(connection, old.generation, new.generation)


def switch(old: Corpus, new: Corpus, looked_at: Collection[GenerationDifference]) -> bool:
    """Let readers see the new generation instead of the old one.

    Args:
        old: The current generation.
        new: The one that was filled.
        looked_at: Differences which are right: the new generation holds what the source does.

    Returns:
        Whether readers were moved. Not, if there are other differences than those: something was published meanwhile.

    Raises:
        GenerationRetiredError: The migration was aborted, or is done already.
        UnavailableError: Postgres does not answer. Readers see one of the two.
    """
    try:
        return _switch(old, new, looked_at)
    except UnavailableError:
        # COMMIT may have been done. Whoever reads the row with the lock knows.
        with new.database.transaction() as connection:
            if lock(connection, new).state == "current":
                return True
        raise


def _switch(old: Corpus, new: Corpus, looked_at: Collection[GenerationDifference]) -> bool:
    with old.database.transaction() as connection:
        with boundary(Boundary.LOCK_TAKEN):
            rows = corpora.lock_generations(connection, [old.generation, new.generation])
        if (rows[old.generation].state, rows[new.generation].state) != ("current", "building"):
            raise GenerationRetiredError(
                f"Corpus {old.name!r} is no longer being moved from {old.generation} to {new.generation}"
            )
        if set(corpora.generation_differences(connection, old.generation, new.generation)) - set(looked_at):
            return False
        _end_sagas(connection, old, f"readers moved to generation {new.generation}")
        with boundary(Boundary.GENERATION_MOVED):
            corpora.set_state(connection, old.generation, "retired")
            corpora.set_state(connection, new.generation, "current")
            corpora.mark_unreported(connection, new.generation)
    return True


def resume(corpus: Corpus, current: str) -> None:
    """Begin to fill a generation again that was left.

    Args:
        corpus: The generation.
        current: Name of the current one, whose lock orders migrations.
    """
    _move(corpus, "retired", "building", also_lock=[current])


def abort(corpus: Corpus) -> None:
    """Stop filling a generation: its writers are fenced, and nothing more is bought. It is kept for a while.

    Raises:
        GenerationRetiredError: It is not being filled: it was aborted before, or readers see it.
    """
    _move(corpus, "building", "retired")


def drop(corpus: Corpus) -> None:
    """Delete a generation that was left: its rows at once, then its table. What it cost stays in the ledger.

    Raises:
        GenerationRetiredError: It is current, or being filled.
        OtherDatabaseError: The table is written by another database, or this one is older than it.
        TableUnavailableError: The storage failed. The next sweep deletes what is left of the table.
    """
    if corpus.table.exists():
        check_writable(corpus)
    with corpus.database.transaction() as connection:
        row = lock(connection, corpus)
        if row.state not in ("retired", "dropped"):
            raise GenerationRetiredError(f"Generation {corpus.generation!r} is {row.state}, and cannot be dropped")
        _end_sagas(connection, corpus, "the generation was dropped")
        corpora.forget_generation(connection, corpus.generation)
        with boundary(Boundary.GENERATION_MOVED):
            corpora.set_state(connection, corpus.generation, "dropped")
    corpus.table.drop(owner=corpus.owner)


def drop_retired(corpus: Corpus, *, kept: timedelta = KEPT) -> list[str]:
    """Drop the generations that were left longer ago than they are kept, and finish drops that died; returns them.

    Raises:
        UnavailableError: One of the stores does not answer.
    """
    dropped: list[str] = []
    with corpus.database.transaction() as connection:
        now = sagas.clock(connection)
        rows = corpora.read_generations(connection, corpus.name)
    for found in rows:
        age = now - found.state_since
        if found.state == "retired" and age >= kept:
            drop(opened(corpus.database, corpus.name, found))
            dropped.append(found.name)
        elif found.state == "dropped" and age < 2 * KEPT:
            # A writer that did not know yet may have written a file since.
            given_up = opened(corpus.database, corpus.name, found)
            with suppress(NotOurTableError):  # something else uses the folder since
                given_up.table.drop(owner=given_up.owner)
    return dropped


def _move(corpus: Corpus, before: GenerationState, after: GenerationState, *, also_lock: Collection[str] = ()) -> None:
    with corpus.database.transaction() as connection:
        with boundary(Boundary.LOCK_TAKEN):
            row = corpora.lock_generations(connection, [corpus.generation, *also_lock]).get(corpus.generation)
        if row is None:
            raise ConfigurationError(f"Generation {corpus.generation!r} is gone from the database")
        if row.state != before:
            raise GenerationRetiredError(f"Generation {corpus.generation!r} is {row.state}, not {before}")
        _end_sagas(connection, corpus, f"the generation was {before} and is {after} now")
        with boundary(Boundary.GENERATION_MOVED):
            corpora.set_state(connection, corpus.generation, after)


def _end_sagas(connection: Connection, corpus: Corpus, error: str) -> None:
    for saga in sagas.abandon_live(connection, corpus.generation, error):
        documents.forget_documents(connection, saga)


def opened(database: Database, corpus: str, found: Generation) -> Corpus:
    """A generation of a corpus, whatever its state."""
    table = LanceTable(found.table_uri, storage_options(found.table_uri))
    return Corpus(found.name, database, table, corpus, found.state)
