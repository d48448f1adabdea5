"""Indexing: a new segment covers the fragments that no segment covers, and merges segments of about its size.

A segment is built from the rows, in one saga and one version. Like the groups of a compaction, segments grow by size: a
row is indexed about as often as the logarithm of the table's size, and there are about as many segments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from ingest_pipeline.columns.declaration import Column, Columns
from ingest_pipeline.columns.values import LIST
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import ConflictError
from ingest_pipeline.lance.chunk_table import table_columns
from ingest_pipeline.lance.indices import Indexing, IndexKind, Segment
from ingest_pipeline.lance.search import HAS_HEADER
from ingest_pipeline.maintenance.maintenance_saga import publish_maintenance
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.telemetry.logs import get_logger
from ingest_pipeline.types import counted

log = get_logger(__name__)

DOCUMENT_INDICES = (
    IndexKind("text", "INVERTED", least=1, tail=2_000),
    IndexKind("header", "INVERTED", least=1, tail=2_000),
    IndexKind("document", "BLOOMFILTER", least=20_000, tail=20_000),
    IndexKind("vector", "IVF", least=20_000, tail=10_000),
)
"""The indices of a corpus of documents. Lance needs the first two to find words; the second is built only if there are
headers. The others replace slow scans."""


_COLUMN_ROWS = 20_000


def column_indices(columns: Columns) -> list[IndexKind]:
    """The indices over the user's columns.

    Documents have few values for many rows, and a bitmap serves ranges, too. Each chunk may have a value of its own.
    """
    return [IndexKind(column.name, _index_type(column), _COLUMN_ROWS, _COLUMN_ROWS) for column in columns.columns]


def _index_type(column: Column) -> Literal["LABEL_LIST", "BITMAP", "BTREE"]:
    if column.type == LIST:
        return "LABEL_LIST"
    return "BTREE" if column.of_chunk and column.type != "bool" else "BITMAP"


@dataclass(frozen=True, slots=True)
class IndexReport:
    """One index after its update."""

    name: str
    rows: int
    """Rows of the table."""
    unindexed: int
    """Rows outside every segment, which are scanned."""
    segments: int
    built: int
    """Rows that this update indexed; 0 if no update was due."""


@dataclass(frozen=True, slots=True)
class _Work:
    """The segment to build for one index, and the segments that it replaces."""

    fragments: Sequence[int]
    replaced: frozenset[str]
    rows: int


def update_indices(corpus: Corpus, kinds: Sequence[IndexKind] | None = None) -> list[IndexReport]:
    """Build the segments that are due. Readers find the same rows before and after; nearest vectors are approximate.

    Args:
        corpus: The corpus to index.
        kinds: The indices to update. None: those of a corpus of documents, and none for a table of the user's own.

    Raises:
        UnavailableError, ForeignWriteError: See `publish_maintenance`; segments that were published keep their effect.
    """
    if kinds is None:
        head = corpus.head()
        columns = table_columns(corpus.table.at(head.head_version).schema)
        kinds = [kind for kind in DOCUMENT_INDICES if _is_used(corpus, kind)]
        kinds += column_indices(columns) if head.source is not None else []
    return [_update_index(corpus, kind) for kind in kinds]


def _is_used(corpus: Corpus, kind: IndexKind) -> bool:
    head = corpus.head()
    if head.source is None:
        return False
    return kind.column != "header" or corpus.table.count(head.head_version, HAS_HEADER) > 0


def replace_segments(corpus: Corpus, kind: IndexKind, stale: Collection[str]) -> bool | None:
    """Build one segment over the rows of some segments and the rows without a segment, and publish it in their place.

    Args:
        corpus: The corpus.
        kind: The index.
        stale: Ids of the segments to replace.

    Returns:
        Whether the segment was published; it is not if the fragments changed meanwhile. None: there are no rows.
    """
    head = corpus.head().head_version
    rows, segments = _row_counts(corpus, head), corpus.table.segments(head, kind)
    kept = {number for segment in segments if segment.uuid not in stale for number in segment.fragments}
    numbers = sorted(number for number in rows if number not in kept)
    work = _Work(numbers, frozenset(stale), sum(rows[number] for number in numbers))
    return _build(corpus, head, kind, work) if numbers else None


def _update_index(corpus: Corpus, kind: IndexKind) -> IndexReport:
    head = corpus.head().head_version
    work = due(kind, _row_counts(corpus, head), corpus.table.segments(head, kind))
    built = work.rows if work is not None and _build(corpus, head, kind, work) else 0
    head = corpus.head().head_version
    rows, segments = _row_counts(corpus, head), corpus.table.segments(head, kind)
    covered = {number for segment in segments for number in segment.fragments}
    unindexed = sum(count for number, count in rows.items() if number not in covered)
    return IndexReport(kind.name, sum(rows.values()), unindexed, len(segments), built)


def due(kind: IndexKind, rows: Mapping[int, int], segments: Sequence[Segment]) -> _Work | None:
    """The segment to build, and the segments that it replaces; None if nothing is due.

    Args:
        kind: The index.
        rows: The number of rows of each fragment.
        segments: The existing segments of the index.
    """
    covered = {number for segment in segments for number in segment.fragments}
    numbers = [number for number in rows if number not in covered]
    count = sum(rows[number] for number in numbers)
    fragmented = [segment for segment in segments if 2 * len(segment.fragments & rows.keys()) <= len(segment.fragments)]
    if count < (kind.tail if segments else kind.least) and not fragmented:
        return None
    replaced: set[str] = set()
    for segment in sorted(segments, key=lambda one: (one not in fragmented, _live(rows, one))):
        # Segments are in ascending order, so the first one that is too large ends the loop.
        if segment not in fragmented and _live(rows, segment) > count:
            break
        replaced.add(segment.uuid)
        numbers += segment.fragments & rows.keys()
        count += _live(rows, segment)
    return _Work(sorted(numbers), frozenset(replaced), count) if numbers else None


def _live(rows: Mapping[int, int], segment: Segment) -> int:
    return sum(rows.get(number, 0) for number in segment.fragments)


def _row_counts(corpus: Corpus, version: int) -> dict[int, int]:
    return {fragment.number: fragment.rows for fragment in corpus.table.fragments(version)}


@dataclass(frozen=True, slots=True)
class _Indexed:
    """A segment to publish; the catalog does not change."""

    corpus: Corpus
    change: Indexing

    def write(self, connection: Connection, base: int, version: int) -> Indexing:  # noqa: ARG002  of the protocol
        if not self.corpus.table.fits(base, self.change):
            raise ConflictError(
                f"The fragments of index {self.change.built.kind.name!r} of corpus {self.corpus.name!r} have changed"
            )
        return self.change

    def record_fragments(self, connection: Connection, version: int, fragments: dict[str, int]) -> None:
        """No row has moved."""


def _build(corpus: Corpus, head: int, kind: IndexKind, work: _Work) -> bool:
    def prepare(saga: UUID) -> _Indexed:
        built = corpus.table.build_segment(head, kind, work.fragments, saga)
        return _Indexed(corpus, Indexing(built, work.replaced))

    version = publish_maintenance(corpus, head, prepare)
    if version is not None:
        log.info(
            "corpus %s: index %s has a new segment of %s, which replaces %s",
            corpus.generation,
            kind.name,
            counted(work.rows, "row"),
            counted(len(work.replaced), "segment"),
        )
    return version is not None
