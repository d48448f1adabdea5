"""A corpus at run time: its settings, its database and its table, and how it is read at head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from ingest_pipeline.columns.declaration import NO_COLUMNS, Columns
from ingest_pipeline.corpus.head_manifest import install_head
from ingest_pipeline.errors import ConfigurationError, GenerationRetiredError
from ingest_pipeline.lance.storage import storage_options, table_uri
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.postgres.catalog import corpora, history
from ingest_pipeline.postgres.catalog.binding import Binding, binding_of
from ingest_pipeline.postgres.catalog.corpora import GenerationRow, GenerationState
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.types import table_name


@dataclass(frozen=True, slots=True)
class CorpusSettings:
    """The settings with which a corpus is created and must be opened."""

    generation: str
    """Name of the generation, and of its LanceDB table."""
    table_uri: str
    """Folder of the Lance dataset."""
    schema: pa.Schema
    source: str | None = None
    """URL of the documents. None: a user of the library manages the rows."""
    partition_by: str | None = None
    embedding: str | None = None
    """Model and dimensions of the vectors."""
    corpus_name: str | None = None
    """Name of the corpus, if it differs from the name of the generation."""
    columns: Columns = NO_COLUMNS
    """The user's columns, which a corpus gets whatever columns it has."""
    state: GenerationState = GenerationState.CURRENT
    """The state in which the generation is created, and which the writer expects."""

    @classmethod
    def of_table(cls, folder: str, name: str, schema: pa.Schema) -> CorpusSettings:
        """The settings of a table whose rows a user of the library manages.

        Args:
            folder: Folder of the LanceDB tables.
            name: Name of the table.
            schema: Its columns.

        Raises:
            ConfigurationError: The name cannot be that of a table.
        """
        return cls(table_name(name), table_uri(folder, name), schema)

    @property
    def corpus(self) -> str:
        """Name of the corpus."""
        return self.corpus_name or self.generation

    @property
    def binding(self) -> Binding:
        """The part of these settings that the catalog records."""
        return Binding(self.table_uri, self.source, self.partition_by, self.embedding)

    def named(self, name: str) -> CorpusSettings:
        """The same settings for a generation of another name, whose table is in the same parent folder."""
        if name == self.generation:
            return self
        folder = self.table_uri.rpartition("/")[0]
        return replace(self, generation=name, corpus_name=self.corpus, table_uri=table_uri(folder, name))


@dataclass(frozen=True, slots=True)
class Corpus:
    """An open generation of a corpus. Most corpora have one generation, with the name of the corpus."""

    generation: str
    """Name of the open generation: the key of its rows in the ledger and the catalog, and of its LanceDB table."""
    database: Database
    table: LanceTable
    name: str
    """Name of the corpus to its users and readers."""
    opened_as: GenerationState = GenerationState.CURRENT
    opened_with: Binding | None = None
    """The settings that a writer expects in the catalog. None: it expects only the table."""
    pinned_version: int | None = None
    """The version that a reader sees as head. None: head itself."""

    @property
    def owner(self) -> str:
        """The owner that is recorded in the table of this generation."""
        return f"{self.database.installation}/{self.generation}"

    def exists(self) -> bool:
        """Whether the catalog has the corpus. Its first ingest creates it."""
        with self.database.transaction() as connection:
            return corpora.read_generation(connection, self.generation) is not None

    def is_retained(self, version: int) -> bool:
        """Whether the ledger keeps a version, so that retention and erasures do not remove it."""
        return _is_retained(self.database, self.generation, version)

    def head(self) -> GenerationRow:
        """The generation's row, with the version that readers may see, which is in the table.

        Raises:
            ForeignWriteError: Another writer made a version of the same number.
        """
        row = self.row()
        install_head(self.table, row)
        return row if self.pinned_version is None else replace(row, head_version=self.pinned_version)

    def row(self) -> GenerationRow:
        """The generation's row. The table is not accessed."""
        with self.database.transaction() as connection:
            row = corpora.read_generation(connection, self.generation)
        if row is None:
            raise ConfigurationError(
                f"Corpus {self.generation!r} is gone from the database", "Ingest it again to create it."
            )
        return row

    def check_generation(self, row: GenerationRow) -> None:
        """Refuse to write if the generation was retired, or the corpus got other settings, since the writer opened it.

        Raises:
            GenerationRetiredError: Readers would not see the publication, or it would not match the settings.
        """
        if row.state not in (self.opened_as, GenerationState.CURRENT):
            raise GenerationRetiredError(
                f"Generation {self.generation!r} of corpus {self.name!r} was retired while a saga was active. "
                "Nothing was published"
            )
        self.check_table(row)
        if self.opened_with not in (None, binding_of(row)):
            raise GenerationRetiredError(
                f"Corpus {self.name!r} got another source, partition scheme or embedding while a saga was active. "
                "Nothing was published"
            )

    def check_table(self, row: GenerationRow) -> None:
        """Refuse to work on a table that the corpus no longer uses.

        Raises:
            GenerationRetiredError: The corpus has another table now.
        """
        if row.table_uri != self.table.uri:
            raise GenerationRetiredError(
                f"The table of corpus {self.name!r} was moved from {self.table.uri} to {row.table_uri} while a "
                "process was using it. Nothing was changed"
            )


def open_table(database: Database, generation: str, uri: str) -> LanceTable:
    """The table of a generation, at any URI. It knows from the ledger which of its versions are kept.

    Args:
        database: Database of the ledger.
        generation: The generation, which the ledger need not know yet.
        uri: Folder of the dataset.
    """
    return LanceTable(uri, storage_options(uri), partial(_is_retained, database, generation))


def _is_retained(database: Database, generation: str, version: int) -> bool:
    with database.transaction() as connection:
        return history.is_retained(connection, generation, version)
