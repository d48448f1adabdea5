"""Letting a corpus follow what was moved or renamed outside: its tables, its source, or the name of its model.

Nothing is copied and nothing is bought. A table at a new place must be the one that head names, whole; so a copy that
is older than head, somebody else's table or half a copy is refused. Then head's content is published once more, there,
by a saga of its own: the copy that was left behind lacks that version, and is refused from then on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.corpus.table_identity import check_holds_head
from ingest_pipeline.embedding.base import Embedder
from ingest_pipeline.errors import (
    ConfigurationError,
    ConflictError,
    CorpusMismatchError,
    NotOurTableError,
    TableUnavailableError,
)
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.storage import storage_options
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.postgres import catalog, generations, ledger
from ingest_pipeline.postgres.binding import binding_of
from ingest_pipeline.postgres.catalog import GenerationRow
from ingest_pipeline.postgres.database import Connection, Database
from ingest_pipeline.saga.heartbeat import fail
from ingest_pipeline.saga.reconcile import begin_restore, lock, restore_as_head, versions_above
from ingest_pipeline.types import Recipe, Vector, split_embedding

_NAMED = 3
# Endpoints of one model differ in the last digits, and in how they round.
_SAME = 0.99


@dataclass(frozen=True, slots=True)
class Renamed:
    """How many rows carry another name of the model now."""

    documents: int
    """At head."""
    of_other_recipes: int
    """At head, made by another recipe than the one that was renamed; they differ from the settings as before."""


def move_tables(database: Database, corpus: str, folder: str) -> list[str]:
    """Let a corpus have its tables in another folder, into which they were copied or moved.

    Args:
        database: Where the catalog is.
        corpus: Name of the corpus.
        folder: Of the tables: a path or an object-store url.

    Returns:
        Uris of the tables there.

    Raises:
        ConfigurationError: There is no such corpus.
        OtherDatabaseError: A table there holds more than this database knows. Nothing was changed.
        NotOurTableError, CorpusMismatchError: A table there is not what head names, or not whole. Nothing was changed.
        TableUnavailableError: There is no table, or the storage does not answer. Nothing was changed.
        ConflictError: Something was published meanwhile. Nothing was changed.
    """
    with database.transaction() as connection:
        found = generations.living(connection, corpus)
    if not any(row.state == "current" for row in found):
        raise ConfigurationError(f"There is no corpus {corpus!r}", "`ingest-pipeline corpora` lists those there are.")
    copies = [(row, there) for row in found if (there := _copy_in(database, folder, row)) is not None]
    for row, there in copies:
        if row.table_uri != there.table.uri:
            _check_copy(there, row)  # before the lock: files are listed, and versions never change
    with database.transaction() as connection:
        sagas = {
            row.name: begin_restore(connection, there, row) for row, there in copies if row.table_uri != there.table.uri
        }
    try:
        _move_all(database, corpus, copies, sagas)
    except BaseException as error:
        for row, there in copies:
            if row.name in sagas:
                fail(there, sagas[row.name], error)
        raise
    return [there.table.uri for _, there in copies]


def _move_all(
    database: Database, corpus: str, copies: Sequence[tuple[GenerationRow, Corpus]], sagas: Mapping[str, UUID]
) -> None:
    with database.transaction() as connection:
        with boundary(Boundary.LOCK_TAKEN):
            rows = generations.lock_generations(connection, [row.name for row, _ in copies])
        for row, there in copies:
            if rows[row.name] != row:
                raise ConflictError(
                    f"Corpus {corpus!r} was published to while the copy of its table was looked at",
                    f"Nothing was changed. Stop all writers, copy {row.table_uri} again, and run the command again.",
                )
            if row.name in sagas:
                _move_table(connection, there, row, sagas[row.name])


def _copy_in(database: Database, folder: str, row: GenerationRow) -> Corpus | None:
    """A generation with its table in a folder. One that readers left may stay where it is until it is dropped."""
    uri = f"{folder.rstrip('/')}/{row.name}.lance"
    table = LanceTable(uri, storage_options(uri))
    if table.exists():
        return Corpus(row.name, database, table, row.corpus, row.state)
    if row.state == "retired":
        return None
    raise TableUnavailableError(
        f"There is no LanceDB table at {uri}. Nothing was changed", f"Copy or move {row.table_uri} there first."
    )


def _move_table(connection: Connection, there: Corpus, row: GenerationRow, saga: UUID) -> None:
    for ended in ledger.abandon_live(connection, row.name, f"the table was moved to {there.table.uri}", keep=[saga]):
        catalog.forget_documents(connection, ended)
    with boundary(Boundary.RELOCATED):
        generations.rebind(connection, row.name, replace(binding_of(row), table_uri=there.table.uri))
    moved = replace(row, table_uri=there.table.uri)
    latest = there.table.latest_version()
    restore_as_head(connection, there, moved, content=row.head_version, latest=latest, saga=saga)


def _check_copy(there: Corpus, row: GenerationRow) -> None:
    """Demand that a table holds head, made by the saga that head names, and that no file of it is missing."""
    uri = there.table.uri
    if not (there.table.owner or "").endswith(f"/{there.generation}"):
        raise NotOurTableError(f"The LanceDB table at {uri} is not the one that corpus {row.corpus!r} made")
    latest = there.table.latest_version()
    if latest < row.head_version:
        raise CorpusMismatchError(
            f"The LanceDB table at {uri} ends at version {latest}, and head of corpus {row.corpus!r} is "
            f"{row.head_version}: it is an older copy. Nothing was changed",
            f"Stop all writers, copy {row.table_uri} again, and run the command again.",
        )
    above = versions_above(there, row)
    if there.table.saga_of(row.head_version) != row.head_saga or None in above.values():
        raise CorpusMismatchError(
            f"The LanceDB table at {uri} is another copy: its version {row.head_version} was made by another saga than "
            f"the one that corpus {row.corpus!r} names, or something else wrote to it since. Nothing was changed",
            f"Stop all writers, copy {row.table_uri} again, and run the command again.",
        )
    with there.database.transaction() as connection:
        check_holds_head(connection, row, there.table)
    missing = sorted(there.table.tracked_files() - there.table.all_files())
    if missing:
        raise CorpusMismatchError(
            f"The LanceDB table at {uri} lacks {len(missing)} files of its versions, among them "
            f"{', '.join(missing[:_NAMED])}. Nothing was changed",
            f"Copy {row.table_uri} again, and run the command again.",
        )


def move_source(corpus: Corpus, url: str) -> None:
    """Let a corpus have its documents from another place. Writers that work from the old one publish nothing more.

    Args:
        corpus: The current generation.
        url: As `source.canonical_url` spells it.
    """
    with corpus.database.transaction() as connection:
        lock(connection, corpus)
        for row in generations.living(connection, corpus.name):
            with boundary(Boundary.RELOCATED):
                generations.rebind(connection, row.name, replace(binding_of(row), source=url))


def rename_model(corpus: Corpus, recipe: Recipe, model: str) -> Renamed:
    """Let a corpus know its embedding model by another name that means the same vectors.

    What was recorded under the old name is recorded under the new one from then on, so nothing is bought again: the
    recipe of documents, of failures and of holds, and the answers and bulk orders of the API.

    Args:
        corpus: The current generation.
        recipe: Of the settings, with the model that the corpus has.
        model: Its new name.

    Raises:
        CorpusMismatchError: No document at head was made by this recipe. Nothing was changed.
    """
    new = replace(recipe, embedding_model=model)
    with corpus.database.transaction() as connection:
        row = lock(connection, corpus)
        if row.embedding != recipe.embedding:
            raise CorpusMismatchError(
                f"Corpus {row.corpus!r} holds vectors of {row.embedding}, not of {recipe.embedding}",
                "Run the command again. Nothing was changed.",
            )
        documents, others = catalog.count_recipe(connection, corpus.generation, recipe.fingerprint)
        if others and not documents:
            raise CorpusMismatchError(
                f"None of the {others} documents of corpus {row.corpus!r} was made with these settings, so what is "
                "recorded of them cannot be renamed",
                "Set INGEST_CHUNK_SIZE and INGEST_CHUNK_OVERLAP to what the documents were made with. Nothing was "
                "changed.",
            )
        with boundary(Boundary.RELOCATED):
            generations.rebind(connection, corpus.generation, replace(binding_of(row), embedding=new.embedding))
            generations.rename_recipe(connection, corpus.generation, recipe, new)
    return Renamed(documents, others)


async def check_model(corpus: Corpus, embedder: Embedder) -> None:
    """Demand that an embedder makes of one text at head what the corpus holds of it. That text is paid for.

    Raises:
        CorpusMismatchError: It makes another vector: another model. Nothing was changed.
        UnavailableError: The API or the table does not answer.
    """
    found = await asyncio.to_thread(_any_row, corpus)
    if found is None:
        return
    text, held = found
    answer = await embedder.embed([text])
    made = answer.vectors[0]
    likeness = float(np.dot(made, held) / (np.linalg.norm(made) * np.linalg.norm(held)))
    if not likeness >= _SAME:
        raise CorpusMismatchError(
            f"Of a text that corpus {corpus.name!r} holds, {embedder.settings.model!r} makes another vector "
            f"(cosine similarity {likeness:.3f}), so it is another model",
            "`ingest-pipeline reembed` moves a corpus to another model. Nothing was changed.",
        )


def _any_row(corpus: Corpus) -> tuple[str, Vector] | None:
    for batch in corpus.table.batches(corpus.head().head_version, ["text", "vector"], batch_size=1):
        for row in batch.to_pylist():
            return str(row["text"]), np.asarray(row["vector"], dtype=np.float32)
    return None


def check_width(embedding: str | None, dimensions: int) -> str:
    """The name of a corpus' model, if its vectors have that width.

    Raises:
        CorpusMismatchError: They have not.
        ConfigurationError: The corpus has no embedding, because its rows are a user's own.
    """
    if embedding is None:
        raise ConfigurationError("The rows of this table are not embedded by ingest-pipeline", "Nothing was changed.")
    model, width = split_embedding(embedding)
    if width != dimensions:
        raise CorpusMismatchError(
            f"The corpus holds vectors of {width} dimensions, and the settings say {dimensions}",
            "Set INGEST_EMBEDDING_DIMENSIONS back. To get another width, run `ingest-pipeline reembed`. Nothing was "
            "changed.",
        )
    return model
