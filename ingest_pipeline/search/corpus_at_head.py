"""A corpus to read: its table, documents, chunks and search at one version, whatever is published meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.corpus.pinned import pinned_corpus
from ingest_pipeline.errors import MissingExtraError
from ingest_pipeline.event_loop import run_blocking
from ingest_pipeline.lance.chunk_table import table_columns
from ingest_pipeline.lance.storage import open_lancedb
from ingest_pipeline.postgres.catalog.documents import DocumentRow, documents_at
from ingest_pipeline.postgres.catalog.history import PublicationRow
from ingest_pipeline.postgres.catalog.pins import Pin
from ingest_pipeline.postgres.catalog.reports import DocumentChange
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.search import reading
from ingest_pipeline.search.configured_search import SearchClients, configured_search
from ingest_pipeline.search.expand import Expand
from ingest_pipeline.search.reading import DocumentPart
from ingest_pipeline.search.search import Hit
from ingest_pipeline.types import SearchMode

if TYPE_CHECKING:
    from lancedb.table import Table

_DOCUMENT_FIELDS = (
    pa.field("key", pa.string(), nullable=False),
    pa.field("partition", pa.string(), nullable=False),
    pa.field("etag", pa.string(), nullable=False),
    pa.field("size", pa.int64(), nullable=False),
    pa.field("last_modified", pa.timestamp("us", "UTC"), nullable=False),
    pa.field("character_count", pa.int64(), nullable=False),
    pa.field("chunk_count", pa.int64(), nullable=False),
    pa.field("published_version", pa.int64(), nullable=False),
)


class CorpusAtHead:
    """A corpus at the version that was head when it was opened.

    An asset gets one as an input::

        @dg.asset(ins={"handbook": dg.AssetIn(key=["handbook", "head"])})
        def report(handbook: CorpusAtHead) -> None:
            for hit in handbook.search("Who approves travel?"):
                ...

    All inputs of one run read the same version. Outside Dagster, `OpenCorpus.at_head` opens one. Its methods block, and
    several threads may use it.

    Args:
        corpus: Name of the corpus.
        clients: The embedder and the reranker of searches.
        connect: Opens the database of the catalog for a block.
        pin: The version to read.
    """

    def __init__(
        self,
        corpus: str,
        clients: SearchClients,
        connect: Callable[[], AbstractContextManager[Database]],
        pin: Pin,
    ) -> None:
        self.corpus = corpus
        """Name of the corpus."""
        self._clients = clients
        self._connect = connect
        self._pin = pin

    def __repr__(self) -> str:
        return f"<CorpusAtHead {self.corpus!r} at version {self.version}>"

    @property
    def version(self) -> int:
        """The version that is read."""
        return self._pin.version

    @property
    def generation(self) -> str:
        """Name of the LanceDB table. It differs from the name of the corpus after a re-embedding."""
        return self._pin.generation

    def table(self) -> Table:
        """The LanceDB table, checked out at the version. It refuses writes.

        Raises:
            VersionGoneError: Retention or an erasure removed the version.
            UnavailableError: A store does not answer.
        """
        with self._open() as corpus:
            corpus.table.at(self.version)
            return open_lancedb(corpus.table.uri.rpartition("/")[0], self.generation, self.version)

    def documents(self) -> pa.Table:
        """The documents of the catalog, by key, with the corpus' own columns."""
        with self._open() as corpus:
            own = table_columns(corpus.table.at(self.version).schema).of_documents
            with corpus.database.transaction() as connection:
                rows = documents_at(connection, corpus.generation, self.version)
        fixed = {field.name: [getattr(row, field.name) for row in rows] for field in _DOCUMENT_FIELDS}
        table = pa.table(fixed, schema=pa.schema(_DOCUMENT_FIELDS))
        arrays = own.arrays([row.columns for row in rows])
        for field in own.fields:
            if field.name not in fixed:
                table = table.append_column(field, arrays[field.name])
        return table

    def chunks(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The chunks of all documents, in no particular order.

        Args:
            columns: Names of columns of the table. Default: all except the vector.
        """
        with self._open() as corpus:
            names = [name for name in corpus.table.columns(self.version) if name != "vector"]
            return corpus.table.rows(self.version, names if columns is None else list(columns))

    def documents_polars(self) -> Any:  # noqa: ANN401  polars is optional
        """The documents, as a frame of Polars.

        Raises:
            MissingExtraError: Polars is not installed.
        """
        return _polars(self.documents())

    def chunks_polars(self, columns: Sequence[str] | None = None) -> Any:  # noqa: ANN401  polars is optional
        """The chunks, as a frame of Polars; see `chunks`.

        Raises:
            MissingExtraError: Polars is not installed.
        """
        return _polars(self.chunks(columns))

    def search(
        self,
        question: str,
        *,
        mode: SearchMode = "hybrid",
        where: Sequence[str] = (),
        principals: Sequence[str] | None = None,
        limit: int = 10,
        expand: Expand | None = None,
    ) -> list[Hit]:
        """Find the chunks that match a question best, best first; the arguments are those of `OpenCorpus.search`."""
        with self._open() as corpus:
            return run_blocking(
                configured_search(
                    self._clients,
                    corpus,
                    question,
                    limit,
                    mode=mode,
                    conditions=where,
                    principals=principals,
                    expand=expand,
                )
            )

    def list_documents(
        self, *, prefix: str = "", after: str = "", principals: Sequence[str] | None = None, limit: int = 100
    ) -> list[DocumentRow]:
        """List documents by key, a page at a time.

        Args:
            prefix: List only documents whose keys begin with it.
            after: The last key of the page before.
            principals: List the documents that one of these may find, see `search`.
            limit: Maximum number of documents, up to 1,000.
        """
        with self._open() as corpus:
            return reading.list_documents(
                corpus, self.version, prefix=prefix, after=after, principals=principals, limit=limit
            )

    def read_document(
        self,
        key: str,
        *,
        principals: Sequence[str] | None = None,
        start_offset: int = 0,
        max_characters: int = 20_000,
    ) -> DocumentPart:
        """Read the text of a document, a part at a time.

        Args:
            key: Key of the document.
            principals: The principals of the reader, see `search`.
            start_offset: Where to begin: 0, or the `next_offset` of the part before.
            max_characters: Maximum length, up to 100,000.

        Raises:
            UnknownDocumentError: There is none, or the principals may not find it.
        """
        with self._open() as corpus:
            return reading.read_document(
                corpus,
                self.version,
                key,
                principals=principals,
                start_offset=start_offset,
                max_characters=max_characters,
            )

    def neighbours(
        self, key: str, chunk: str, *, before: int = 1, after: int = 1, principals: Sequence[str] | None = None
    ) -> DocumentPart:
        """Read a chunk with the chunks around it.

        Args:
            key: Key of the document.
            chunk: Id of the chunk, as a hit has it.
            before: Number of chunks before it, up to 20.
            after: Number of chunks after it, up to 20.
            principals: The principals of the reader, see `search`.

        Raises:
            UnknownDocumentError: There is no such document or chunk, or the principals may not find it.
        """
        with self._open() as corpus:
            return reading.neighbours(
                corpus, self.version, key, chunk, before=before, after=after, principals=principals
            )

    def publications(self, *, principals: Sequence[str] | None = None, limit: int = 20) -> list[PublicationRow]:
        """List the publications up to the version, newest first. A reader who can find nothing sees none."""
        with self._open() as corpus:
            return reading.publications(corpus, self.version, principals=principals, limit=limit)

    def changes(self, key: str, *, principals: Sequence[str] | None = None, limit: int = 20) -> list[DocumentChange]:
        """List the publications up to the version that changed a document, newest first.

        Raises:
            UnknownDocumentError: There never was such a document, or the principals may not find it.
        """
        with self._open() as corpus:
            return reading.changes(corpus, self.version, key, principals=principals, limit=limit)

    @contextmanager
    def _open(self) -> Generator[Corpus]:
        with self._connect() as database:
            yield pinned_corpus(database, self._pin)


def _polars(table: pa.Table) -> Any:  # noqa: ANN401  polars is optional
    try:
        polars = import_module("polars")
    except ImportError as error:
        raise MissingExtraError("Polars is not installed", "Run `pip install polars`.") from error
    return polars.from_arrow(table)
