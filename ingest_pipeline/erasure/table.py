"""Cleanses one LanceDB table of documents, as publications that any other writer may meet.

    read all data files of the folder: which of them have rows of the documents, deleted rows included
    publish a version in which the fragments with such rows are replaced by files without them; the same transaction
        deletes the documents' rows in Postgres and ends all unfinished sagas
    replace the segments of indices that were built over these fragments
    retire and remove all versions that read one of the files, then the files that no version reads
    sweep

Each step begins with what it finds, so the sequence can be repeated from its beginning after a death at any point. A
writer that read the table before the publication cannot publish any more, because its saga began on an earlier version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import pyarrow as pa

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import ConfigurationError, ConflictError, StaleError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import Compaction, FragmentState, StagedFragment
from ingest_pipeline.lance.chunk_table import table_columns
from ingest_pipeline.lance.erasing import SegmentRemoval, VersionContent, content_of, rows_of
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.maintenance.indexing import DOCUMENT_INDICES, column_indices, replace_segments
from ingest_pipeline.maintenance.retention import count_publications
from ingest_pipeline.maintenance.sweep import sweep
from ingest_pipeline.postgres.catalog import documents, gates, history, prepared_documents
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import erasures, sagas
from ingest_pipeline.postgres.ledger.sagas import RetiredBy, SagaKind
from ingest_pipeline.saga.lifecycle import Saga
from ingest_pipeline.saga.reconcile import lock
from ingest_pipeline.telemetry.logs import get_logger

log = get_logger(__name__)

_ATTEMPTS = 5
_BATCH_ROWS = 1024


@dataclass(slots=True)
class Cleansed:
    """What was removed from one table and its catalog."""

    generation: str
    rows: Counter[str] = field(default_factory=Counter[str])
    """Rows of Postgres that were deleted or changed, by table."""
    fragments: int = 0
    """Fragments that were rewritten or removed."""
    segments: int = 0
    """Segments of indices that were replaced or removed."""
    versions: int = 0
    """Versions that were removed."""


def files_with(corpus: Corpus, keys: Collection[str]) -> set[str]:
    """Data files in the table's folder that have rows of the documents, in a version or not."""
    return {name for name in corpus.table.all_files() if rows_of(corpus.table, name, keys)}


def check_no_tags(corpus: Corpus, files: Collection[str]) -> None:
    """Refuse an erasure that a tag would undo, since nothing else removes a version with a tag.

    Raises:
        ConfigurationError: A version with a tag reads one of the files. Nothing was erased.
    """
    for version in corpus.table.tagged_versions():
        if not content_of(corpus.table, version).files.isdisjoint(files):
            raise ConfigurationError(
                f"Version {version} of the table of corpus {corpus.name!r} has a tag and contains a document to "
                "erase. Nothing was erased",
                "Delete the tag, then run the command again.",
            )


def cleanse(corpus: Corpus, erasure: UUID, keys: Sequence[str]) -> Cleansed:
    """Remove documents from the table of one generation and from its catalog rows. May be repeated.

    Raises:
        ConflictError: Other writers changed the same fragments at every attempt.
        ForeignWriteError, OtherDatabaseError, UnavailableError: See `publish`. The next recovery continues.
    """
    done = Cleansed(corpus.generation)
    files = files_with(corpus, keys)
    _remove_rows(corpus, erasure, keys, files, done)
    _replace_segments(corpus, done)
    _remove_versions(corpus, files, done)
    sweep(corpus)
    for name in files & corpus.table.all_files():
        # A file of another database or program, which the sweep does not touch.
        if name not in content_of(corpus.table, corpus.head().head_version).files:
            corpus.table.remove_file(name)
    return done


