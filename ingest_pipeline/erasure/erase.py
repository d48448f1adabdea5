"""Erases documents from both stores, and searches for what may be left of them.

    read the text from the data files, and compute its fingerprints
    record the erasure in the ledger: from here on the documents cannot be published
    write a note of it into the folder of each table
    cleanse the table of each generation                 see `table`
    delete what other programs, such as Dagster, have
    rewrite the tables of Postgres that had rows
    search for the fingerprints in all files and tables
    delete keys and fingerprints from the ledger, and record that the erasure is finished

A process may die anywhere: the next recovery continues, and undoes nothing.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from uuid import UUID

import pyarrow as pa

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.corpus.opening import check_writable
from ingest_pipeline.erasure.fingerprints import Fingerprints
from ingest_pipeline.erasure.remains import Elsewhere, Searched, search_files, search_tables, set_aside_shared
from ingest_pipeline.erasure.table import Cleansed, check_no_tags, cleanse, files_with
from ingest_pipeline.errors import ConfigurationError, UnknownDocumentError
from ingest_pipeline.lance.erasing import rows_of, write_note
from ingest_pipeline.postgres.ledger import erasures
from ingest_pipeline.postgres.ledger.erasures import ErasureRow, key_hash
from ingest_pipeline.saga.generations import other_generations

_CONTENT = ("document", "text", "header", "text_hash", "vector")
_TABLES = (
    "document",
    "chunk",
    "failure",
    "hold",
    "embedded_batch",
    "batch_job",
    "saga",
    "run_failure",
    "staged_fragment",
    "extension_result",
    "gate_judgement",
)


_performed = set[UUID]()


@dataclass(slots=True)
class Receipt:
    """What an erasure removed, and what a search found afterwards. It contains no text of the documents."""

    erasure: UUID
    corpus: str
    documents: int
    reason: str
    fingerprints: int = 0
    """Fingerprints of the text that no other document has."""
    shared: int = 0
    """Fingerprints that were set aside, because other documents have the same text."""
    shared_with: list[str] = field(default_factory=list[str])
    """Keys of such documents."""
    found: int = 0
    """Fingerprints that were found after the erasure."""
    places: list[str] = field(default_factory=list[str])
    """Where they were found."""
    files: int = 0
    """Files that were searched."""
    tables: int = 0
    """Tables of Postgres that were searched."""
    removed: dict[str, int] = field(default_factory=dict[str, int])
    """Rows that were deleted or changed, by table; fragments, segments and versions."""
    skipped: list[str] = field(default_factory=list[str])
    """What the server did not allow, such as rewriting a table."""

    def __str__(self) -> str:
        return f"{self.found} of {self.fingerprints} found in {self.files} files, {self.tables} tables"


def erase(corpus: Corpus, keys: Sequence[str], *, reason: str, elsewhere: Elsewhere | None = None) -> Receipt:
    """Erase documents from all generations of a corpus, from all versions, and from everything beside them.

    The objects in the source are not touched. They are not ingested again unless the user allows it.

    Args:
        corpus: The current generation of the corpus.
        keys: Keys of the documents.
        reason: Why, for the ledger. It is kept, so it must not contain anything that is to be erased.
        elsewhere: What another program has of the documents.

    Raises:
        UnknownDocumentError: Neither store has one of the documents. Nothing was erased.
        ConfigurationError: A version with a tag contains one of them. Nothing was erased.
        ForeignWriteError, OtherDatabaseError: The user must first decide about the table.
        UnavailableError, ConflictError: The erasure was begun, and the next recovery continues it.
    """
    keys = list(dict.fromkeys(keys))
    erasure = uuid.uuid4()
    generations = [corpus, *other_generations(corpus)]
    for generation in generations:
        check_writable(generation)
    with corpus.database.transaction() as connection:
        salt = erasures.salt_of(connection, corpus.name)
    prints = collect(generations, keys, salt)
    _check_known(corpus, generations, keys, salt)
    with corpus.database.transaction() as connection:
        recorded = prints.recorded()
        row = erasures.record(
            connection, erasure, corpus=corpus.name, reason=reason, salt=salt, keys=keys, fingerprints=recorded
        )
    return Erasing(corpus, row, keys, prints, elsewhere).run()


@dataclass(slots=True)
class Erasing:
    """A recorded erasure, which any process can perform from its beginning, and repeat."""

    corpus: Corpus
    """The current generation of the corpus."""
    row: ErasureRow
    keys: Sequence[str]
    prints: Fingerprints
    elsewhere: Elsewhere | None
    """What another program has of the documents."""

    def run(self) -> Receipt:
        """Erase the documents, search for them, and end the erasure.

        Raises:
            ForeignWriteError, OtherDatabaseError: The user must first decide about the table.
            UnavailableError, ConflictError: The next recovery continues.
        """
        _performed.add(self.row.id)
        try:
            return self._run()
        finally:
            _performed.discard(self.row.id)

    def _run(self) -> Receipt:
        corpus, row = self.corpus, self.row
        receipt = Receipt(row.id, corpus.name, len(self.keys), row.reason)
        generations = [corpus, *other_generations(corpus)]
        for generation in generations:
            write_note(generation.table, str(row.id), note_of(row))
        removed = Counter[str]()
        for generation in generations:
            removed += _counts(cleanse(generation, row.id, self.keys))
            self._touch()
        with corpus.database.transaction() as connection:
            removed["extension_result"] += erasures.remove_results(connection, corpus.name)
        if self.elsewhere is not None:
            removed.update(self.elsewhere.erase(corpus, self.keys, self.prints))
            self._touch()
        receipt.skipped += corpus.database.rewrite_tables([f"ingest_pipeline.{name}" for name in _TABLES])
        receipt.removed = {name: number for name, number in sorted(removed.items()) if number}
        self._search(generations, receipt)
        finish(corpus, row.id, receipt)
        return receipt

    def _search(self, generations: Sequence[Corpus], receipt: Receipt) -> None:
        searched = Searched()
        for generation in generations:
            set_aside_shared(generation, self.keys, self.prints, searched)
        for generation in generations:
            search_files(generation, self.prints, searched)
            self._touch()
        search_tables(self.corpus.database, self.prints, searched)
        if self.elsewhere is not None:
            self.elsewhere.search(self.keys, self.prints, searched)
        salt = self.row.salt
        with self.corpus.database.transaction() as connection:
            hashes = [key_hash(salt, key) for key in self.keys]
            left = erasures.keys_by_hash(connection, self.corpus.name, salt, hashes)
        receipt.fingerprints, receipt.shared = self.prints.distinct + len(self.keys), len(self.prints.shared)
        receipt.found = len(searched.found) + len(left)
        receipt.places = [*searched.places, *(["a key in the catalog"] if left else [])]
        receipt.files, receipt.tables = searched.files, searched.tables
        receipt.shared_with = sorted(searched.documents)

    def _touch(self) -> None:
        with self.corpus.database.transaction() as connection:
            erasures.touch(connection, self.row.id)


def is_performed_here(erasure: UUID) -> bool:
    """Whether a thread of this process performs an erasure now."""
    return erasure in _performed


def finish(corpus: Corpus, erasure: UUID, receipt: Receipt | None) -> None:
    """Delete keys and fingerprints from the record, and from the file that has it, and end the erasure.

    Args:
        corpus: The corpus.
        erasure: The erasure.
        receipt: The outcome of the search. None: it is recorded already.
    """
    if receipt is not None:
        with corpus.database.transaction() as connection:
            erasures.note_search(
                connection,
                erasure,
                fingerprint_count=receipt.fingerprints,
                found=receipt.found,
                files=receipt.files,
                tables=receipt.tables,
            )
    skipped = corpus.database.rewrite_tables(["ingest_pipeline.erasure"])
    if receipt is not None:
        receipt.skipped = list(dict.fromkeys([*receipt.skipped, *skipped]))
    with corpus.database.transaction() as connection:
        erasures.finish(connection, erasure)


def collect(generations: Sequence[Corpus], keys: Sequence[str], salt: bytes) -> Fingerprints:
    """Collect the fingerprints of some documents from all rows of all data files.

    Raises:
        ConfigurationError: A version with a tag contains one of the documents.
    """
    tables: list[pa.Table] = []
    hashes: list[str] = []
    for generation in generations:
        files = files_with(generation, keys)
        check_no_tags(generation, files)
        for name in sorted(files):
            tables += rows_of(generation.table, name, keys, _CONTENT)
        with generation.database.transaction() as connection:
            hashes += erasures.content_hashes(connection, generation.generation, keys)
    return Fingerprints.of(salt, chain(_texts(tables), hashes), _vectors(tables))


def note_of(row: ErasureRow) -> dict[str, object]:
    """The note of an erasure in the table's folder. It contains no key and no text."""
    return {
        "erasure": str(row.id),
        "corpus": row.corpus,
        "reason": row.reason,
        "salt": row.salt.hex(),
        "key_hashes": [one.hex() for one in row.key_hashes],
        "requested_at": row.requested_at.isoformat(),
    }


