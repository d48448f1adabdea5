"""Compaction: rewriting small fragments, and those with many deleted rows, into fewer.

Every publication adds a small fragment, and every removal leaves deleted rows in one. A group of fragments becomes one
data file, in one saga and one version. Groups grow by size, so that a row is rewritten about as often as the logarithm
of the table's size, and not whenever something small is added. Rewritten rows are on disk twice until retention removes
the old versions. Therefore a table keeps several fragments, and one maintenance rewrites a quarter of the rows at most.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import pyarrow as pa

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import ConflictError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import Compaction, FragmentState, StagedFragment
from ingest_pipeline.maintenance.maintenance_saga import publish_maintenance
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.telemetry.logs import get_logger
from ingest_pipeline.types import counted

log = get_logger(__name__)

# A fragment with a sixteenth of the rows, within these bounds, is full: it is rewritten only if it is fragmented.
_FULL_SHARE = 16
MIN_FULL_ROWS, MAX_FULL_ROWS = 250, 100_000
# One maintenance rewrites this part of the rows at most.
_REWRITTEN_SHARE = 4
# Fewer small fragments than this are not worth a version.
_MIN_GROUP = 8
# A fragment is fragmented when this share of its rows is deleted.
_FRAGMENTED_SHARE = 0.2
# The next fragment of a group may be this many times larger than the others together.
_MAX_STEP = 2
_BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class CompactionReport:
    """What a compaction rewrote."""

    groups: int
    fragments: int
    """Fragments that were replaced. Each group was replaced by one fragment."""
    rows: int
    skipped: int
    """Groups that were skipped because they changed while they were rewritten."""


def compact(corpus: Corpus) -> CompactionReport:
    """Rewrite the fragments that are worth it, group by group. Readers see the same rows before and after.

    Raises:
        UnavailableError, ForeignWriteError: See `publish_maintenance`; groups that were published keep their effect.
    """
    head = corpus.head().head_version
    found = groups(corpus.table.fragments(head))
    done = [group for group in found if _rewrite(corpus, head, group)]
    return CompactionReport(
        len(done), sum(map(len, done)), sum(_rows(group) for group in done), skipped=len(found) - len(done)
    )


def groups(fragments: Sequence[FragmentState]) -> list[list[FragmentState]]:
    """The fragments to rewrite together: the smallest first, as many as one maintenance may rewrite."""
    total = _rows(fragments)
    full = min(max(total // _FULL_SHARE, MIN_FULL_ROWS), MAX_FULL_ROWS)
    due = sorted((one for one in fragments if one.rows < full or _is_fragmented(one)), key=lambda one: one.rows)
    chosen: list[list[FragmentState]] = []
    for group in _tiers(due, full):
        worth_it = len(group) >= _MIN_GROUP or any(map(_is_fragmented, group))
        fits = sum(map(_rows, chosen)) + _rows(group) <= max(total // _REWRITTEN_SHARE, 2 * full)
        if worth_it and (fits or not chosen):
            chosen.append(group)
    return chosen


def _tiers(ascending: Sequence[FragmentState], full: int) -> Iterator[list[FragmentState]]:
    group: list[FragmentState] = []
    for fragment in ascending:
        rows = _rows(group)
        too_large = fragment.rows > _MAX_STEP * rows and not _is_fragmented(fragment)
        if group and (too_large or rows + fragment.rows > 2 * full):
            yield group
            group = []
        group.append(fragment)
    if group:
        yield group


def _is_fragmented(fragment: FragmentState) -> bool:
    return fragment.deleted >= _FRAGMENTED_SHARE * (fragment.rows + fragment.deleted)


def _rows(group: Sequence[FragmentState]) -> int:
    return sum(fragment.rows for fragment in group)


@dataclass(frozen=True, slots=True)
class _Rewritten:
    """A group and the file that replaces it: the change of the table and of the catalog."""

    corpus: Corpus
    saga: UUID
    group: Sequence[FragmentState]
    keys: Collection[str]
    """The documents with rows in the group. They stay the same, because the fragments do, or `write` raises."""
    file: StagedFragment
    schema: pa.Schema

    def write(self, connection: Connection, base: int, version: int) -> Compaction:  # noqa: ARG002  of the protocol
        numbers = [fragment.number for fragment in self.group]
        present = self.corpus.table.states(base, numbers)
        if any(present.get(fragment.number) != fragment for fragment in self.group):
            raise ConflictError(
                f"Fragments {numbers} of the table of corpus {self.corpus.name!r} changed while they were rewritten"
            )
        sagas.forget_fragments(connection, self.saga)
        return Compaction([self.file], numbers, self.schema)

    def record_fragments(self, connection: Connection, version: int, fragments: dict[str, int]) -> None:  # noqa: ARG002  of the protocol
        moved = {fragment.number: fragments[self.file.name] for fragment in self.group}
        documents.move_rows(connection, self.corpus.generation, keys=self.keys, moved=moved)


def _rewrite(corpus: Corpus, head: int, group: Sequence[FragmentState]) -> bool:
    def prepare(saga: UUID) -> _Rewritten:
        name = f"{saga}-0.lance"
        # Read in the order of fragments and then of rows, so that a document's rows stay together.
        numbers = [fragment.number for fragment in group]
        schema = corpus.table.at(head).schema
        rows = corpus.table.batches(head, schema.names, fragments=numbers, batch_size=_BATCH_ROWS)
        file = corpus.table.stage_batches(name, rows, schema)
        with boundary(Boundary.FRAGMENT_RECORDED), corpus.database.transaction() as connection:
            sagas.record_fragment(connection, saga, name=name, row_count=file.row_count)
            keys = documents.documents_in(connection, corpus.generation, head, numbers).keys()
        return _Rewritten(corpus, saga, group, keys, file, schema)

    version = publish_maintenance(corpus, head, prepare)
    if version is not None:
        rewritten, rows = counted(len(group), "fragment"), counted(_rows(group), "row")
        log.info("corpus %s: one fragment of %s replaces %s", corpus.generation, rows, rewritten)
    return version is not None
