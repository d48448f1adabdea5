"""Rebuild: brings the catalog to the state of the table, without embedding anything.

The table can outlive its database: a restored backup sets the catalog back, a lost server loses it, and retention may
have removed the version that an old catalog names. But every version contains whole publications, and a row names its
document, partition, position, text and saga. So the newest complete version of the table is published again, by this
database, and the catalog gets the rows that belong to it.

Facts that the table lacks are read from the source. If a document's bytes still produce the same chunks, it is recorded
with its ETag and hash, and the next ingest finds nothing to do. Otherwise it is recorded without them, so that the next
ingest publishes the changes. The next ingest also removes deleted documents, by its usual rules.

Readers see nothing before the one short transaction under the lock. If a rebuild dies, the next one starts from the
beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.corpus.head_manifest import install_head, install_published
from ingest_pipeline.corpus.table_identity import examine, mark_for, origins
from ingest_pipeline.errors import (
    ConflictError,
    DocumentError,
    ForeignWriteError,
    OtherDatabaseError,
    StaleError,
    TableDamagedError,
)
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import Change, Removal
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.lance.table import REBUILD, LanceTable
from ingest_pipeline.lance.versions.manifests import NewVersion
from ingest_pipeline.lance.versions.version_mark import VersionMark
from ingest_pipeline.maintenance.sweep import saga_of_file
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres.catalog import corpora, documents, history, prepared_documents
from ingest_pipeline.postgres.catalog.binding import binding_of, rebind
from ingest_pipeline.postgres.catalog.corpora import GenerationRow
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import RetiredBy, SagaKind, SagaState
from ingest_pipeline.preparation.reading.document_columns import document_columns
from ingest_pipeline.preparation.reading.document_reader import DocumentReader
from ingest_pipeline.preparation.reading.extension_calls import ExtensionCalls
from ingest_pipeline.restore.rebuild_rows import (
    CatalogChange,
    ChunkPosition,
    SourceFacts,
    TableDocument,
    chunk_positions,
    chunk_rows,
    known_pairs,
    published_sagas_of,
    record_facts,
    scan,
    stage_documents,
    write_change,
)
from ingest_pipeline.saga.lifecycle import Saga
from ingest_pipeline.telemetry.logs import get_logger
from ingest_pipeline.types import SourceObject

log = get_logger(__name__)

_STEP_DOCUMENTS = 500


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild found, kept and skipped."""

    corpus: str
    head_before: int
    head_after: int
    content_of: int
    """The version of the table whose content is head now."""
    skipped: list[int]
    """Newer versions that are incomplete or are not publications."""
    kept: int
    """Documents whose rows agree in catalog and table."""
    added: int
    """Documents whose rows were read from the table."""
    removed: list[str]
    """Documents that the catalog had and the table lacks."""
    incomplete: list[str]
    """Documents with inconsistent rows. They were removed from the table, and the next ingest publishes them again."""
    changed: list[str]
    """Added documents whose source object has changed since, or is gone."""
    unknown_sagas: int
    """Sagas that published rows of the table and were missing from the ledger."""


@dataclass(frozen=True, slots=True)
class _Content:
    """The version of the table whose content is published again."""

    version: int
    latest: int
    skipped: list[int]
    died: set[UUID]
    """Sagas of this database whose versions were never published."""
    marks: dict[int, VersionMark | None]
    """The marks of all versions of the table."""


def rebuild_catalog(context: IngestContext) -> RebuildReport | None:
    """Bring the catalog to the newest complete version of the table.

    Args:
        context: The corpus, whose row the catalog has.

    Returns:
        The report, or None if catalog and table already agree and belong together.

    Raises:
        OtherDatabaseError: No version of the table is complete. Nothing was changed.
        ConflictError: Another writer published meanwhile. Nothing was changed.
        UnavailableError: The source or one of the stores does not answer. Nothing was changed.
    """
    corpus = context.corpus
    head = corpus.row()
    with suppress(ForeignWriteError):  # head is then not among the versions to choose from
        install_head(corpus.table, head)
    content = _choose(corpus, replace(head, table_uri=corpus.table.uri))
    if content is None:
        return None
    with Saga.begin(corpus, SagaKind.REBUILD, base_version=head.head_version) as saga:
        saga.prepared()
        return _Rebuild(context, head, content, saga.id).run()


