"""A corpus at run time: its name, its database and its table; how it is created, found again, and read at head."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import pyarrow as pa
from psycopg.errors import CheckViolation, UniqueViolation

from ingest_pipeline import catalog, ledger
from ingest_pipeline.catalog import CorpusRow, GenerationState
from ingest_pipeline.database import Database
from ingest_pipeline.errors import (
    ConfigurationError,
    ConflictError,
    CorpusMismatchError,
    GenerationLeftError,
    NotOurTableError,
    TableInUseError,
)
from ingest_pipeline.lance_table import LanceTable


@dataclass(frozen=True, slots=True)
class CorpusSettings:
    """What a corpus is created with and must be opened with."""

    name: str
    """Of the generation, and of its LanceDB table."""
    table_uri: str
    """Folder of the Lance dataset."""
    schema: pa.Schema
    source: str | None = None
    """Url of the documents. None: a user of the library manages the rows."""
    partition_by: str | None = None
    embedding: str | None = None
    """Model and dimensions of the vectors."""
    storage_options: dict[str, str] | None = None
    known_as: str | None = None
    """Name of the corpus, if the generation's is another."""
    state: GenerationState = "current"
    """What the generation is created as, and the writer takes it for."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """An open generation of a corpus. Most corpora only ever have the one that bears their name."""

    name: str
    """Of the generation: the key of its rows in the ledger and the catalog."""
    database: Database
    table: LanceTable
    known_as: str
    """Name of the corpus to its users and readers."""
    opened_as: GenerationState = "current"

    def head(self) -> CorpusRow:
        """The version that readers may see."""
        with self.database.transaction() as connection:
            row = catalog.read_corpus(connection, self.name)
        if row is None:
            raise ConfigurationError(f"Corpus {self.name!r} is gone from the database", "Ingest it again to create it.")
        return row

    def check_generation(self, row: CorpusRow) -> None:
        """Refuse a writer whose generation readers have left, or that was given up, since it was opened.

        Raises:
            GenerationLeftError: It was. What the writer published would be seen by nobody.
        """
        if row.state not in (self.opened_as, "current"):
            raise GenerationLeftError(
                f"Generation {self.name!r} of corpus {self.known_as!r} was left while a saga worked on it; nothing was "
                "published"
            )


def open_corpus(database: Database, settings: CorpusSettings) -> Corpus:
    """Find the corpus, or create it with an empty table.

    Raises:
        CorpusMismatchError: It exists with another table, source, partition scheme, embedding or columns.
        ConfigurationError: The name does not serve.
        TableInUseError: Another corpus has the table.
        NotOurTableError: A table lies there that no corpus created.
        TableUnavailableError: The store does not answer.
    """
    with database.transaction() as connection:
        row = catalog.read_corpus(connection, settings.name)
    known_as = settings.known_as or settings.name
    table = LanceTable(settings.table_uri, settings.storage_options)
    corpus = Corpus(settings.name, database, table, known_as, settings.state)
    if row is None:
        row = _create(corpus, settings)
    _check(row, settings)
    owner = _owner(database, settings.name)
    if corpus.table.owner != owner:
        raise NotOurTableError(
            f"The LanceDB table at {settings.table_uri} is not the one that corpus {row.name!r} made"
        )
    _check_columns(corpus, settings)
    return corpus


def _create(corpus: Corpus, settings: CorpusSettings) -> CorpusRow:
    """Create table and corpus in one saga. A table left by a creation that died is empty, marked as ours, and taken."""
    saga = uuid.uuid4()
    expected = CorpusRow(
        settings.name,
        corpus.known_as,
        settings.state,
        settings.table_uri,
        settings.source,
        settings.partition_by,
        settings.embedding,
        1,
        saga,
    )
    owner = _owner(corpus.database, settings.name)
    try:
        with corpus.database.transaction() as connection:
            catalog.insert_corpus(connection, expected)
            ledger.begin(connection, corpus=settings.name, kind="create", base_version=0, saga=saga)
            version = corpus.table.create(settings.schema, owner=owner, saga=saga)
            catalog.move_head(connection, settings.name, version=version, saga=saga)
            ledger.mark_prepared(connection, saga)
            ledger.mark_published(connection, saga, base_version=0, version=version)
    except UniqueViolation as error:
        if error.diag.constraint_name in ("corpus_current", "corpus_filling"):
            raise ConflictError(f"Another migration of corpus {corpus.known_as!r} began at the same time") from error
        if error.diag.constraint_name != "corpus_pkey":
            raise TableInUseError(f"The LanceDB table at {settings.table_uri} belongs to another corpus") from error
    except CheckViolation as error:
        raise ConfigurationError(
            f"The corpus name {settings.name!r} must be lower-case letters, digits and underscores, beginning with a "
            "letter",
            "Choose another name. Nothing was created.",
        ) from error
    return corpus.head()


def _owner(database: Database, name: str) -> str:
    return f"{database.installation}/{name}"


def _check(row: CorpusRow, settings: CorpusSettings) -> None:
    for what, setting, there, wanted in (
        ("table", "it", row.table_uri, settings.table_uri),
        ("source", "INGEST_SOURCE (of a component: source)", row.source, settings.source),
        (
            "partition scheme",
            "INGEST_PARTITION_BY (of a component: partition_by)",
            row.partition_by,
            settings.partition_by,
        ),
        ("embedding", "it", row.embedding, settings.embedding),
    ):
        if there != wanted:
            raise CorpusMismatchError(
                f"Corpus {row.known_as!r} was created with {what} {there!r}, and the settings say {wanted!r}",
                f"Set {setting} back, or choose another corpus name for the new settings, under which all documents "
                "are ingested and paid for anew. Nothing was changed.",
            )


def _check_columns(corpus: Corpus, settings: CorpusSettings) -> None:
    """The table must have the columns of the settings. One whose rows a user manages may have more."""
    there = {field.name: field.type for field in corpus.table.schema}
    for field in settings.schema:
        if there.get(field.name) != field.type:
            raise CorpusMismatchError(
                f"Corpus {corpus.name!r} has a table whose column {field.name!r} is {there.get(field.name)}, and the "
                f"settings say {field.type}",
                "Set it back, or give the new settings a corpus name of their own. Nothing was changed.",
            )
