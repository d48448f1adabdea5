"""The audit: checks the invariants of ARCHITECTURE.md at one head, and changes nothing."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import numpy as np

from ingest_pipeline.columns.declaration import Columns, Values
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import TableDamagedError, TableUnavailableError, VersionGoneError
from ingest_pipeline.lance.checks.column_audit import ColumnAudit
from ingest_pipeline.lance.checks.damage import DamagedFragment
from ingest_pipeline.lance.checks.fingerprints import Fingerprints, TableRows, differing
from ingest_pipeline.lance.chunk_table import table_columns
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.maintenance.audit_files import overdue
from ingest_pipeline.maintenance.audit_rows import chunk_hashes, expected_documents
from ingest_pipeline.maintenance.sweep import OrphanFiles, find_orphan_files
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.postgres.catalog.corpora import GenerationRow
from ingest_pipeline.postgres.catalog.documents import DocumentRow
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaRow
from ingest_pipeline.saga.reconcile import lock
from ingest_pipeline.types import ChunkRow, counted, embedded_text, text_hash

# A saga in doubt without a heartbeat for this long has no process that settles it.
DOUBT_SECONDS = 60.0
_MAX_NAMED_IDS = 5
_MAX_NAMED_FILES = 20
# Number of documents that one step compares row by row.
_STEP_DOCUMENTS = 1000
_COLUMNS = [
    "id",
    "document",
    "partition",
    "ordinal",
    "start_offset",
    "end_offset",
    "page",
    "last_page",
    "heading",
    "header",
    "text",
    "text_hash",
    "saga",
    "vector",
]


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken invariant."""

    invariant: str
    document: str | None
    what: str
    ids: list[str]
    """Some of the affected chunks, versions or files."""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit checked and found."""

    corpus: str
    head_version: int
    documents: int
    chunks: int
    files: int
    """Orphan files. The next sweep removes them; one that still exists a day later is a violation."""
    violations: list[Violation]
    damaged: Sequence[DamagedFragment] = ()
    """Fragments at head whose rows cannot be read."""
    unknown_files: int = 0
    """Files of sagas that the ledger lacks: another database wrote them, or this one is older than the table."""


def nothing_to_audit(corpus: str) -> AuditReport:
    """The report of a corpus that does not exist yet."""
    return AuditReport(corpus, 0, 0, 0, 0, [])


@dataclass(frozen=True, slots=True)
class _VectorRow:
    """A row of the table, with checks of its text and vector instead of the vector itself."""

    id: UUID
    document: str
    ordinal: int
    start_offset: int
    end_offset: int
    text_hash: UUID
    saga: UUID
    page: int | None
    last_page: int | None
    heading: str | None
    text_fits: bool
    finite: bool
    columns: Values


def audit(corpus: Corpus, keys: Sequence[str] | None = None) -> AuditReport:
    """Compare both stores at head.

    Args:
        corpus: The corpus to audit.
        keys: Check the rows of these documents only, and no files. None: check everything.

    Raises:
        UnavailableError: One of the stores does not answer.
    """
    with corpus.database.transaction() as connection:
        # The lock excludes publications in progress, so any difference is a violation.
        head = lock(connection, corpus)
        unfinished = sagas.unfinished(connection, corpus.generation)
        now = sagas.clock(connection)
        violations = list(_latest_violations(corpus, head, unfinished))
    if not any(violation.invariant == "head opens" for violation in violations):
        violations += _head_violations(corpus, head)
    orphans = OrphanFiles([], [])
    found = _Found(0, 0, [])
    if not any(violation.invariant == "head opens" for violation in violations):
        if head.source is not None:
            found = _compare_readable(corpus, head.head_version, keys)
        violations += found.violations
        violations += _doubt_violations(unfinished, now)
        orphans = find_orphan_files(corpus) if keys is None else orphans
        violations += _orphan_violations(corpus, orphans.files, now)
    counts = found.documents, found.chunks, len(orphans.files)
    return AuditReport(corpus.generation, head.head_version, *counts, violations, found.damaged, len(orphans.unknown))


@dataclass(frozen=True, slots=True)
class _Found:
    """What a comparison of rows checked and found."""

    documents: int
    chunks: int
    violations: list[Violation]
    damaged: Sequence[DamagedFragment] = ()


def _compare_readable(corpus: Corpus, version: int, keys: Sequence[str] | None) -> _Found:
    """Compare all documents, or some. For documents with unreadable rows, this is the only violation reported."""
    try:
        return _compare_all(corpus, version, None) if keys is None else _compare_some(corpus, version, keys)
    except TableDamagedError:
        damaged = corpus.table.damaged(version)
        if not damaged:
            raise
    numbers = {fragment.number for fragment in damaged}
    with corpus.database.transaction() as connection:
        concerned = documents.documents_in(connection, corpus.generation, version, numbers)
    readable = {fragment.number for fragment in corpus.table.fragments(version)} - numbers
    wanted = None if keys is None else [key for key in keys if key not in concerned]
    if wanted is None:
        found = _compare_all(corpus, version, readable)
    else:
        found = _compare_some(corpus, version, wanted, readable)
    named = [
        Violation("files can be read", key, str(fragment), [fragment.file])
        for key, fragments in concerned.items()
        if keys is None or key in keys
        for fragment in damaged
        if fragment.number in fragments
    ]
    named += [Violation("files can be read", None, str(fragment), [fragment.file]) for fragment in damaged]
    rest = [violation for violation in found.violations if violation.document not in concerned]
    return _Found(found.documents, found.chunks, [*named, *rest], damaged)


def _compare_all(corpus: Corpus, version: int, fragments: Collection[int] | None) -> _Found:
    """Fingerprint the documents in both stores, and compare row by row those that differ or have invalid rows."""
    columns = table_columns(corpus.table.at(version).schema)
    with corpus.database.transaction() as connection:
        expected = expected_documents(connection, corpus.generation, version, columns)
        catalogued = Fingerprints.of(len(expected.keys))
        for numbers, hashes in chunk_hashes(connection, corpus.generation, version, expected):
            catalogued.add(numbers, hashes)
    count = len(expected.keys)
    table = TableRows(dict(expected.keys), Fingerprints.of(count))
    values = ColumnAudit(columns, expected.keys, expected.columns, expected.chunk_columns)
    for batch in corpus.table.batches(version, [*_COLUMNS, *columns.names], fragments=fragments):
        table.add(batch)
        values.add(batch)
    suspects = {*table.suspects, *values.differing(), *table.duplicates(), *differing(catalogued, table.prints)}
    suspects.update(np.flatnonzero(expected.chunk_counts != catalogued.counts[:count]).tolist())
    violations: list[Violation] = []
    keys = sorted(key for key, number in table.keys.items() if number in suspects)
    for start in range(0, len(keys), _STEP_DOCUMENTS):
        violations += _compare_some(corpus, version, keys[start : start + _STEP_DOCUMENTS], fragments).violations
    return _Found(count, int(table.prints.counts.sum()), violations)


def _compare_some(
    corpus: Corpus, version: int, keys: Sequence[str], fragments: Collection[int] | None = None
) -> _Found:
    """Compare documents row by row; if fragments are given, only the rows in them."""
    if not keys:
        return _Found(0, 0, [])  # Lance refuses a filter without values
    with corpus.database.transaction() as connection:
        found = documents.documents_at(connection, corpus.generation, version, keys)
        chunks = documents.chunks_at(connection, corpus.generation, version, keys)
    columns = table_columns(corpus.table.at(version).schema)
    rows = list(_vector_rows(corpus, version, keys, fragments, columns))
    found = [replace(document, columns=columns.of_documents.conform(document.columns)) for document in found]
    chunks = [replace(chunk, columns=columns.of_chunks.conform(chunk.columns)) for chunk in chunks]
    return _Found(len(found), len(rows), list(_row_violations(found, chunks, rows)))


def _latest_violations(corpus: Corpus, head: GenerationRow, unfinished: Sequence[SagaRow]) -> Iterator[Violation]:
    try:
        latest = corpus.table.latest_version()
    except TableDamagedError as error:
        yield Violation("head opens", None, str(error), [str(head.head_version)])
        return
    if latest != head.head_version and not unfinished:
        yield Violation("latest is head", None, f"latest is {latest}, head is {head.head_version}", [str(latest)])


def _head_violations(corpus: Corpus, head: GenerationRow) -> Iterator[Violation]:
    version = head.head_version
    try:
        corpus.table.at(version)
        saga = corpus.table.saga_of(version)
    except (TableDamagedError, TableUnavailableError, VersionGoneError) as error:
        yield Violation("head opens", None, str(error), [str(version)])
        return
    if saga != head.head_saga:
        yield Violation("head opens", None, f"version {version} has saga {saga}, not {head.head_saga}", [str(version)])


def _vector_rows(
    corpus: Corpus, version: int, keys: Sequence[str], fragments: Collection[int] | None, columns: Columns
) -> Iterator[_VectorRow]:
    names = [*_COLUMNS, *columns.names]
    for batch in corpus.table.batches(version, names, one_of("document", keys), fragments):
        vectors = batch.column("vector")
        width = vectors.type.list_size
        flat = vectors.values.slice(vectors.offset * width, len(vectors) * width).to_numpy(zero_copy_only=False)
        finite = np.isfinite(flat.reshape(-1, width)).all(axis=1)
        whole = vectors.is_valid().to_numpy(zero_copy_only=False)
        for row, good in zip(batch.drop_columns(["vector"]).to_pylist(), finite & whole, strict=True):
            expected_hash = _uuid(row["text_hash"])
            yield _VectorRow(
                _uuid(row["id"]),
                row["document"],
                row["ordinal"],
                row["start_offset"],
                row["end_offset"],
                expected_hash,
                _uuid(row["saga"]),
                row["page"],
                row["last_page"],
                row["heading"],
                text_hash(embedded_text(row["header"], row["text"])) == expected_hash
                and len(row["text"]) == row["end_offset"] - row["start_offset"],
                bool(good),
                columns.of_row(row),
            )


def _uuid(text: str) -> UUID:
    """Parse an id. A malformed id becomes an id that does not occur in the catalog."""
    try:
        return UUID(text)
    except ValueError:
        return UUID(int=0)


def _row_violations(
    documents: Iterable[DocumentRow], chunks: Iterable[ChunkRow], rows: Iterable[_VectorRow]
) -> Iterator[Violation]:
    known = {document.key: document for document in documents}
    catalogued: defaultdict[str, list[ChunkRow]] = defaultdict(list)
    stored: defaultdict[str, list[_VectorRow]] = defaultdict(list)
    for chunk in chunks:
        catalogued[chunk.document].append(chunk)
    for row in rows:
        stored[row.document].append(row)
    for key in sorted({*known, *catalogued, *stored}):
        yield from _document_violations(key, known, catalogued.get(key, []), stored.get(key, []))


def _document_violations(
    key: str, known: Mapping[str, DocumentRow], catalogued: list[ChunkRow], stored: list[_VectorRow]
) -> Iterator[Violation]:
    in_catalog, in_table = {chunk.id: chunk for chunk in catalogued}, {row.id: row for row in stored}
    twice = [number for number, count in Counter(row.id for row in stored).items() if count > 1]
    document = known.get(key)
    checks = [
        ("chunks match", "vectors without a catalog row", in_table.keys() - in_catalog.keys()),
        ("chunks match", "catalog rows without a vector", in_catalog.keys() - in_table.keys()),
        ("unique chunk ids", "vectors that occur twice", twice),
        (
            "single publication",
            "vectors of another saga",
            [r.id for r in stored if document is None or r.saga != document.saga],
        ),
        (
            "columns match",
            "rows with other values of columns than the catalog",
            [r.id for r in stored if document is not None and r.columns != _expected(document, in_catalog.get(r.id))],
        ),
        ("texts match", "vectors whose text differs from the catalog's", _differing(in_catalog, in_table)),
        ("texts match", "vectors whose text does not match its hash", [r.id for r in stored if not r.text_fits]),
        ("valid vectors", "vectors that are null or not finite", [row.id for row in stored if not row.finite]),
    ]
    for invariant, what, ids in checks:
        named = sorted(map(str, ids))
        if named:
            yield Violation(invariant, key, f"{len(named)} {what}", named[:_MAX_NAMED_IDS])
    if document is not None and document.chunk_count != len(catalogued):
        counts = f"the catalog expects {counted(document.chunk_count, 'chunk')} and has {len(catalogued)}"
        yield Violation("chunks match", key, counts, [])


def _expected(document: DocumentRow, chunk: ChunkRow | None) -> Values:
    """The values that the row of a chunk should have."""
    return document.columns if chunk is None else document.columns | chunk.columns


def _differing(in_catalog: Mapping[UUID, ChunkRow], in_table: Mapping[UUID, _VectorRow]) -> list[UUID]:
    def compared(row: ChunkRow | _VectorRow) -> tuple[object, ...]:
        place = row.ordinal, row.start_offset, row.end_offset, row.page, row.last_page, row.heading
        return *place, row.text_hash

    return [
        number
        for number in in_catalog.keys() & in_table.keys()
        if compared(in_catalog[number]) != compared(in_table[number])
    ]


def _orphan_violations(corpus: Corpus, files: Sequence[str], now: datetime) -> Iterator[Violation]:
    late = overdue(corpus, files, now)
    if late:
        what = f"{len(late)} orphan files were not removed by a sweep for a day"
        yield Violation("no orphan files", None, what, late[:_MAX_NAMED_FILES])


def _doubt_violations(unfinished: Iterable[SagaRow], now: datetime) -> Iterator[Violation]:
    for saga in unfinished:
        silent = (now - saga.seen_at).total_seconds()
        if silent > DOUBT_SECONDS:
            what = f"saga {saga.id} is {saga.state} and silent for {math.ceil(silent)} s"
            yield Violation("nothing in doubt", None, what, [str(saga.id)])