def _choose(corpus: Corpus, head: GenerationRow) -> _Content | None:
    """The newest complete version that is a publication; None if that is head, and this database wrote it."""
    table = corpus.table
    latest = _drop_unreadable(table)
    marks = {version: table.readable_mark(version) for version in table.versions()}
    above = {version: mark for version, mark in marks.items() if version > head.head_version}
    with corpus.database.transaction() as connection:
        made = origins(connection, above)
        ends = sagas.outcomes(connection, [mark.saga for mark in above.values() if mark is not None])
        finding = examine(connection, head, table)
    files = table.all_files()
    died = {
        mark.saga
        for version, mark in above.items()
        if mark is not None and made[version] == "ours" and ends[mark.saga].state != SagaState.PUBLISHED
    }
    skipped: list[int] = []
    for version in sorted(marks, reverse=True):
        mark = marks[version]
        if mark is None or mark.saga in died or table.files_of(version) - files:
            skipped.append(version)
            continue
        is_head = version == head.head_version and mark.saga == head.head_saga
        if is_head and finding.is_ours and finding.written_at == head.table_uri:
            return None
        return _Content(version, latest, skipped, died, marks)
    raise OtherDatabaseError(
        f"No version of the table of corpus {head.corpus!r} at {head.table_uri} is complete. Nothing was changed",
        "Restore a backup of the table there, or delete the corpus with `ingest-pipeline drop`.",
    )


def _drop_unreadable(table: LanceTable) -> int:
    """Remove unreadable manifests at the end of the table: nothing can be published on top of them."""
    while True:
        try:
            return table.latest_version()
        except TableDamagedError:
            table.remove_manifest(max(table.versions()))


