"""A versioned transaction on any table: the saga as a context manager, for rows that a user of the library manages.

    with transaction(corpus) as change:
        change.delete("sku = 'A-1'")
        change.add(rows)
        change.execute("INSERT INTO price_change (sku) VALUES (%s)", ("A-1",))

Nothing is visible before the block ends. Then vectors and SQL rows become visible together, at one new version. If
anything fails, nothing becomes visible, and the table returns to its base version.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, LiteralString
from uuid import UUID

import pyarrow as pa

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import ConfigurationError, ConflictError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import Change, Removal, StagedFragment
from ingest_pipeline.postgres.database import Connection, is_under_way
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.saga.lifecycle import Saga

if TYPE_CHECKING:
    import lance

_UNTOUCHED = "Correct it and run the block again. Nothing was published."


class Transaction:
    """Changes to a table, bound to the version that was head when it began."""

    def __init__(self, corpus: Corpus, saga: UUID, base_version: int) -> None:
        self.base_version = base_version
        """Head when the transaction began: the version that `dataset` shows, and to which a failure returns."""
        self.published_version: int | None = None
        """The version that the transaction published. None before its block has ended without an error."""
        self.saga = saga
        self.staged: list[StagedFragment] = []
        self._corpus = corpus
        self._predicates: list[str] = []
        self._statements: list[tuple[LiteralString, Sequence[object]]] = []

    @property
    def dataset(self) -> lance.LanceDataset:
        """The table at the base version, for reading."""
        return self._corpus.table.at(self.base_version)

    def add(self, rows: pa.Table) -> None:
        """Stage rows: they are written to storage now, and are in no version before the block ends.

        Args:
            rows: Rows with the columns of the table, in any order.

        Raises:
            ConfigurationError: The rows have other columns, or values that do not fit the columns.
        """
        fitted = _fitted(rows, self._corpus.table.schema)
        if fitted.num_rows:
            name = f"{self.saga}-{len(self.staged)}.lance"
            fragment = self._corpus.table.stage(name, fitted)
            with boundary(Boundary.FRAGMENT_RECORDED), self._corpus.database.transaction() as connection:
                sagas.record_fragment(connection, self.saga, name=name, row_count=fragment.row_count)
            self.staged.append(fragment)

    def delete(self, predicate: str) -> None:
        """Remove the rows of the base version that satisfy a predicate. Rows of this transaction stay.

        Args:
            predicate: A filter over the table's columns, string literals in single quotes.

        Raises:
            ConfigurationError: The predicate cannot be parsed.
        """
        problem = self._corpus.table.filter_error(self.base_version, predicate)
        if problem is not None:
            raise ConfigurationError(f"The rows to delete are not named by {predicate!r}: {problem}", _UNTOUCHED)
        self._predicates.append(predicate)

    def execute(self, statement: LiteralString, values: Sequence[object] = ()) -> None:
        """Run a statement in the publication's Postgres transaction. It takes effect together with the rows."""
        self._statements.append((statement, values))

    def write(self, connection: Connection, base: int, version: int) -> Change:  # noqa: ARG002  of the protocol
        """Run the SQL statements of the publication, and return the change of the table."""
        if base != self.base_version:
            raise ConflictError(
                f"Corpus {self._corpus.name!r} moved from version {self.base_version} to {base} during a transaction",
                "Nothing was published. Run the block again, on the new version.",
            )
        for statement, values in self._statements:
            connection.execute(statement, values)
            if not is_under_way(connection):
                raise ConfigurationError(f"The statement {statement!r} ended the publication's transaction", _UNTOUCHED)
        sagas.forget_fragments(connection, self.saga)
        predicate = " OR ".join(f"({predicate})" for predicate in self._predicates)
        return Change(self.staged, Removal(predicate) if predicate else None)

    def record_fragments(self, connection: Connection, version: int, fragments: dict[str, int]) -> None:
        """Record nothing: the catalog does not track the fragments of rows that a user manages."""


def _fitted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    if sorted(rows.column_names) != sorted(schema.names):
        raise ConfigurationError(
            f"The rows have the columns {', '.join(rows.column_names)}, and the table has {', '.join(schema.names)}",
            _UNTOUCHED,
        )
    try:
        return rows.select(schema.names).cast(schema)
    except (ValueError, NotImplementedError) as error:
        raise ConfigurationError(f"The rows do not fit the table: {error}", _UNTOUCHED) from error


@contextmanager
def transaction(corpus: Corpus, *, run_id: str | None = None) -> Generator[Transaction]:
    """Bind a transaction to head. Publish it if the block ends, and undo it if the block raises an error.

    Raises:
        ConflictError: Head moved meanwhile; nothing was published.
        UnavailableError: Postgres or the table's storage failed; nothing was published, unless the message says that
            the outcome is in doubt until the next publication settles it.
        FencedError: Another process took this writer for dead after missing heartbeats; nothing was published.
        psycopg.Error: A statement given to `Transaction.execute` failed; nothing was published.
    """
    base = corpus.head().head_version
    with Saga.begin(corpus, SagaKind.TRANSACTION, base_version=base, run_id=run_id) as saga:
        change = Transaction(corpus, saga.id, base)
        yield change
        saga.prepared()
        change.published_version = saga.publish(change)
