"""The rows of a table, summarised by document, and the catalog's rows that a rebuild creates from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from uuid import UUID

from ingest_pipeline.columns.declaration import Values, canonical
from ingest_pipeline.columns.values import Value
from ingest_pipeline.lance.chunk_table import table_columns
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.types import ChunkRow, Recipe

_BATCH_ROWS = 4096
_SCANNED_COLUMNS = ["document", "partition", "ordinal", "saga"]
_CHUNK_COLUMNS = [
    "id",
    "document",
    "ordinal",
    "start_offset",
    "end_offset",
    "text_hash",
    "saga",
    "page",
    "last_page",
    "heading",
]
_NEVER = datetime(1970, 1, 1).astimezone()

ChunkPosition = tuple[int, int, int, UUID]
"""Ordinal, start, end and text hash of a chunk."""


@dataclass(slots=True)
class TableDocument:
    """A document, as far as the rows of a table describe it."""

    key: str
    partition: str
    saga: str
    count: int = 0
    fragments: list[int] = field(default_factory=list[int])
    is_whole: bool = True
    columns: Values = field(default_factory=dict[str, Value])
    """Values of the user's columns."""
    _sum: int = 0
    _last: int = -1

    def add(self, partition: str, saga: str, ordinal: int, fragment: int, columns: Values) -> None:
        """Add one row."""
        if not self.count:
            self.columns = columns
        self.count += 1
        self._sum += ordinal
        self._last = max(self._last, ordinal)
        self.is_whole = self.is_whole and (saga, partition, columns) == (self.saga, self.partition, self.columns)
        if not self.fragments or self.fragments[-1] != fragment:
            self.fragments.append(fragment)

    @property
    def can_be_kept(self) -> bool:
        """Whether the rows are of one saga, and numbered from 0 without a gap."""
        return self.is_whole and self._last == self.count - 1 and self._sum == self.count * (self.count - 1) // 2

    @property
    def saga_id(self) -> UUID:
        """The saga that published the document."""
        return UUID(self.saga)


def scan(table: LanceTable, version: int) -> dict[str, TableDocument]:
    """Read all documents of a version, by key. Reads neither vectors nor texts."""
    found: dict[str, TableDocument] = {}
    columns = table_columns(table.at(version).schema).of_documents
    names = [*_SCANNED_COLUMNS, *columns.names]
    for fragment in table.fragments(version):
        for batch in table.batches(version, names, fragments=[fragment.number], batch_size=_BATCH_ROWS):
            for row in batch.to_pylist():
                key, partition, saga = row["document"], row["partition"], row["saga"]
                document = found.get(key) or found.setdefault(key, TableDocument(key, partition, saga))
                document.add(partition, saga, row["ordinal"], fragment.number, columns.of_row(row))
    return found


def chunk_rows(table: LanceTable, version: int, documents: Mapping[str, TableDocument]) -> Iterator[list[ChunkRow]]:
    """Read the chunks of some documents as rows of the catalog, a batch at a time."""
    numbers = sorted({number for document in documents.values() for number in document.fragments})
    columns = table_columns(table.at(version).schema).of_chunks
    names = [*_CHUNK_COLUMNS, *columns.names]
    for batch in table.batches(version, names, fragments=numbers, batch_size=_BATCH_ROWS):
        rows = [row for row in batch.to_pylist() if row["document"] in documents]
        if rows:
            yield [
                ChunkRow(
                    UUID(row["id"]),
                    row["document"],
                    row["ordinal"],
                    row["start_offset"],
                    row["end_offset"],
                    UUID(row["text_hash"]),
                    UUID(row["saga"]),
                    row["page"],
                    row["last_page"],
                    row["heading"],
                    columns.of_row(row),
                )
                for row in rows
            ]


def known_pairs(connection: Connection, documents: Sequence[TableDocument]) -> dict[str, bool]:
    """The documents that have a catalog row by the same saga, and whether that row was ever published."""
    rows = connection.execute(query("known_pairs"), _pairs(documents))
    return {row["key"]: row["was_published"] for row in rows}


