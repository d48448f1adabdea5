"""LanceDB tables as a resource. Writes are versioned transactions; a failure returns the table to the base version."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
from dagster import ConfigurableResource, ResourceDependency
from pydantic import Field

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.corpus import Corpus, CorpusSettings, open_table
from ingest_pipeline.corpus.head_manifest import install_head
from ingest_pipeline.corpus.opening import open_corpus
from ingest_pipeline.errors import ConfigurationError, CorpusMismatchError
from ingest_pipeline.ingestion.context import find_corpus, open_context
from ingest_pipeline.lance.storage import open_lancedb, table_uri
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres.catalog.corpora import read_current
from ingest_pipeline.resources.catalog import PostgresCatalogResource
from ingest_pipeline.saga.transaction import Transaction, transaction

if TYPE_CHECKING:
    from lancedb.table import Table


class VersionedLanceDBResource(ConfigurableResource[None]):
    """A folder of LanceDB tables whose published versions Postgres names.

    Write a table of your own like this, from an asset or from a script::

        lancedb = VersionedLanceDBResource(uri="s3://lake/lancedb", catalog=PostgresCatalogResource(url=...))

        with lancedb.transaction("products", schema) as change:
            change.delete("sku = 'A-1'")
            change.add(rows)
            change.execute("INSERT INTO price_change (sku) VALUES (%s)", ("A-1",))

    Readers of `head` see the table before or after the whole block, together with the inserted row. If anything fails
    or dies, the table returns to the version at which the block began.
    """

    uri: str = Field(description="Folder of the tables: a path or an object-store url.")
    catalog: ResourceDependency[PostgresCatalogResource]

    @contextmanager
    def transaction(self, table: str, schema: pa.Schema) -> Generator[Transaction]:
        """Open a transaction on a table of your own, which is created empty if it does not exist.

        Args:
            table: Name of the table: lower-case letters, digits and underscores.
            schema: The columns of the table.

        Raises:
            ConflictError: Another transaction was published during the block; run it again.
            CorpusMismatchError, TableInUseError, NotOurTableError: The name belongs to something else.
            UnavailableError: Postgres or the storage failed. Nothing was published, unless the message says
                that the outcome is in doubt and settled later.
        """
        with self._open(table, schema) as corpus, transaction(corpus) as change:
            yield change

    @contextmanager
    def head(self, table: str) -> "Generator[Table]":
        """Open a table as readers may see it: a LanceDB table, checked out at the published version.

        Raises:
            CorpusMismatchError: The table was published in another folder.
            ConfigurationError: No transaction ever created such a table.
        """
        with self.catalog.connect() as database:
            with database.transaction() as connection:
                row = read_current(connection, table)
            if row is None:
                raise ConfigurationError(f"No table {table!r} was ever published", "Write it in a transaction first.")
            expected = table_uri(self.uri, row.name)
            if row.table_uri != expected:
                raise CorpusMismatchError(
                    f"Table {table!r} was published at {row.table_uri!r}, but the resource is configured for "
                    f"{expected!r}",
                    "Give the resource the uri of the folder in which the table was published.",
                )
            install_head(open_table(database, row.name, expected), row)
        yield open_lancedb(self.uri, row.name, row.head_version)

    @contextmanager
    def ingest_context(
        self, settings: CorpusConfig, *, create: bool = True, confirm_columns: bool = False
    ) -> Generator[IngestContext]:
        """Open the ingest context of a corpus for the duration of the block.

        Args:
            settings: The settings of the corpus.
            create: Create the corpus if it does not exist. If false, nothing is changed, and plans can be made.
            confirm_columns: Put the columns of the settings in force, even if columns or their values are lost.
        """
        with self.catalog.connect() as database:
            yield open_context(database, settings, create=create, confirm_columns=confirm_columns)

    @contextmanager
    def corpus(self, settings: CorpusConfig) -> Generator[Corpus]:
        """Open an existing corpus of documents for the duration of the block. Its source is not accessed.

        Raises:
            ConfigurationError: Nothing was ever ingested into the corpus.
        """
        with self.catalog.connect() as database:
            yield find_corpus(database, settings)

    @contextmanager
    def _open(self, table: str, schema: pa.Schema) -> Generator[Corpus]:
        with self.catalog.connect() as database:
            yield open_corpus(database, CorpusSettings.of_table(self.uri, table, schema))