@dataclass(frozen=True, slots=True)
class _Removal:
    """Fragments with rows of the documents, and the files that replace them: the change of both stores."""

    corpus: Corpus
    saga: UUID
    keys: Sequence[str]
    concerned: Collection[str]
    """All documents with rows in the fragments. They stay the same, because the fragments do, or `write` raises."""
    fragments: Mapping[int, FragmentState]
    files: Mapping[int, StagedFragment]
    """The file that replaces each fragment. A fragment without other rows has none."""
    schema: pa.Schema
    rows: Counter[str]
    """Filled with the number of Postgres rows that were deleted or changed, by table."""

    def write(self, connection: Connection, base: int, version: int) -> Compaction:  # noqa: ARG002  of the protocol
        present = self.corpus.table.states(base, self.fragments)
        known = documents.latest_documents(connection, self.corpus.generation, keys=self.keys)
        elsewhere = {number for document in known if not document.removed for number in document.fragments}
        if present != self.fragments or not elsewhere <= self.fragments.keys():
            raise ConflictError(
                f"The table of corpus {self.corpus.name!r} changed while documents were removed from its files",
                "Run again: the erasure continues.",
            )
        reason = "documents were erased while it was unfinished"
        for saga in sagas.abandon_live(connection, self.corpus.generation, reason, keep=[self.saga]):
            prepared_documents.forget_documents(connection, saga)
        gates.forget_details(connection, self.corpus.generation)
        self.rows.clear()
        self.rows.update(erasures.remove_rows(connection, self.corpus.generation, self.keys))
        sagas.forget_fragments(connection, self.saga)
        return Compaction(list(self.files.values()), list(self.fragments), self.schema)

    def record_fragments(self, connection: Connection, version: int, fragments: dict[str, int]) -> None:  # noqa: ARG002  of the protocol
        moved = {number: fragments[file.name] for number, file in self.files.items()}
        documents.move_rows(connection, self.corpus.generation, keys=self.concerned, moved=moved)


@dataclass(frozen=True, slots=True)
class _SegmentsRemoved:
    """Segments without rows to index; the catalog does not change."""

    change: SegmentRemoval

    def write(self, connection: Connection, base: int, version: int) -> SegmentRemoval:  # noqa: ARG002  of the protocol
        return self.change

    def record_fragments(self, connection: Connection, version: int, fragments: dict[str, int]) -> None:
        """No row has moved."""


def _remove_rows(corpus: Corpus, erasure: UUID, keys: Sequence[str], files: Collection[str], done: Cleansed) -> None:
    for attempt in range(_ATTEMPTS):
        head = corpus.head().head_version
        numbers = _fragments_with(content_of(corpus.table, head), files)
        if not numbers and _is_removed(corpus, erasure, keys):
            return
        rows = Counter[str]()
        try:
            with Saga.begin(corpus, SagaKind.ERASURE, base_version=head) as saga:
                staged = _rewrite(corpus, saga, numbers, keys)
                schema = corpus.table.at(head).schema
                states = corpus.table.states(head, numbers)
                with corpus.database.transaction() as connection:
                    concerned = documents.documents_in(connection, corpus.generation, head, numbers).keys()
                saga.prepared()
                saga.publish(_Removal(corpus, saga.id, keys, concerned, states, staged, schema, rows))
        except StaleError as error:
            if attempt == _ATTEMPTS - 1:
                raise
            log.info("corpus %s: erasing again: %s", corpus.generation, error)
            continue
        done.fragments += len(numbers)
        done.rows += rows
        return


def _is_removed(corpus: Corpus, erasure: UUID, keys: Sequence[str]) -> bool:
    """Whether the rows of Postgres are gone, and no earlier writer can publish any more."""
    with corpus.database.transaction() as connection:
        return erasures.has_erased(connection, corpus.generation, erasure) and not documents.latest_documents(
            connection, corpus.generation, keys=keys
        )


def _fragments_with(content: VersionContent, files: Collection[str]) -> list[int]:
    return sorted(number for number, names in content.fragments.items() if not names.isdisjoint(files))