class _Rebuild:
    """One rebuild, in one saga."""

    def __init__(self, context: IngestContext, head: GenerationRow, content: _Content, saga: UUID) -> None:
        self._context = context
        self._corpus = context.corpus
        self._head = head
        self._content = content
        self._saga = saga

    def run(self) -> RebuildReport:
        found = scan(self._corpus.table, self._content.version)
        incomplete = sorted(key for key, document in found.items() if not document.can_be_kept)
        documents = {key: document for key, document in found.items() if document.can_be_kept}
        unknown = self._adopt(documents.values())
        change = self._compare(documents)
        self._stage(change.added)
        unchanged = self._read_source(change.added)
        self._corpus.table.flush()  # it may have been restored from a backup a moment ago
        version = self._publish(change, incomplete)
        changed = sorted(document.key for document in change.added if document.key not in unchanged)
        return RebuildReport(
            self._corpus.name,
            self._head.head_version,
            version,
            self._content.version,
            self._content.skipped,
            len(change.kept) + len(change.revived),
            len(change.added),
            sorted(change.removed),
            incomplete,
            changed,
            unknown,
        )

    def _adopt(self, documents: Iterable[TableDocument]) -> int:
        """Record the sagas of rows, versions and files; returns how many the ledger lacked."""
        found = {mark.saga: version for version, mark in self._content.marks.items() if mark is not None}
        for document in documents:
            found.setdefault(document.saga_id, self._content.version)
        taken_over = found.keys() - self._content.died
        for name in self._corpus.table.all_files():
            if saga := saga_of_file(name):
                found.setdefault(saga, self._content.version)
        note = f"taken over from version {self._content.version} of the table by `recover --rebuild-catalog`"
        with self._corpus.database.transaction() as connection:
            known = sagas.known_sagas(connection, self._corpus.generation, found)
            sagas.record_unknown(connection, self._corpus.generation, found, SagaState.ADOPTED, note)
            sagas.adopt(connection, self._corpus.generation, taken_over, note)
        return len(found.keys() - known)

    def _compare(self, found: Mapping[str, TableDocument]) -> CatalogChange:
        with self._corpus.database.transaction() as connection:
            latest = {one.key: one for one in documents.latest_documents(connection, self._corpus.generation)}
        kept: list[TableDocument] = []
        other: list[TableDocument] = []
        for key, document in found.items():
            row = latest.get(key)
            same = row is not None and not row.removed and row.saga == document.saga_id
            (kept if same and row is not None and row.chunk_count == document.count else other).append(document)
        added: list[TableDocument] = []
        revived: list[TableDocument] = []
        for some in _in_groups(other):
            with self._corpus.database.transaction() as connection:
                known = known_pairs(connection, some)
            for document in some:
                (revived if known.get(document.key) else added).append(document)
        # A document without chunks has no row in the table: only the catalog has it.
        gone = {
            key: row.partition
            for key, row in latest.items()
            if key not in found and not row.removed and row.chunk_count
        }
        return CatalogChange(kept, added, revived, gone)

    def _stage(self, added: Sequence[TableDocument]) -> None:
        """Write the rows of documents and chunks, which readers do not see yet."""
        recipe = self._context.recipe
        for some in _in_groups(added):
            with self._corpus.database.transaction() as connection:
                stage_documents(connection, self._corpus.generation, recipe, some)
        wanted = {document.key: document for document in added}
        if wanted:
            for rows in chunk_rows(self._corpus.table, self._content.version, wanted):
                with self._corpus.database.transaction() as connection:
                    prepared_documents.add_chunks(connection, rows)

    def _read_source(self, added: Sequence[TableDocument]) -> set[str]:
        """Record ETag and hash of documents whose bytes produce the rows of the table; returns their keys."""
        unchanged: set[str] = set()
        for some in _in_groups(added):
            listed = {source.key: source for source in self._context.listed([document.key for document in some])}
            with self._corpus.database.transaction() as connection:
                positions = chunk_positions(connection, some)
            facts = [
                fact
                for document in some
                if (source := listed.get(document.key)) is not None
                and (fact := self._facts(document, source, positions.get(document.key, []))) is not None
            ]
            with self._corpus.database.transaction() as connection:
                record_facts(connection, facts)
            unchanged.update(fact.key for fact in facts)
        return unchanged

    def _facts(
        self, document: TableDocument, source: SourceObject, expected: Sequence[ChunkPosition]
    ) -> SourceFacts | None:
        """The facts to record about a document; None if its bytes do not produce the chunks of the table."""
        reader = DocumentReader(source, self._context.recipe, ExtensionCalls(self._context.extensions, self._corpus))
        try:
            chunks = [
                (chunk.ordinal, chunk.start, chunk.end, chunk.text_hash)
                for chunk in reader.chunks(self._context.source, self._context.chunker, self._context.limits)
            ]
            columns = document_columns(self._context, reader)
        except (DocumentError, StaleError):
            return None
        if self._context.columns.of_chunks and self._context.extensions.enrichers:
            return None  # a rebuild calls no enricher, so it cannot tell whether the values are current
        if chunks != list(expected) or columns != self._context.columns.of_documents.conform(document.columns):
            return None
        return SourceFacts(
            document.key,
            document.saga_id,
            source.document_etag,
            source.size,
            source.last_modified,
            reader.content_hash,
            reader.characters,
        )

    def _publish(self, change: CatalogChange, incomplete: Sequence[str]) -> int:
        """Make the content the latest version of the table, and let the catalog show it, in one transaction."""
        corpus, head = self._corpus, self._head
        with corpus.database.transaction() as connection:
            with boundary(Boundary.LOCK_TAKEN):
                now = corpora.lock_generation(connection, corpus.generation)
            if now != head or corpus.table.latest_version() != self._content.latest:
                raise ConflictError(
                    f"Another writer wrote to the table of corpus {corpus.name!r} while its catalog was rebuilt. "
                    "Nothing was changed",
                    f"Stop all writers of the table, then run `{REBUILD}` again.",
                )
            for ended in sagas.abandon_live(
                connection, corpus.generation, "the catalog was rebuilt", keep=[self._saga]
            ):
                prepared_documents.forget_documents(connection, ended)
            if head.table_uri != corpus.table.uri:
                with boundary(Boundary.RELOCATED):
                    rebind(connection, head.name, replace(binding_of(head), table_uri=corpus.table.uri))
            mark = mark_for(connection, replace(head, table_uri=corpus.table.uri), self._saga)
            made = self._make_version(mark, incomplete)
            version = made.number
            with boundary(Boundary.ROWS_WRITTEN):
                write_change(connection, corpus.generation, self._saga, version, change)
                gone = self._missing_versions(connection)
                history.count_publications(connection, corpus.generation, version, len(gone), gone)
                history.retire_versions(connection, corpus.generation, version, gone, by=RetiredBy.REBUILD)
            sagas.mark_published(connection, self._saga, base_version=head.head_version, version=version)
            with boundary(Boundary.HEAD_MOVED):
                corpora.move_head(
                    connection, corpus.generation, version=version, saga=self._saga, manifest=made.manifest
                )
        moved = replace(head, head_version=version, head_saga=self._saga, staged_manifest=made.manifest)
        install_published(corpus.table, moved)
        log.info(
            "corpus %s: the catalog was rebuilt from version %d of the table, which is now version %d",
            corpus.generation,
            self._content.version,
            version,
        )
        return version

    def _make_version(self, mark: VersionMark, incomplete: Sequence[str]) -> NewVersion:
        """Stage the version that becomes head. Those before it have content that the table has already."""
        table, expected = self._corpus.table, self._content.latest + 1
        made = table.stage_restore(self._content.version, mark)
        while made.number == expected <= self._head.head_version and table.install(expected, made.manifest, mark.saga):
            # Head never moves back. A table whose latest version is before head gets versions until head is passed.
            expected += 1
            made = table.stage_restore(self._content.version, mark)
        if incomplete and made.number == expected and table.install(expected, made.manifest, mark.saga):
            expected += 1
            made = table.stage_version(made.number, Change((), Removal(one_of("document", list(incomplete)))), mark)
        if made.number != expected:
            raise ConflictError(
                f"Version {expected} of the table of corpus {self._corpus.name!r} was taken by another writer",
                f"Stop all writers of the table, then run `{REBUILD}` again.",
            )
        return made

    def _missing_versions(self, connection: Connection) -> list[int]:
        """Versions of publications that are missing from the table, or belong to other sagas there."""
        marks = self._content.marks
        return [
            version
            for version, saga in published_sagas_of(connection, self._corpus.generation).items()
            if (mark := marks.get(version)) is None or mark.saga != saga
        ]


def _in_groups(documents: Sequence[TableDocument]) -> Iterator[list[TableDocument]]:
    rest = iter(documents)
    while some := list(islice(rest, _STEP_DOCUMENTS)):
        yield some
