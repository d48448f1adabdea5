"""Readers check that every document at head is one published content in both stores, and that old heads are stable."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from random import Random
from typing import Any
from uuid import UUID

import numpy as np

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import UnavailableError, VersionGoneError
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.postgres.catalog.documents import DocumentRow
from ingest_pipeline.types import ChunkRow
from tests.support.servers.embedding_server import vector_of
from tests.support.storm.contents import Contents, fingerprint
from tests.support.storm.figures import Figures
from tests.support.storm.ledger import ErasedKeys, erased_keys, states_of
from tests.support.storm.stage import Stage

_COLUMNS = ["id", "document", "ordinal", "saga", "text", "vector"]
_PINNED = 40
_PAUSE = 0.3
_PIN_EVERY = 4


@dataclass(slots=True)
class Reading:
    """The content of both stores at one version."""

    version: int
    documents: dict[str, DocumentRow]
    chunks: dict[str, list[ChunkRow]]
    rows: dict[str, list[dict[str, Any]]]

    @classmethod
    def at(cls, corpus: Corpus, version: int) -> Reading:
        with corpus.database.transaction() as connection:
            seen = {row.key: row for row in documents.documents_at(connection, corpus.generation, version)}
        with corpus.database.transaction() as connection:
            listed = documents.chunks_at(connection, corpus.generation, version)
        chunks: defaultdict[str, list[ChunkRow]] = defaultdict(list)
        for chunk in listed:
            chunks[chunk.document].append(chunk)
        rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in corpus.table.rows(version, _COLUMNS).to_pylist():
            rows[row["document"]].append(row)
        for found in rows.values():
            found.sort(key=lambda row: row["ordinal"])
        return cls(version, seen, dict(chunks), dict(rows))

    def text(self, key: str) -> str | None:
        """The text of a document as a reader sees it; None if there is no document."""
        if key not in self.rows and key not in self.documents:
            return None
        return "".join(row["text"] for row in self.rows.get(key, []))

    def forbidden(self, states: Mapping[str, str], erased: Collection[str]) -> list[str]:
        """What the ledger says that no reader may see: rows of unpublished sagas, and erased documents.

        Args:
            states: The states of the sagas of the rows, as they were after the reading.
            erased: The documents that were erased before the reading began and not allowed again since.
        """
        there = {*self.documents, *self.chunks, *self.rows}
        found = [
            f"version {self.version}: {key} was erased, and is there" for key in sorted(there.intersection(erased))
        ]
        return found + unpublished_rows(f"version {self.version}", self.sagas(), states)

    def sagas(self) -> set[str]:
        """The sagas of all rows of the table."""
        return {row["saga"] for rows in self.rows.values() for row in rows}

    def digests(self) -> dict[str, str]:
        """A hash for each document, which is equal for readings with the same content.

        Two facts are ignored because they change in place: the ETag of a touched file, and the fragments of the rows.
        """
        same = {
            key: replace(row, etag="", last_modified=datetime.min, fragments=[])  # noqa: DTZ901  any constant serves
            for key, row in self.documents.items()
        }
        shown = {
            key: (
                same.get(key),
                self.chunks.get(key),
                [tuple(map(str, row.values())) for row in self.rows.get(key, [])],
            )
            for key in {*self.documents, *self.rows}
        }
        return {key: hashlib.sha256(repr(one).encode()).hexdigest() for key, one in shown.items()}

    def faults(self, contents: Contents, *, besides: Collection[str] = ()) -> list[str]:
        """Everything in the reading that no reader may see. Some documents are not considered."""
        keys = {*contents.known(), *self.documents, *self.chunks, *self.rows}.difference(besides)
        return [
            f"version {self.version}: {key}: {what}" for key in sorted(keys) for what in self._faults(key, contents)
        ]

    def _faults(self, key: str, contents: Contents) -> list[str]:
        document, chunks, rows = self.documents.get(key), self.chunks.get(key, []), self.rows.get(key, [])
        found: list[str] = []
        if [chunk.id for chunk in chunks] != [UUID(row["id"]) for row in rows]:
            found.append(f"{len(chunks)} chunks in the catalog are not the {len(rows)} rows of the table")
        sagas = {str(chunk.saga) for chunk in chunks} | {row["saga"] for row in rows}
        stated = set[str]() if document is None or not document.chunk_count else {str(document.saga)}
        if sagas != stated or len(rows) != (document.chunk_count if document else 0):
            found.append(f"is {document and document.saga} in the catalog, and its chunks are of {sorted(sagas)}")
        if not contents.sequences(key, fingerprint(self.text(key))):
            found.append(f"shows a content that the file never had: {(self.text(key) or 'absent')[:200]!r}")
        if any(not np.array_equal(np.asarray(row["vector"], np.float32), vector_of_text(row["text"])) for row in rows):
            found.append("has a vector of another text")
        return found


@lru_cache(maxsize=20_000)
def vector_of_text(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The vector that the endpoint of a storm gives to a text."""
    return vector_of(text, 32)