def _rewrite(corpus: Corpus, saga: Saga, numbers: Sequence[int], keys: Sequence[str]) -> dict[int, StagedFragment]:
    """Write the other rows of each fragment into a file of its own; returns the files by fragment."""
    head = saga.base_version
    schema = corpus.table.at(head).schema
    others = f"NOT ({one_of('document', keys)})"
    staged: dict[int, StagedFragment] = {}
    for number in numbers:
        if not corpus.table.count(head, others, [number]):
            continue
        name = f"{saga.id}-{len(staged)}.lance"
        batches = corpus.table.batches(head, schema.names, others, [number], batch_size=_BATCH_ROWS)
        staged[number] = corpus.table.stage_batches(name, batches, schema)
        with boundary(Boundary.FRAGMENT_RECORDED), corpus.database.transaction() as connection:
            sagas.record_fragment(connection, saga.id, name=name, row_count=staged[number].row_count)
    return staged


def _replace_segments(corpus: Corpus, done: Cleansed) -> None:
    """Replace the segments at head that were built over a fragment that head no longer has."""
    for _ in range(_ATTEMPTS):
        head = corpus.head().head_version
        content = content_of(corpus.table, head)
        stale = _stale_segments(content)
        if not stale:
            return
        kinds = [*DOCUMENT_INDICES, *column_indices(table_columns(corpus.table.at(head).schema))]
        known = {kind.name: kind for kind in kinds}
        for name, found in stale.items():
            replaced = replace_segments(corpus, known[name], found) if name in known else None
            if replaced is None:
                _remove_segments(corpus, found)
            done.segments += 0 if replaced is False else len(found)
    raise ConflictError(
        f"The indices of corpus {corpus.name!r} changed at every attempt to replace their segments",
        "Run again: the erasure continues.",
    )


def _stale_segments(content: VersionContent) -> dict[str, set[str]]:
    """The segments that were built over a fragment which the version no longer has, by the name of their index."""
    found = {
        name: {segment.uuid for segment in segments if not segment.fragments <= content.fragments.keys()}
        for name, segments in content.segments.items()
    }
    return {name: stale for name, stale in found.items() if stale}


def _remove_segments(corpus: Corpus, stale: Collection[str]) -> None:
    with Saga.begin(corpus, SagaKind.ERASURE, base_version=corpus.head().head_version) as saga:
        saga.prepared()
        saga.publish(_SegmentsRemoved(SegmentRemoval(frozenset(stale))))


def _remove_versions(corpus: Corpus, files: Collection[str], done: Cleansed) -> None:
    """Remove the versions that read one of the files, or a segment that may have words of the documents."""
    head = corpus.head().head_version
    contents = {version: content_of(corpus.table, version) for version in corpus.table.versions() if version < head}
    with_rows = {version: bool(_fragments_with(content, files)) for version, content in contents.items()}
    gone = {number for content in contents.values() for number in _fragments_with(content, files)}
    with_words = [
        version for version, content in contents.items() if not with_rows[version] and _may_have_words(content, gone)
    ]
    # Versions with rows are removed last: as long as there is one, a repetition finds the others, too.
    for versions in (with_words, [version for version, has_rows in with_rows.items() if has_rows]):
        if not versions:
            continue
        count_publications(corpus, head, versions)
        with corpus.database.transaction() as connection:
            lock(connection, corpus)
            with boundary(Boundary.RETIRED):
                history.retire_versions(connection, corpus.generation, head, versions, by=RetiredBy.ERASURE)
        corpus.table.remove_versions(versions)
        done.versions += len(versions)


def _may_have_words(content: VersionContent, gone: Collection[int]) -> bool:
    """Whether a segment was built over one of these fragments, or over one that is no longer known."""
    segments = [segment for found in content.segments.values() for segment in found]
    return bool(_stale_segments(content)) or any(not segment.fragments.isdisjoint(gone) for segment in segments)
