"""Roll documents back to an earlier version: a publication whose rows come from that version, not from the source.

For each document that differs, the rows at that version are read, vectors included, and staged under the new saga. The
catalog rows are copied in Postgres. A document that the version lacks is removed. The rest is an ordinary publication.
So history only grows, no text is embedded, and the work is proportional to the documents that differ.

The source still has the newer documents. A hold keeps them from being ingested again at once: see `holds`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from uuid import UUID

import pyarrow as pa

from ingest_pipeline.columns.declaration import Values
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.corpus.opening import check_writable
from ingest_pipeline.errors import (
    AuditError,
    RemovalsWithheldError,
    RollbackRefusedError,
    TableDamagedError,
)
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import Change, StagedFragment
from ingest_pipeline.lance.chunk_table import OWN_COLUMNS, table_columns
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.planning.removal_guard import is_suspicious, withheld_rollback
from ingest_pipeline.postgres.catalog import documents, history, holds, prepared_documents
from ingest_pipeline.postgres.catalog.history import VersionDifference
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import RetiredBy, SagaKind
from ingest_pipeline.saga.documents import removal_of, supersede_documents
from ingest_pipeline.saga.lifecycle import Saga
from ingest_pipeline.types import Recipe, counted

# Up to this many documents are rolled back in one publication. Rows are streamed, so memory sets no limit.
_PUBLICATION_DOCUMENTS = 10_000
# Documents that are read and staged together.
_PART_DOCUMENTS = 1024
_ROWS_PER_FILE = 4096
_ROWS_PER_BATCH = 512


@dataclass(frozen=True, slots=True)
class RolledBack:
    """One publication of a rollback."""

    saga: UUID
    target_version: int
    base_version: int
    version: int
    changes: Sequence[VersionDifference]


@dataclass(frozen=True, slots=True)
class _CopiedRows:
    """The catalog rows of a rollback's publication."""

    saga: UUID
    recipe: Recipe
    staged: Sequence[StagedFragment]
    files: dict[str, set[str]]
    """The names of the data files with each document's rows, by key."""
    schema: pa.Schema

    def write(self, connection: Connection, base: int, version: int) -> Change:  # noqa: ARG002  of the protocol
        superseded = supersede_documents(connection, self.saga, version)
        holds.hold_documents(connection, self.saga, self.recipe)
        sagas.forget_fragments(connection, self.saga)
        return Change(self.staged, removal_of(superseded), schema=self.schema)

    def record_fragments(self, connection: Connection, version: int, fragments: dict[str, int]) -> None:
        recorded = {key: sorted(fragments[name] for name in names) for key, names in self.files.items()}
        documents.publish_documents(connection, self.saga, version, recorded)


def plan_rollback(corpus: Corpus, version: int, names: Sequence[str] = ()) -> list[VersionDifference]:
    """List what a rollback would change, by key.

    Args:
        corpus: The corpus.
        version: The version of a publication.
        names: Keys or partitions of the documents to roll back. None given: all.

    Raises:
        RollbackRefusedError: The version is not a publication or is not retained, or a name matches no document.
    """
    with corpus.database.transaction() as connection:
        published = history.is_publication(connection, corpus.generation, version)
        unknown = sorted(set(names) - history.known_names(connection, corpus.generation, names))
        differences = history.differing_documents(connection, corpus.generation, version, names or None)
    if not published:
        raise RollbackRefusedError(
            f"Version {version} of corpus {corpus.name!r} is no publication{_in_generation(corpus)}"
        )
    _check_retained(corpus, version)
    if unknown:
        raise RollbackRefusedError(f"Corpus {corpus.name!r} never had a document {unknown[0]!r}")
    return differences