def stage_documents(
    connection: Connection, generation: str, recipe: Recipe, documents: Sequence[TableDocument]
) -> None:
    """Write rows of documents, which readers do not see yet. They replace rows of an earlier rebuild that died."""
    connection.execute(query("forget_pairs"), _pairs(documents))
    values = {
        **_pairs(documents),
        "generation": generation,
        "recipes": [recipe.fingerprint_of(document.key) for document in documents],
        "partitions": [document.partition for document in documents],
        "counts": [document.count for document in documents],
        "columns": [canonical(document.columns) for document in documents],
        "never": _NEVER,
    }
    connection.execute(query("stage_rebuilt"), values)


def chunk_positions(connection: Connection, documents: Sequence[TableDocument]) -> dict[str, list[ChunkPosition]]:
    """The positions of the chunks of some documents, by key, in the order of the chunks."""
    rows = connection.execute(query("chunk_places"), _pairs(documents))
    grouped = groupby(rows, key=lambda row: str(row["document"]))
    return {
        key: [(row["ordinal"], row["start_offset"], row["end_offset"], row["text_hash"]) for row in group]
        for key, group in grouped
    }


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """Facts from the source about a document whose bytes produce its rows."""

    key: str
    saga: UUID
    etag: str
    size: int
    last_modified: datetime
    content_hash: str
    character_count: int


def record_facts(connection: Connection, facts: Sequence[SourceFacts]) -> None:
    """Record facts from the source, so that the next ingest finds nothing to do."""
    columns = {name: [getattr(fact, name) for fact in facts] for name in SourceFacts.__slots__}
    connection.execute(query("note_facts"), columns)


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """The documents of the catalog at the version that a rebuild publishes."""

    kept: Sequence[TableDocument]
    """Documents that do not change; only the fragments of their rows are recorded."""
    added: Sequence[TableDocument]
    """Documents whose staged rows become visible."""
    revived: Sequence[TableDocument]
    """Documents whose rows the catalog had marked as replaced."""
    removed: Mapping[str, str]
    """Documents that the catalog shows and the table lacks: their partitions by key."""


def write_change(connection: Connection, generation: str, saga: UUID, version: int, change: CatalogChange) -> None:
    """Let the catalog show exactly the documents of the table at a version."""
    new = [*change.added, *change.revived]
    superseded = [document.key for document in new] + list(change.removed)
    connection.execute(query("supersede_keys"), {"generation": generation, "keys": superseded, "version": version})
    connection.execute(query("revive_pairs"), _pairs(change.revived))
    connection.execute(query("publish_pairs"), {**_pairs(change.added), "version": version})
    tombstones = {"keys": list(change.removed), "partitions": list(change.removed.values())}
    connection.execute(
        query("insert_tombstones"), {**tombstones, "generation": generation, "saga": saga, "version": version}
    )
    _record_fragments(connection, [*change.kept, *new])


def _record_fragments(connection: Connection, documents: Sequence[TableDocument]) -> None:
    together: defaultdict[tuple[UUID, tuple[int, ...]], list[str]] = defaultdict(list)
    for document in documents:
        together[document.saga_id, tuple(document.fragments)].append(document.key)
    with connection.cursor() as cursor:
        cursor.executemany(
            query("place_documents"),
            [{"saga": saga, "keys": keys, "fragments": list(numbers)} for (saga, numbers), keys in together.items()],
        )


def published_sagas_of(connection: Connection, generation: str) -> dict[int, UUID]:
    """Sagas of the publications that were not retired, by version."""
    rows = connection.execute(query("published_sagas_of"), {"generation": generation})
    return {row["published_version"]: row["id"] for row in rows}


def _pairs(documents: Sequence[TableDocument]) -> dict[str, list[object]]:
    return {"keys": [one.key for one in documents], "sagas": [one.saga_id for one in documents]}