@dataclass(slots=True)
class Reader:
    """Reads at head repeatedly, and sometimes again at an earlier head."""

    contents: Contents
    figures: Figures
    random: Random
    _head: int = 0
    _floor: dict[str, int] = field(default_factory=dict[str, int])
    _pinned: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])

    def once(self, corpus: Corpus) -> None:
        began, head = datetime.now(UTC), corpus.head().head_version
        if head < self._head:
            self.figures.violation(f"head went back from {self._head} to {head}")
        if head > self._head:
            reading = Reading.at(corpus, head)
            erased = self._check_ledger(corpus, reading, began)
            # An erasure moves head when it deletes the rows in Postgres, and removes the versions before it afterwards.
            overtaken = erased.ever if corpus.head().head_version > head else frozenset[str]()
            for fault in reading.faults(self.contents, besides=overtaken):
                self.figures.violation(fault)
            self.check_progress(reading, erased.ever)
            self._pinned[head] = reading.digests()
            self._head = head
            self.figures.count("reads: of a new head")
            self.figures.count("reads: documents checked", len(reading.documents))
        if self.random.randrange(_PIN_EVERY) == 0:
            self._read_again(corpus)

    def _check_ledger(self, corpus: Corpus, reading: Reading, began: datetime) -> ErasedKeys:
        """Compare a reading with the ledger; returns which documents were erased."""
        with corpus.database.transaction() as connection:
            erased = erased_keys(connection, {*self.contents.known(), *reading.documents, *reading.rows}, began)
            states = states_of(connection, reading.sagas())
        for fault in reading.forbidden(states, erased.finished):
            self.figures.violation(fault)
        self.figures.count("reads: erased documents looked for", len(erased.finished))
        return erased

    def check_progress(self, reading: Reading, erased: Collection[str] = ()) -> None:
        """Check that no document returns to an earlier state. Documents that were ever erased may be absent."""
        for key in self.contents.known():
            if key in erased and reading.text(key) is None:
                continue
            later = [
                number
                for number in self.contents.sequences(key, fingerprint(reading.text(key)))
                if number >= self._floor.get(key, 0)
            ]
            if later:
                self._floor[key] = later[0]
            elif reading.text(key) is None or not reading.faults(self.contents):
                shown = (reading.text(key) or "absent")[:60]
                self.figures.violation(
                    f"version {reading.version}: {key} went back from state {self._floor[key]} to {shown!r}"
                )

    def _read_again(self, corpus: Corpus) -> None:
        version = self.random.choice(list(self._pinned))
        began, before = datetime.now(UTC), self._pinned[version]
        try:
            reading = Reading.at(corpus, version)
        except VersionGoneError as error:
            del self._pinned[version]
            self._check_erased(corpus, version, error)
            return
        now, erased = reading.digests(), self._check_ledger(corpus, reading, began)
        changed = {key for key in {*now, *before} if now.get(key) != before.get(key)}
        if changed - erased.ever:
            self.figures.violation(f"a second reading of version {version} shows other {sorted(changed - erased.ever)}")
        self.figures.count("reads: again at an old head")
        if len(self._pinned) > _PINNED:
            del self._pinned[self.random.choice(list(self._pinned))]

    def _check_erased(self, corpus: Corpus, version: int, error: VersionGoneError) -> None:
        """Check that an erasure has removed a version, since retention keeps all of them."""
        with corpus.database.transaction() as connection:
            if not erased_keys(connection, self.contents.known(), datetime.now(UTC)).ever:
                self.figures.violation(f"version {version} is gone, and nothing was erased: {error}")
        self.figures.count("reads: of a version that an erasure had removed")


def unpublished_rows(where: str, sagas: Collection[str], states: Mapping[str, str]) -> list[str]:
    """A fault for each saga that is not published, and of which a reader sees rows."""
    found = {saga: states.get(saga, "unknown") for saga in sorted(sagas)}
    return [
        f"{where}: has rows of saga {saga}, which is {state}" for saga, state in found.items() if state != "published"
    ]


def read(stage: Stage, name: str) -> None:
    """Read until the storm is over."""
    reader = Reader(stage.contents, stage.figures, stage.random(name))
    while not stage.calm.is_set():
        try:
            with stage.corpus() as corpus:
                while not stage.calm.wait(_PAUSE):
                    reader.once(corpus)
        except VersionGoneError:
            stage.figures.count("reads: of a head that an erasure has removed since")
        except UnavailableError:
            stage.figures.count("reads: refused by a store that was down")
            stage.calm.wait(_PAUSE)
