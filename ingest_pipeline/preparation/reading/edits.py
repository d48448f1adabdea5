"""Edits of large documents: only chunks that differ from those at head are embedded and written; the others move.

The text is cut again where it changed, see `chunking.recut`. The chunks that were cut there are compared with the rows
that the catalog has of them. What is left is added and removed, and every other row keeps its vector, its text and its
catalog row. The result is the same as if the whole document had been ingested.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from ingest_pipeline.chunking.blocks import decoded, may_have_blocks
from ingest_pipeline.chunking.recut import Recut
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.catalog import chunk_ranges
from ingest_pipeline.postgres.catalog.chunk_ranges import ChunkRange, between, joined
from ingest_pipeline.preparation.reading.document_reader import DocumentReader
from ingest_pipeline.types import Chunk, ChunkRow, MovedChunks, chunk_id

# A document with more of them is ingested as a whole, which takes little more then.
_MAX_CHUNKS_CUT: Final = 4096


@dataclass(slots=True)
class DocumentEdit:
    """What an edit changes in the rows of a document."""

    chunk_count: int
    """Chunks after the edit."""
    added: list[Chunk] = field(default_factory=list[Chunk])
    ids: dict[int, UUID] = field(default_factory=dict[int, UUID])
    """Ids of the added chunks, by ordinal."""
    removed: list[UUID] = field(default_factory=list[UUID])
    """Ids of the rows that leave the table."""
    moved: list[MovedChunks] = field(default_factory=list[MovedChunks])
    """The other rows, by ascending ordinal."""
    ranges: list[ChunkRange] = field(default_factory=list[ChunkRange])
    """Where the catalog has the chunks after the edit."""


class EditReader:
    """Reads documents that are edits of what is at head.

    Args:
        context: The ingest context of the corpus.
        saga: The saga that publishes the edits.
        in_full: Keys of documents that are to be ingested as a whole.
    """

    def __init__(self, context: IngestContext, saga: UUID, in_full: Collection[str]) -> None:
        self._context = context
        self._saga = saga
        self._in_full = in_full

    def may_read(self, plan: DocumentPlan, reader: DocumentReader) -> bool:
        """Whether a document may be an edit. False: `read` would return None at once."""
        latest, context = plan.latest, self._context
        if latest is None or latest.removed or plan.key in self._in_full or reader.is_whole:
            return False
        if not may_have_blocks(latest.chunk_count, context.chunker.characters):
            return False
        return latest.recipe == context.recipe.fingerprint_of(plan.key) and latest.partition == plan.partition

    def read(self, plan: DocumentPlan, reader: DocumentReader) -> DocumentEdit | None:
        """Read a document.

        Returns:
            The edit. None: the document has to be read again and ingested as a whole, with another reader.

        Raises:
            DocumentError, DocumentChangedError, SourceUnavailableError: As `DocumentReader.chunks`.
            UnavailableError: Postgres does not answer.
        """
        latest, context = plan.latest, self._context
        if latest is None or not self.may_read(plan, reader):
            return None
        with context.corpus.database.transaction() as connection:
            record = chunk_ranges.read_blocks(connection, latest.saga, plan.key)
        if record is None:
            return None
        cut = reader.recut(context.source, context.chunker, decoded(record), _MAX_CHUNKS_CUT)
        if cut is None:
            return None
        reader.limit(cut.chunk_count, context.limits)  # before anything is paid for
        return self._compared(plan.key, latest.saga, cut)

    def _compared(self, key: str, latest: UUID, cut: Recut) -> DocumentEdit | None:
        hashes = {chunk.text_hash for part in cut.cut for chunk in part.chunks}
        with self._context.corpus.database.transaction() as connection:
            ranges = chunk_ranges.ranges_of(connection, latest, key)
            wanted = [one for part in cut.cut for one in between(ranges, part.first, part.last)]
            rows = chunk_ranges.chunks_in(connection, key, wanted)
            hashes |= {row.text_hash for row in rows}
            repeated = chunk_ranges.ordinals_of_texts(connection, key, ranges, hashes)
        if len(rows) != sum(part.last - part.first for part in cut.cut):
            return None  # the catalog lacks some, and the rows at head are not those that it has
        ids = _ids(key, cut, repeated)
        return None if ids is None else self._edit(cut, ids, rows, ranges)

    def _edit(
        self, cut: Recut, ids: dict[int, UUID], rows: Sequence[ChunkRow], ranges: Sequence[ChunkRange]
    ) -> DocumentEdit:
        edit, there = DocumentEdit(cut.chunk_count), {row.id: row for row in rows}
        moved = list(cut.kept)
        for chunk in (chunk for part in cut.cut for chunk in part.chunks):
            row = there.get(ids[chunk.ordinal])
            if row is not None and _is_the_same(row, chunk):
                del there[row.id]
                shift = chunk.ordinal - row.ordinal
                moved.append(MovedChunks(row.ordinal, row.ordinal + 1, shift, chunk.start - row.start_offset))
            else:
                edit.added.append(chunk)
                edit.ids[chunk.ordinal] = ids[chunk.ordinal]
        edit.removed = list(there)
        edit.moved = sorted(moved, key=lambda one: one.first)
        kept = (part.moved(one) for one in moved for part in between(ranges, one.first, one.last))
        new = (ChunkRange(self._saga, chunk.ordinal, chunk.ordinal + 1) for chunk in edit.added)
        edit.ranges = joined([*kept, *new])
        return edit


def _is_the_same(row: ChunkRow, chunk: Chunk) -> bool:
    """Whether a row with the id of a chunk differs from it only by its position."""
    return row.heading == chunk.heading and row.end_offset - row.start_offset == chunk.end - chunk.start


def _ids(key: str, cut: Recut, repeated: Iterable[tuple[UUID, int]]) -> dict[int, UUID] | None:
    """The ids of the chunks that were cut again, by ordinal.

    Args:
        key: Key of the document.
        cut: The chunks.
        repeated: Text hashes and ordinals of all rows before the edit that have a text of the chunks.

    Returns:
        None if rows that are not cut again would get other ids, because texts before them occur more or less often.
    """
    before: defaultdict[UUID, list[int]] = defaultdict(list)
    for text_hash, ordinal in repeated:
        before[text_hash].append(ordinal)
    after: defaultdict[UUID, list[tuple[int, int | None]]] = defaultdict(list)
    for text_hash, ordinals in before.items():
        for number, ordinal in enumerate(sorted(ordinals)):
            shift = next((one.ordinal_shift for one in cut.kept if one.first <= ordinal < one.last), None)
            if shift is not None:
                after[text_hash].append((ordinal + shift, number))
    for chunk in (chunk for part in cut.cut for chunk in part.chunks):
        after[chunk.text_hash].append((chunk.ordinal, None))
    ids: dict[int, UUID] = {}
    for text_hash, places in after.items():
        for number, (ordinal, earlier) in enumerate(sorted(places, key=lambda place: place[0])):
            if earlier is None:
                ids[ordinal] = chunk_id(key, text_hash, number)
            elif earlier != number:
                return None
    return ids
