"""Searches everything that this package keeps of a corpus for the fingerprints of erased documents.

Lance compresses some files, so each file is searched as it is and, if it is in Lance's format, by its decoded values.
Rows of other documents may have the same text. Their fingerprints are set aside first, because they may occur anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.erasure.fingerprints import Fingerprints
from ingest_pipeline.lance.erasing import NOTES, read_bytes, read_file
from ingest_pipeline.postgres.database import Connection, Database
from ingest_pipeline.postgres.ledger import erasures

_DATA = "data/"
_MAX_PLACES = 20
_SCHEMA = "ingest_pipeline"
# These two tables contain the fingerprints themselves.
_OF_ERASURES = {"erasure", "erased_document"}
_ROWS_AT_ONCE = 500


@dataclass(slots=True)
class Searched:
    """What a search found."""

    files: int = 0
    tables: int = 0
    found: set[int] = field(default_factory=set[int])
    """Fingerprints that were found."""
    places: list[str] = field(default_factory=list[str])
    """The files and tables in which they were found, the first twenty."""
    documents: set[str] = field(default_factory=set[str])
    """Other documents that have some of the text, the first twenty."""

    def note(self, place: str, hits: Collection[int]) -> None:
        """Add the fingerprints that were found in a file or a table."""
        if hits:
            self.found.update(hits)
            if len(self.places) < _MAX_PLACES and place not in self.places:
                self.places.append(place)


class Elsewhere(Protocol):
    """Another program's records of the documents, such as those of Dagster."""

    def erase(self, corpus: Corpus, keys: Sequence[str], prints: Fingerprints) -> dict[str, int]:
        """Remove the documents; returns the numbers of rows and files, by what they are. May be repeated."""
        ...

    def search(self, keys: Sequence[str], prints: Fingerprints, searched: Searched) -> None:
        """Search for the documents, and add what was found."""
        ...


def set_aside_shared(corpus: Corpus, keys: Collection[str], prints: Fingerprints, searched: Searched) -> None:
    """Find the fingerprints that rows of other documents have, and note those that rows of the erased ones have."""
    for name in sorted(corpus.table.all_files()):
        if not name.startswith(_DATA):
            continue
        for batch in read_file(corpus.table, name, None):
            hits = prints.hits(b"\n".join(_values(batch)))
            if hits:
                _attribute(batch, name, set(keys), prints, searched)


def _attribute(
    batch: pa.RecordBatch, name: str, keys: Collection[str], prints: Fingerprints, searched: Searched
) -> None:
    owners = batch.column("document").to_pylist() if "document" in batch.schema.names else [None] * len(batch)
    for row, owner in enumerate(owners):
        hits = prints.hits(b"\n".join(_values(batch.slice(row, 1))))
        if owner is None or owner in keys:
            searched.note(name, hits)
        elif hits:
            prints.shared |= hits
            if len(searched.documents) < _MAX_PLACES:
                searched.documents.add(owner)


def search_files(corpus: Corpus, prints: Fingerprints, searched: Searched) -> None:
    """Search all files of the table's folder, spool and indices included."""
    for name in sorted(corpus.table.all_files()):
        if name.startswith(f"{NOTES}/"):
            continue
        content = read_bytes(corpus.table, name)
        if content is None:
            continue
        searched.files += 1
        searched.note(name, prints.hits(content))
        if not name.startswith(_DATA):
            for batch in read_file(corpus.table, name, None):
                searched.note(name, prints.hits(b"\n".join(_values(batch))))


def search_tables(database: Database, prints: Fingerprints, searched: Searched) -> None:
    """Search all rows of the ledger and the catalog."""
    with database.transaction() as connection:
        for name in erasures.tables_of(connection, _SCHEMA):
            if name not in _OF_ERASURES:
                searched.note(f"table {name}", _hits_of_table(connection, name, prints))
                searched.tables += 1


def _hits_of_table(connection: Connection, name: str, prints: Fingerprints) -> set[int]:
    return hits_of_rows(erasures.rows_as_text(connection, _SCHEMA, name), prints.hits)


def hits_of_rows(rows: Iterator[str], hits: Callable[[bytes], set[int]]) -> set[int]:
    """The fingerprints that occur in some rows."""
    found: set[int] = set()
    block: list[str] = []
    for row in rows:
        block.append(row)
        if len(block) == _ROWS_AT_ONCE:
            found |= hits("\n".join(block).encode())
            block.clear()
    return found | hits("\n".join(block).encode())


def _values(batch: pa.RecordBatch) -> Iterator[bytes]:
    """The bytes of all texts, binary values and vectors of some rows."""
    for column in batch.columns:
        yield from _bytes_of(column)


def _bytes_of(column: pa.Array) -> Iterator[bytes]:
    kind = column.type
    if pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type):
        for vector in column:
            yield b"" if vector.values is None else vector.values.to_numpy(zero_copy_only=False).tobytes()
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _bytes_of(column.flatten())
    elif pa.types.is_dictionary(kind):
        yield from _bytes_of(column.dictionary)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield from (value.encode() for value in column.to_pylist() if value is not None)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        yield from (value for value in column.to_pylist() if value is not None)
