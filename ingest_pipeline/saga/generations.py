"""Move a corpus from one generation to another, and drop the generation that was retired.

A generation is one table with its head, sagas and catalog rows, made with one embedding model. Readers see the current
one. Re-embedding fills a second one by ordinary publications, which no reader sees. Then the switch happens:

    BEGIN; lock the rows of both, so that no publication is in progress in either
    compare their documents; stop if there is an unexplained difference
    end the unfinished sagas of the old one, which fences their writers
    the old one becomes retired, the new one current
    COMMIT

A writer that still uses the old generation finds it retired when it takes the lock, and publishes nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta

from ingest_pipeline.corpus.corpus import Corpus, open_table
from ingest_pipeline.corpus.opening import check_writable
from ingest_pipeline.errors import ConfigurationError, GenerationRetiredError, NotOurTableError, UnavailableError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.postgres.catalog import corpora, prepared_documents
from ingest_pipeline.postgres.catalog.corpora import Generation, GenerationDifference, GenerationState
from ingest_pipeline.postgres.database import Connection, Database
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.saga.reconcile import lock

# Equal to the time for which vectors of a failed saga are kept, so that a return within this time costs nothing.
KEPT = timedelta(days=7)


def list_generations(database: Database, corpus: str) -> list[Generation]:
    """The generations of a corpus, oldest first, including dropped ones."""
    with database.transaction() as connection:
        return corpora.read_generations(connection, corpus)


def other_generations(corpus: Corpus) -> list[Corpus]:
    """The generations of a corpus besides this one that still have a table."""
    return [
        opened(corpus.database, corpus.name, found)
        for found in list_generations(corpus.database, corpus.name)
        if found.name != corpus.generation and found.state != GenerationState.DROPPED
    ]


def differences(old: Corpus, new: Corpus) -> list[GenerationDifference]:
    """The documents that differ between two generations."""
    with old.database.transaction() as connection:
        return corpora.generation_differences(connection, old.generation, new.generation)


def switch(old: Corpus, new: Corpus, accepted: Collection[GenerationDifference]) -> bool:
    """Let readers see the new generation instead of the old one.

    Args:
        old: The current generation.
        new: The one that was filled.
        accepted: Accepted differences: the new generation equals the source in these documents.

    Returns:
        Whether readers were moved. False if there are other differences, because something was published meanwhile.

    Raises:
        GenerationRetiredError: The re-embedding was aborted, or is done already.
        UnavailableError: Postgres does not answer. Readers see one of the two generations.
    """
    try:
        return _switch(old, new, accepted)
    except UnavailableError:
        # COMMIT may have succeeded. Reading the row under the lock shows whether it did.
        with new.database.transaction() as connection:
            if lock(connection, new).state == GenerationState.CURRENT:
                return True
        raise


def _switch(old: Corpus, new: Corpus, accepted: Collection[GenerationDifference]) -> bool:
    with old.database.transaction() as connection:
        with boundary(Boundary.LOCK_TAKEN):
            rows = corpora.lock_generations(connection, [old.generation, new.generation])
        if (rows[old.generation].state, rows[new.generation].state) != (
            GenerationState.CURRENT,
            GenerationState.BUILDING,
        ):
            raise GenerationRetiredError(
                f"Corpus {old.name!r} is no longer being moved from {old.generation} to {new.generation}"
            )
        if set(corpora.generation_differences(connection, old.generation, new.generation)) - set(accepted):
            return False
        _end_sagas(connection, old, f"readers moved to generation {new.generation}")
        with boundary(Boundary.GENERATION_MOVED):
            corpora.set_state(connection, old.generation, GenerationState.RETIRED)
            corpora.set_state(connection, new.generation, GenerationState.CURRENT)
            corpora.mark_unreported(connection, new.generation)
    return True


def resume(corpus: Corpus, current: str) -> None:
    """Begin to fill a retired generation again.

    Args:
        corpus: The generation.
        current: Name of the current generation, whose lock serializes re-embeddings.
    """
    _move(corpus, GenerationState.RETIRED, GenerationState.BUILDING, also_lock=[current])


def abort(corpus: Corpus) -> None:
    """Stop filling a generation: its writers are fenced, and nothing more is embedded. It is kept for a while.

    Raises:
        GenerationRetiredError: The generation is not being filled: it was aborted before, or is current.
    """
    _move(corpus, GenerationState.BUILDING, GenerationState.RETIRED)


def drop(corpus: Corpus) -> None:
    """Delete a retired generation: its rows at once, then its table. Its costs stay in the ledger.

    Raises:
        GenerationRetiredError: The generation is current, or is being filled.
        OtherDatabaseError: The table is written by another database, or is newer than this database.
        TableUnavailableError: The storage failed. The next sweep deletes the rest of the table.
    """
    if corpus.table.exists():
        check_writable(corpus)
    with corpus.database.transaction() as connection:
        row = lock(connection, corpus)
        if row.state not in (GenerationState.RETIRED, GenerationState.DROPPED):
            raise GenerationRetiredError(f"Generation {corpus.generation!r} is {row.state}, and cannot be dropped")
        _end_sagas(connection, corpus, "the generation was dropped")
        corpora.forget_generation(connection, corpus.generation)
        with boundary(Boundary.GENERATION_MOVED):
            corpora.set_state(connection, corpus.generation, GenerationState.DROPPED)
    corpus.table.drop(owner=corpus.owner)


def drop_retired(corpus: Corpus, *, kept: timedelta = KEPT) -> list[str]:
    """Drop generations that were retired long enough ago, and finish interrupted drops. Returns their names.

    Raises:
        UnavailableError: One of the stores does not answer.
    """
    dropped: list[str] = []
    with corpus.database.transaction() as connection:
        now = sagas.clock(connection)
        rows = corpora.read_generations(connection, corpus.name)
    for found in rows:
        age = now - found.state_since
        match found.state:
            case GenerationState.RETIRED if age >= kept:
                drop(opened(corpus.database, corpus.name, found))
                dropped.append(found.name)
            case GenerationState.DROPPED if age < 2 * KEPT:
                # A writer that did not notice the retirement may have written a file since.
                retired = opened(corpus.database, corpus.name, found)
                with suppress(NotOurTableError):  # something else uses the folder by now
                    retired.table.drop(owner=retired.owner)
            case _:
                pass
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
        prepared_documents.forget_documents(connection, saga)


def opened(database: Database, corpus: str, found: Generation) -> Corpus:
    """Open a generation of a corpus in any state."""
    table = open_table(database, found.name, found.table_uri)
    return Corpus(found.name, database, table, corpus, found.state)