def _texts(tables: Sequence[pa.Table]) -> Iterator[str]:
    for table in tables:
        for name in ("text", "header", "text_hash"):
            if name in table.column_names:
                yield from (value for value in table[name].to_pylist() if value)


def _vectors(tables: Sequence[pa.Table]) -> Iterator[bytes]:
    for table in tables:
        if "vector" in table.column_names:
            for vector in table["vector"]:
                yield vector.values.to_numpy(zero_copy_only=False).tobytes()


def _check_known(corpus: Corpus, generations: Sequence[Corpus], keys: Sequence[str], salt: bytes) -> None:
    if not keys:
        raise ConfigurationError("No document to erase was named", "Name the keys of documents.")
    hashes = [key_hash(salt, key) for key in keys]
    with corpus.database.transaction() as connection:
        known = set(erasures.keys_by_hash(connection, corpus.name, salt, hashes))
    for key in keys:
        if key not in known and not any(files_with(generation, [key]) for generation in generations):
            raise UnknownDocumentError(
                f"Neither store of corpus {corpus.name!r} has anything of a document {key!r}. Nothing was erased",
                "Keys are paths below the source. An object that was never ingested can be excluded in the settings.",
            )


def _counts(done: Cleansed) -> Counter[str]:
    return done.rows + Counter(
        {"fragments": done.fragments, "index segments": done.segments, "versions": done.versions}
    )
