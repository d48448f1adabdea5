"""Relocation: points a corpus to tables, a source or a model that were moved or renamed.

Nothing is copied and nothing is embedded. A table at a new location must be complete and be the one that head names. A
copy that is older than head, a table of another corpus, and an incomplete copy are refused. Then head's content is
published once more there, by a saga of its own. The old copy lacks that version, and is refused from then on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ingest_pipeline.corpus.corpus import Corpus, open_table
from ingest_pipeline.corpus.head_manifest import install_head, install_published
from ingest_pipeline.corpus.table_identity import check_holds_head
from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.errors import (
    ConfigurationError,
    ConflictError,
    CorpusMismatchError,
    NotOurTableError,
    TableUnavailableError,
)
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.storage import table_uri
from ingest_pipeline.lance.versions.store_check import check_store
from ingest_pipeline.postgres.catalog import corpora, documents, prepared_documents
from ingest_pipeline.postgres.catalog.binding import binding_of, rebind
from ingest_pipeline.postgres.catalog.corpora import GenerationRow, GenerationState
from ingest_pipeline.postgres.database import Connection, Database
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.saga.reconcile import lock, restore_as_head, versions_above
from ingest_pipeline.types import Recipe, Vector, counted, split_embedding

_MAX_NAMED_FILES = 3
# Vectors of one model from two endpoints differ by rounding only.
_MIN_COSINE = 0.99


@dataclass(frozen=True, slots=True)
class Renamed:
    """Number of documents whose model was renamed, and of the others."""

    documents: int
    """Documents at head whose recipe now has the new name."""
    of_other_recipes: int
    """Documents at head with another recipe, which was not renamed. They differ from the settings as before."""


def move_tables(database: Database, corpus: str, folder: str) -> list[str]:
    """Point a corpus to its tables in another folder, to which they were copied or moved.

    Args:
        database: The database of the catalog.
        corpus: The name of the corpus.
        folder: The folder of the tables: a path or an object-store URL.

    Returns:
        The URIs of the tables there.

    Raises:
        ConfigurationError: There is no such corpus.
        OtherDatabaseError: A table there has publications that this database does not know. Nothing was changed.
        NotOurTableError, CorpusMismatchError: A table is incomplete or not the one of head. Nothing was changed.
        UnsafeStoreError: The object store there does not refuse to overwrite a version. Nothing was changed.
        TableUnavailableError: There is no table, or the storage does not answer. Nothing was changed.
        ConflictError: Another writer published meanwhile. Nothing was changed.
    """
    with database.transaction() as connection:
        found = corpora.living_generations(connection, corpus)
    if not any(row.state == GenerationState.CURRENT for row in found):
        raise ConfigurationError(f"There is no corpus {corpus!r}", "`ingest-pipeline corpora` lists the existing ones.")
    copies = [(row, there) for row in found if (there := _copy_in(database, folder, row)) is not None]
    for row, there in copies:
        if row.table_uri != there.table.uri:
            _check_copy(there, row)  # before the lock: files are listed, and versions never change
    for there, moved in _move_all(database, corpus, copies):
        install_published(there.table, moved)
    return [there.table.uri for _, there in copies]


def _move_all(
    database: Database, corpus: str, copies: Sequence[tuple[GenerationRow, Corpus]]
) -> list[tuple[Corpus, GenerationRow]]:
    moved: list[tuple[Corpus, GenerationRow]] = []
    with database.transaction() as connection:
        with boundary(Boundary.LOCK_TAKEN):
            rows = corpora.lock_generations(connection, [row.name for row, _ in copies])
        for row, there in copies:
            if rows[row.name] != row:
                raise ConflictError(
                    f"A writer published to corpus {corpus!r} while the copy of its table was checked. Nothing was "
                    "changed",
                    f"Stop all writers, copy {row.table_uri} again, and run the command again.",
                )
            if row.table_uri != there.table.uri:
                moved.append((there, _move_table(connection, there, row)))
    return moved


def _copy_in(database: Database, folder: str, row: GenerationRow) -> Corpus | None:
    """A generation with its table in a folder. None if the generation is retired and its table is not there."""
    uri = table_uri(folder, row.name)
    table = open_table(database, row.name, uri)
    if table.exists():
        return Corpus(row.name, database, table, row.corpus, row.state)
    if row.state == GenerationState.RETIRED:
        return None
    raise TableUnavailableError(
        f"There is no LanceDB table at {uri}. Nothing was changed", f"Copy or move {row.table_uri} there first."
    )


def _move_table(connection: Connection, there: Corpus, row: GenerationRow) -> GenerationRow:
    for ended in sagas.abandon_live(connection, row.name, f"the table was moved to {there.table.uri}"):
        prepared_documents.forget_documents(connection, ended)
    with boundary(Boundary.RELOCATED):
        rebind(connection, row.name, replace(binding_of(row), table_uri=there.table.uri))
    moved = replace(row, table_uri=there.table.uri)
    return restore_as_head(connection, there, moved, content=row.head_version)


def _check_copy(there: Corpus, row: GenerationRow) -> None:
    """Check that a table contains head, made by the saga that head names, and that none of its files is missing."""
    uri = there.table.uri
    if not (there.table.owner or "").endswith(f"/{there.generation}"):
        raise NotOurTableError(f"The LanceDB table at {uri} was not created by corpus {row.corpus!r}")
    install_head(there.table, row)
    latest = there.table.latest_version()
    if latest < row.head_version:
        raise CorpusMismatchError(
            f"The LanceDB table at {uri} is an older copy: its latest version is {latest}, but head of corpus "
            f"{row.corpus!r} is {row.head_version}. Nothing was changed",
            f"Stop all writers, copy {row.table_uri} again, and run the command again.",
        )
    above = versions_above(there, row)
    if there.table.saga_of(row.head_version) != row.head_saga or None in above.values():
        raise CorpusMismatchError(
            f"The LanceDB table at {uri} is another copy: its version {row.head_version} is not the one that corpus "
            f"{row.corpus!r} published, or another program has written to the copy since. Nothing was changed",
            f"Stop all writers, copy {row.table_uri} again, and run the command again.",
        )
    with there.database.transaction() as connection:
        check_holds_head(connection, row, there.table)
    missing = sorted(there.table.tracked_files() - there.table.all_files())
    if missing:
        raise CorpusMismatchError(
            f"The LanceDB table at {uri} lacks {counted(len(missing), 'file')} of its versions, among them "
            f"{', '.join(missing[:_MAX_NAMED_FILES])}. Nothing was changed",
            f"Copy {row.table_uri} again, and run the command again.",
        )
    check_store(uri)
    there.table.flush()


def move_source(corpus: Corpus, url: str) -> None:
    """Point a corpus to another source. Writers that use the old source are refused when they publish.

    Args:
        corpus: The current generation.
        url: The url of the source, in the form that `canonical_url` returns.
    """
    with corpus.database.transaction() as connection:
        lock(connection, corpus)
        for row in corpora.living_generations(connection, corpus.name):
            with boundary(Boundary.RELOCATED):
                rebind(connection, row.name, replace(binding_of(row), source=url))


def rename_model(corpus: Corpus, recipe: Recipe, model: str) -> Renamed:
    """Give the embedding model of a corpus another name that means the same vectors.

    All records under the old name get the new one, so nothing is embedded again: the recipe of documents, failures
    and holds, and the answers and batch jobs of the API.

    Args:
        corpus: The current generation.
        recipe: The recipe of the settings, with the model that the corpus has.
        model: The new name of the model.

    Raises:
        CorpusMismatchError: No document at head was made by this recipe. Nothing was changed.
    """
    new = replace(recipe, embedding_model=model)
    with corpus.database.transaction() as connection:
        row = lock(connection, corpus)
        if row.embedding != recipe.embedding:
            raise CorpusMismatchError(
                f"Corpus {row.corpus!r} has vectors of {row.embedding}, not of {recipe.embedding}. Nothing was changed",
                "Run the command again.",
            )
        made, others = documents.count_recipe(connection, corpus.generation, recipe)
        if others and not made:
            raise CorpusMismatchError(
                f"No document of corpus {row.corpus!r} ({others}) was ingested with these settings, so their "
                "recipe cannot be renamed. Nothing was changed",
                "Set INGEST_CHUNK_SIZE and INGEST_CHUNK_OVERLAP to the values of these documents.",
            )
        with boundary(Boundary.RELOCATED):
            rebind(connection, corpus.generation, replace(binding_of(row), embedding=new.embedding))
            corpora.rename_recipe(connection, corpus.generation, recipe, new)
    return Renamed(made, others)


async def check_model(corpus: Corpus, embedder: EmbeddingClient) -> None:
    """Check that an embedder computes the published vector of one text at head. The API bills that text.

    Raises:
        CorpusMismatchError: The embedder computes another vector, so its model differs. Nothing was changed.
        UnavailableError: The API or the table does not answer.
    """
    found = await asyncio.to_thread(_any_row, corpus)
    if found is None:
        return
    text, published = found
    answer = await embedder.embed([text])
    made = answer.vectors[0]
    likeness = float(np.dot(made, published) / (np.linalg.norm(made) * np.linalg.norm(published)))
    if not likeness >= _MIN_COSINE:
        raise CorpusMismatchError(
            f"Model {embedder.settings.model!r} computes another vector for a text of corpus {corpus.name!r} (cosine "
            f"similarity {likeness:.3f}), so the model is not the same. Nothing was changed",
            "To change the model of a corpus, run `ingest-pipeline reembed`.",
        )


def _any_row(corpus: Corpus) -> tuple[str, Vector] | None:
    for batch in corpus.table.batches(corpus.head().head_version, ["text", "vector"], batch_size=1):
        for row in batch.to_pylist():
            return str(row["text"]), np.asarray(row["vector"], dtype=np.float32)
    return None


def check_width(embedding: str | None, dimensions: int) -> str:
    """The name of a corpus' model, if its vectors have this width.

    Raises:
        CorpusMismatchError: The vectors have another width.
        ConfigurationError: The corpus is a table of the user's own and has no embedding.
    """
    if embedding is None:
        raise ConfigurationError("This is a table of your own, which has no embedding model. Nothing was changed")
    model, width, _ = split_embedding(embedding)
    if width != dimensions:
        raise CorpusMismatchError(
            f"The corpus has vectors of {width} dimensions, but the settings name {dimensions}. Nothing was changed",
            "Set INGEST_EMBEDDING_DIMENSIONS back. For another width, run `ingest-pipeline reembed`.",
        )
    return model
