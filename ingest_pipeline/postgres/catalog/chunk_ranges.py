"""Chunk rows that several rows of one document share, so that an edit writes only the rows of the chunks it changed.

A document row that an edit made has ranges: runs of chunk rows of its own saga or of earlier ones, and what to add to
their ordinals and offsets. Every function with a connection runs in its caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from psycopg.rows import class_row

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.types import ChunkRow, MovedChunks

MAX_RANGES: Final = 256
"""Ranges of a document row, at most. If there are more, the shared chunk rows are copied."""
_NO_END: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ChunkRange:
    """Chunk rows that a saga wrote, with their positions in a document row that shares them."""

    saga: UUID
    first: int
    """Ordinal of the first of them, in the row."""
    last: int
    """Ordinal after the last of them, in the row."""
    ordinal_shift: int = 0
    offset_shift: int = 0

    def moved(self, moved: MovedChunks) -> ChunkRange:
        """The range after an edit that moves all of its chunks."""
        return replace(
            self,
            ordinal_shift=self.ordinal_shift + moved.ordinal_shift,
            offset_shift=self.offset_shift + moved.offset_shift,
        )


@dataclass(frozen=True, slots=True)
class DocumentPlace:
    """Where the rows of a document are in the table."""

    key: str
    fragments: list[int]
    chunk_count: int


def between(ranges: Iterable[ChunkRange], first: int, last: int) -> Iterator[ChunkRange]:
    """The parts of some ranges that have the chunks of a document from one ordinal to before another."""
    for one in ranges:
        low, high = max(first - one.ordinal_shift, one.first), min(last - one.ordinal_shift, one.last)
        if low < high:
            yield replace(one, first=low, last=high)


def joined(ranges: Iterable[ChunkRange]) -> list[ChunkRange]:
    """The ranges in the order of their chunks, with neighbours in one."""
    found: list[ChunkRange] = []
    for one in sorted(ranges, key=lambda other: other.first + other.ordinal_shift):
        if found and found[-1] == replace(one, first=found[-1].first, last=one.first):
            found[-1] = replace(one, first=found[-1].first)
        else:
            found.append(one)
    return found


def read_blocks(connection: Connection, saga: UUID, key: str) -> bytes | None:
    """Return the record of the blocks of a document; None if it has none."""
    row = connection.execute(query("read_blocks"), {"saga": saga, "key": key}).fetchone()
    return row and row["blocks"]


def ranges_of(connection: Connection, saga: UUID, key: str) -> list[ChunkRange]:
    """Return the ranges of a document row. One that shares nothing has a single range."""
    with connection.cursor(row_factory=class_row(ChunkRange)) as cursor:
        found = cursor.execute(query("read_ranges"), {"saga": saga, "key": key}).fetchall()
    return found or [ChunkRange(saga, 0, _NO_END)]


def chunks_in(connection: Connection, key: str, ranges: Sequence[ChunkRange]) -> list[ChunkRow]:
    """Return the chunks of a document in some ranges, at the positions that the ranges give them."""
    with connection.cursor(row_factory=class_row(ChunkRow)) as cursor:
        return cursor.execute(query("chunks_in_ranges"), {"key": key, **_columns(ranges)}).fetchall()


def ordinals_of_texts(
    connection: Connection, key: str, ranges: Sequence[ChunkRange], hashes: Collection[UUID]
) -> list[tuple[UUID, int]]:
    """Return the text hashes and ordinals of the chunks of a document that have one of some texts."""
    values = {"key": key, "sagas": list({one.saga for one in ranges}), "text_hashes": list(hashes)}
    return [
        (row["text_hash"], row["ordinal"] + one.ordinal_shift)
        for row in connection.execute(query("rows_of_texts"), values)
        for one in ranges
        if one.saga == row["saga"] and one.first <= row["ordinal"] < one.last
    ]


def share_chunks(connection: Connection, saga: UUID, key: str, ranges: Sequence[ChunkRange]) -> None:
    """Let a document row share chunk rows. Its own rows are written already."""
    connection.execute(query("share_chunks"), {"saga": saga, "key": key, **_columns(ranges)})
    if len(ranges) > MAX_RANGES:
        connection.execute(query("copy_shared_chunks"), {"saga": saga, "key": key})
        connection.execute(query("forget_ranges"), {"saga": saga, "key": key})


def places_of(
    connection: Connection, generation: str, documents: Sequence[tuple[str, UUID]]
) -> tuple[int, list[DocumentPlace]]:
    """Return the version at head, and where the rows of some documents are there, given by keys and sagas."""
    values = {
        "generation": generation,
        "keys": [key for key, _ in documents],
        "sagas": [saga for _, saga in documents],
    }
    rows = connection.execute(query("places_of"), values).fetchall()
    places = [DocumentPlace(row["key"], row["fragments"], row["chunk_count"]) for row in rows if row["key"] is not None]
    return (rows[0]["head_version"] if rows else 0), places


def _columns(ranges: Sequence[ChunkRange]) -> dict[str, list[UUID] | list[int]]:
    return {
        "sagas": [one.saga for one in ranges],
        "firsts": [one.first for one in ranges],
        "lasts": [one.last for one in ranges],
        "ordinal_shifts": [one.ordinal_shift for one in ranges],
        "offset_shifts": [one.offset_shift for one in ranges],
    }