def rollback(
    corpus: Corpus,
    version: int,
    names: Sequence[str] = (),
    *,
    recipe: Recipe,
    run_id: str | None = None,
    report: Callable[[RolledBack], None] = lambda _: None,
    confirm_removals: bool = False,
) -> list[RolledBack]:
    """Bring documents back to their state at an earlier version.

    Args:
        corpus: The corpus.
        version: The version of a publication.
        names: Keys or partitions of the documents to roll back. None given: all.
        recipe: The recipe in force. The hold lasts while the bytes and this recipe are the same.
        run_id: The Dagster run that performs the rollback, if there is one.
        report: Called after each publication.
        confirm_removals: Remove documents even if they are all or most of the corpus.

    Returns:
        The publications: none if nothing differs, one for each 10,000 documents that do.

    Raises:
        RollbackRefusedError: As in `plan_rollback`.
        ConflictError, FencedError: Another process published one of the documents meanwhile, or took this writer for
            dead. Nothing was published; the user must decide again.
        OtherDatabaseError: The table is written by another database, or is newer than this database.
        RemovalsWithheldError: The rollback would remove all documents or most of them without a confirmation.
        AuditError: The table lacks rows that the catalog has at that version.
        UnavailableError: One of the stores failed. Earlier publications remain; run again for the rest.
    """
    check_writable(corpus)
    differences = plan_rollback(corpus, version, names)
    refusal = None if confirm_removals else check_rollback(corpus, version, differences)
    if refusal is not None:
        raise refusal
    done: list[RolledBack] = []
    for start in range(0, len(differences), _PUBLICATION_DOCUMENTS):
        changes = differences[start : start + _PUBLICATION_DOCUMENTS]
        rolled_back = _Rollback(corpus, version, changes, recipe).run(run_id)
        done.append(rolled_back)
        report(rolled_back)
    return done


def check_rollback(
    corpus: Corpus, version: int, differences: Sequence[VersionDifference]
) -> RemovalsWithheldError | None:
    """The error if rolling back these documents needs a confirmation, else None."""
    gone = sum(difference.change == "remove" for difference in differences)
    with corpus.database.transaction() as connection:
        latest = documents.count_documents(connection, corpus.generation)
    if not is_suspicious(gone, latest):
        return None
    return withheld_rollback(corpus.name, version, gone, latest)


def retained_versions(corpus: Corpus, versions: Sequence[int]) -> set[int]:
    """The given versions that are retained, and so can be rolled back to."""
    return {*versions}.intersection(corpus.table.versions())


def _in_generation(corpus: Corpus) -> str:
    """The phrase that names the generation, if the corpus has had several."""
    if corpus.generation == corpus.name:
        return ""
    return (
        f" of its generation {corpus.generation}; only `ingest-pipeline reembed` goes back to an earlier embedding "
        "model"
    )


def _check_retained(corpus: Corpus, version: int) -> None:
    there = corpus.table.versions()
    if version not in there or not corpus.is_retained(version):
        with corpus.database.transaction() as connection:
            oldest = min(history.published_versions(connection, corpus.generation, there))
            by = history.retired_by(connection, corpus.generation, version)
        why = ", because an erasure removed it" if by == RetiredBy.ERASURE else ""
        raise RollbackRefusedError(
            f"Version {version} of corpus {corpus.name!r} is no longer retained{why}; the oldest retained version is "
            f"{oldest}"
        )
    then, now = (
        corpus.table.at(number).schema.field("vector").type for number in (version, corpus.head().head_version)
    )
    if then != now:
        raise RollbackRefusedError(
            f"Vectors of corpus {corpus.name!r} were {then} at version {version} and are {now} now: two embeddings "
            "cannot be in one table"
        )


