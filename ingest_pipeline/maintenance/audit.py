"""Checking that the two stores agree: the invariants of ARCHITECTURE.md, at one head, without changing anything."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import TableDamagedError, TableUnavailableError, VersionGoneError
from ingest_pipeline.lance.damage import DamagedFragment
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.lance.fingerprints import Fingerprints, TableRows, differing
from ingest_pipeline.maintenance.audit_files import overdue
from ingest_pipeline.maintenance.audit_rows import chunk_hashes, promised
from ingest_pipeline.maintenance.sweep import Litter, look_for_litter
from ingest_pipeline.postgres import catalog, ledger
from ingest_pipeline.postgres.catalog import DocumentRow, GenerationRow
from ingest_pipeline.postgres.ledger import SagaRow
from ingest_pipeline.saga.reconcile import lock
from ingest_pipeline.types import ChunkRow, text_hash

# A saga without a sign of life for so long is in doubt with nobody to resolve it.
DOUBT_SECONDS = 60.0
_NAMED_IDS = 5
_NAMED_FILES = 20
# So many documents are compared row by row at once.
_CLOSELY = 1000
_COLUMNS = [
    "id",
    "document",
    "partition",
    "ordinal",
    "start_offset",
    "end_offset",
    "text",
    "text_hash",
    "saga",
    "vector",
]


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which the stores break a promise."""

    invariant: str
    document: str | None
    what: str
    ids: list[str]
    """Some of the chunks, versions or files concerned."""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit looked at and found."""

    corpus: str
    head_version: int
    documents: int
    chunks: int
    files: int
    """That belong to nothing. The next sweep removes them; one that is still there a day later is a violation."""
    violations: list[Violation]
    damaged: Sequence[DamagedFragment] = ()
    """Fragments at head whose rows cannot be read."""
    unknown_files: int = 0
    """Of sagas that the ledger does not know: another database wrote them, or this one is older than the table."""


def nothing_to_audit(corpus: str) -> AuditReport:
    """Of a corpus that does not exist yet."""
    return AuditReport(corpus, 0, 0, 0, 0, [])


@dataclass(frozen=True, slots=True)
class _VectorRow:
    """A row of the table, without its vector but with what is wrong with it."""

    id: UUID
    document: str
    ordinal: int
    start_offset: int
    end_offset: int
    text_hash: UUID
    saga: UUID
    text_fits: bool
    finite: bool


def audit(corpus: Corpus, keys: Sequence[str] | None = None) -> AuditReport:
    """Compare both stores at head.

    Args:
        corpus: Which one.
        keys: Look at the rows of these documents only, and not at files. None: at everything.

    Raises:
        UnavailableError: One of them does not answer.
    """
    with corpus.database.transaction() as connection:
        # Under the lock no publication is half way: what differs now was left so by somebody.
        head = lock(connection, corpus)
        unfinished = ledger.unfinished(connection, corpus.generation)
        now = ledger.clock(connection)
        violations = list(_latest_violations(corpus, head, unfinished))
    if not any(violation.invariant == "head opens" for violation in violations):
        violations += _head_violations(corpus, head)
    left = Litter([], [])
    found = _Found(0, 0, [])
    if not any(violation.invariant == "head opens" for violation in violations):
        if head.source is not None:
            found = _compare_what_can_be_read(corpus, head.head_version, keys)
        violations += found.violations
        violations += _doubt_violations(unfinished, now)
        left = look_for_litter(corpus) if keys is None else left
        violations += _left_over(corpus, left.files, now)
    counts = found.documents, found.chunks, len(left.files)
    return AuditReport(corpus.generation, head.head_version, *counts, violations, found.damaged, len(left.unknown))


@dataclass(frozen=True, slots=True)
class _Found:
    """What a comparison of rows looked at and found."""

    documents: int
    chunks: int
    violations: list[Violation]
    damaged: Sequence[DamagedFragment] = ()


def _compare_what_can_be_read(corpus: Corpus, version: int, keys: Sequence[str] | None) -> _Found:
    """All documents, or some; those with rows that cannot be read are named for that alone."""
    try:
        return _compare_all(corpus, version, None) if keys is None else _compare_some(corpus, version, keys)
    except TableDamagedError:
        damaged = corpus.table.damaged(version)
        if not damaged:
            raise
    numbers = {fragment.number for fragment in damaged}
    with corpus.database.transaction() as connection:
        concerned = catalog.documents_in(connection, corpus.generation, version, numbers)
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
    """Fingerprint the documents in both stores, and look closely at those that differ or are wrong by themselves."""
    with corpus.database.transaction() as connection:
        stated = promised(connection, corpus.generation, version)
        catalogued = Fingerprints.of(len(stated.keys))
        for numbers, hashes in chunk_hashes(connection, corpus.generation, version, stated):
            catalogued.add(numbers, hashes)
    count = len(stated.keys)
    table = TableRows(dict(stated.keys), Fingerprints.of(count))
    for batch in corpus.table.batches(version, _COLUMNS, fragments=fragments):
        table.add(batch)
    suspects = {*table.suspects, *table.duplicates(), *differing(catalogued, table.prints)}
    suspects.update(np.flatnonzero(stated.chunk_counts != catalogued.counts[:count]).tolist())
    violations: list[Violation] = []
    keys = sorted(key for key, number in table.keys.items() if number in suspects)
    for start in range(0, len(keys), _CLOSELY):
        violations += _compare_some(corpus, version, keys[start : start + _CLOSELY], fragments).violations
    return _Found(count, int(table.prints.counts.sum()), violations)


def _compare_some(
    corpus: Corpus, version: int, keys: Sequence[str], fragments: Collection[int] | None = None
) -> _Found:
    """Compare row by row, those in some fragments if these are given."""
    if not keys:
        return _Found(0, 0, [])  # Lance reads no filter of no values
    with corpus.database.transaction() as connection:
        documents = catalog.documents_at(connection, corpus.generation, version, keys)
        chunks = catalog.chunks_at(connection, corpus.generation, version, keys)
    rows = list(_vector_rows(corpus, version, keys, fragments))
    return _Found(len(documents), len(rows), list(_row_violations(documents, chunks, rows)))


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
        yield Violation(
            "head opens", None, f"version {version} is of saga {saga}, not {head.head_saga}", [str(version)]
        )


def _vector_rows(
    corpus: Corpus, version: int, keys: Sequence[str], fragments: Collection[int] | None
) -> Iterator[_VectorRow]:
    for batch in corpus.table.batches(version, _COLUMNS, one_of("document", keys), fragments):
        vectors = batch.column("vector")
        width = vectors.type.list_size
        flat = vectors.values.slice(vectors.offset * width, len(vectors) * width).to_numpy(zero_copy_only=False)
        finite = np.isfinite(flat.reshape(-1, width)).all(axis=1)
        whole = vectors.is_valid().to_numpy(zero_copy_only=False)
        for row, good in zip(batch.drop_columns(["vector"]).to_pylist(), finite & whole, strict=True):
            stated = _uuid(row["text_hash"])
            yield _VectorRow(
                _uuid(row["id"]),
                row["document"],
                row["ordinal"],
                row["start_offset"],
                row["end_offset"],
                stated,
                _uuid(row["saga"]),
                text_hash(row["text"]) == stated and len(row["text"]) == row["end_offset"] - row["start_offset"],
                bool(good),
            )


def _uuid(text: str) -> UUID:
    """An id that is none is that of nothing: whoever wrote the row, the catalog does not have it."""
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
        ("unique chunk ids", "vectors that stand twice", twice),
        (
            "single publication",
            "vectors of another saga",
            [r.id for r in stored if document is None or r.saga != document.saga],
        ),
        ("texts match", "vectors whose text is not the catalog's", _differing(in_catalog, in_table)),
        ("texts match", "vectors whose text is not the one hashed", [r.id for r in stored if not r.text_fits]),
        ("valid vectors", "vectors that are null or not finite", [row.id for row in stored if not row.finite]),
    ]
    for invariant, what, ids in checks:
        named = sorted(map(str, ids))
        if named:
            yield Violation(invariant, key, f"{len(named)} {what}", named[:_NAMED_IDS])
    if document is not None and document.chunk_count != len(catalogued):
        counts = f"the catalog promises {document.chunk_count} chunks and has {len(catalogued)}"
        yield Violation("chunks match", key, counts, [])


def _differing(in_catalog: Mapping[UUID, ChunkRow], in_table: Mapping[UUID, _VectorRow]) -> list[UUID]:
    def place(row: ChunkRow | _VectorRow) -> tuple[object, ...]:
        return row.ordinal, row.start_offset, row.end_offset, row.text_hash

    return [
        number for number in in_catalog.keys() & in_table.keys() if place(in_catalog[number]) != place(in_table[number])
    ]


def _left_over(corpus: Corpus, files: Sequence[str], now: datetime) -> Iterator[Violation]:
    late = overdue(corpus, files, now)
    if late:
        what = f"{len(late)} files belong to nothing, and no sweep has removed them"
        yield Violation("no orphan files", None, what, late[:_NAMED_FILES])


def _doubt_violations(unfinished: Iterable[SagaRow], now: datetime) -> Iterator[Violation]:
    for saga in unfinished:
        silent = (now - saga.seen_at).total_seconds()
        if silent > DOUBT_SECONDS:
            what = f"saga {saga.id} is {saga.state} and silent for {math.ceil(silent)} s"
            yield Violation("nothing in doubt", None, what, [str(saga.id)])