class _Rollback:
    """One saga of a rollback."""

    def __init__(self, corpus: Corpus, version: int, changes: Sequence[VersionDifference], recipe: Recipe) -> None:
        self._corpus = corpus
        self._version = version
        self._changes = changes
        self._recipe = recipe
        self._partitions = {change.key: change.partition for change in changes}
        self._base = corpus.head().head_version
        self._schema = corpus.table.at(self._base).schema
        self._columns = table_columns(self._schema)
        self._values: dict[str, Values] = {}
        """Values of the columns that the catalog has for the version, by key. The table may have had other columns."""
        self._chunk_values: dict[str, Values] = {}
        """Values of the chunks of the documents that are being copied, by id."""
        self._staged: list[StagedFragment] = []
        self._files: defaultdict[str, set[str]] = defaultdict(set)
        self._numbers = count()
        self._damaged: set[int] = set()
        """Fragments of the version that cannot be read."""

    def run(self, run_id: str | None) -> RolledBack:
        with Saga.begin(
            self._corpus, SagaKind.ROLLBACK, base_version=self._base, run_id=run_id, target_version=self._version
        ) as saga:
            self._saga = saga.id
            self._prepare()
            saga.prepared()
            made = saga.publish(_CopiedRows(saga.id, self._recipe, self._staged, self._files, self._schema))
        return RolledBack(saga.id, self._version, made - 1, made, self._changes)

    def _prepare(self) -> None:
        # Checked again, because retention may have run. From now on it keeps the target version of this live saga.
        _check_retained(self._corpus, self._version)
        with self._corpus.database.transaction() as connection:
            history.insert_copies(connection, self._corpus.generation, self._saga, self._changes)
            values = prepared_documents.columns_of_saga(connection, self._saga)
            sagas.touch(connection, self._saga)
        self._values = {key: self._columns.conform(found) for key, found in values.items()}
        for part in _parts([change for change in self._changes if change.chunk_count]):
            self._copy(part)

    def _copy(self, part: Sequence[VersionDifference]) -> None:
        """Stage the rows of some documents, and record the data files with the chunk rows."""
        expected = sum(change.chunk_count for change in part)
        if of_chunks := self._columns.of_chunks:
            with self._corpus.database.transaction() as connection:
                found = history.chunk_columns_of_copies(connection, self._saga, [change.key for change in part])
            self._chunk_values = {number: of_chunks.conform(one) for number, one in found.items()}
        files = [self._stage(rows) for rows in self._rows(part, expected)]
        with boundary(Boundary.FRAGMENT_RECORDED), self._corpus.database.transaction() as connection:
            copied = history.copy_chunk_rows(connection, self._saga, [change.key for change in part])
            if copied != expected:
                raise self._rows_missing("Postgres", copied, expected, part)
            for file in files:
                sagas.record_fragment(connection, self._saga, name=file.name, row_count=file.row_count)
        self._staged += files

    def _rows(self, part: Sequence[VersionDifference], expected: int) -> Iterator[pa.Table]:
        """Yield the documents' rows at the version, in tables of the size of a data file."""
        predicate = one_of("document", [change.key for change in part])
        fragments: set[int] | None = {number for change in part for number in change.fragments}
        found = self._count(predicate, fragments)
        if found != expected:
            # The fragments in the catalog lack the rows, because they were rewritten since: search all fragments.
            fragments = None
            found = self._count(predicate, None)
        if found is None:
            fragments = {state.number for state in self._corpus.table.fragments(self._version)} - self._damaged
            found = self._count(predicate, fragments)
        if found != expected:
            raise self._rows_missing("LanceDB", found or 0, expected, part)
        waiting: list[pa.RecordBatch] = []
        for batch in self._corpus.table.batches(
            self._version, list(OWN_COLUMNS), predicate, fragments, batch_size=_ROWS_PER_BATCH
        ):
            waiting.append(batch)
            if sum(len(other) for other in waiting) >= _ROWS_PER_FILE:
                yield pa.Table.from_batches(waiting)
                waiting = []
        if any(len(batch) for batch in waiting):
            yield pa.Table.from_batches(waiting)

    def _count(self, predicate: str, fragments: set[int] | None) -> int | None:
        """Count the rows in some or all fragments. None if a fragment cannot be read."""
        try:
            return self._corpus.table.count(self._version, predicate, fragments)
        except TableDamagedError as error:
            self._damaged |= error.fragments
            return None

    def _stage(self, rows: pa.Table) -> StagedFragment:
        documents = rows["document"].to_pylist()
        ours: dict[str, pa.Array] = {
            **self._columns.of_documents.arrays([self._values.get(key) for key in documents]),
            **self._columns.of_chunks.arrays([self._chunk_values.get(number) for number in rows["id"].to_pylist()]),
            "saga": pa.array([str(self._saga)] * len(rows)),
            "partition": pa.array([self._partitions[key] for key in documents]),
        }
        columns = [ours[name] if name in ours else rows[name] for name in self._schema.names]
        name = f"{self._saga}-{next(self._numbers)}.lance"
        for key in set(documents):
            self._files[key].add(name)
        return self._corpus.table.stage(name, pa.Table.from_arrays(columns, schema=self._schema))

    def _rows_missing(self, store: str, found: int, expected: int, part: Sequence[VersionDifference]) -> AuditError:
        concerned = [change for change in part if self._damaged.intersection(change.fragments)] or part
        damaged = f"; fragments {sorted(self._damaged)} cannot be read" if self._damaged else ""
        return AuditError(
            f"Version {self._version} of corpus {self._corpus.name!r} has {found} instead of {expected} rows of "
            f"{counted(len(part), 'document')} in {store}; {concerned[0].key!r} lacks some{damaged}",
            "Nothing was published. Roll back to another version, or roll back only the other documents.",
        )


def _parts(changes: Sequence[VersionDifference]) -> Iterator[list[VersionDifference]]:
    part: list[VersionDifference] = []
    rows = 0
    for change in changes:
        if part and (len(part) == _PART_DOCUMENTS or rows + change.chunk_count > _ROWS_PER_FILE):
            yield part
            part, rows = [], 0
        part.append(change)
        rows += change.chunk_count
    if part:
        yield part
