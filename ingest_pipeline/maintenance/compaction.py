"""Rewriting small and worn fragments into fewer: every publication leaves a small one, every removal wears one.

A group becomes one data file, in one saga and one version. Groups grow by size, so that a row is rewritten about as
often as the logarithm of the table's size, and not whenever something small is added to it. What is rewritten lies on
disk twice until retention takes the old versions, so a table is kept in several fragments, and one maintenance rewrites
a quarter of it at most.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import ConflictError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import Compaction, FragmentState, StagedFragment
from ingest_pipeline.maintenance.maintenance_saga import publish_maintenance
from ingest_pipeline.postgres import catalog, ledger
from ingest_pipeline.postgres.database import Connection

log = logging.getLogger(__name__)

# A fragment with a sixteenth of the rows, within these bounds, is left as it is until it is worn.
_PARTS = 16
SMALLEST_FULL, LARGEST_FULL = 250, 100_000
# This part of the rows may be rewritten at once.
_SHARE = 4
# So many small ones are worth a version.
_GROUP = 8
# A fragment is worn when so many of its rows are gone.
_WORN = 0.2
# The next in a group may be so much larger than the others together.
_STEP = 2
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class CompactionReport:
    """What was rewritten."""

    groups: int
    fragments: int
    """That were replaced by one for each group."""
    rows: int
    left_out: int
    """Groups that changed while they were rewritten."""


def compact(corpus: Corpus) -> CompactionReport:
    """Rewrite what is worth it, group by group. Readers see the same rows before and after.

    Raises:
        UnavailableError, ForeignWriteError: As in `publish_maintenance`; groups that were published stay.
    """
    head = corpus.head().head_version
    found = groups(corpus.table.fragments(head))
    done = [group for group in found if _rewrite(corpus, head, group)]
    return CompactionReport(
        len(done), sum(map(len, done)), sum(_rows(group) for group in done), left_out=len(found) - len(done)
    )


def groups(fragments: Sequence[FragmentState]) -> list[list[FragmentState]]:
    """Which fragments to rewrite together: the smallest first, as many as one maintenance may."""
    total = _rows(fragments)
    full = min(max(total // _PARTS, SMALLEST_FULL), LARGEST_FULL)
    due = sorted((one for one in fragments if one.rows < full or _is_worn(one)), key=lambda one: one.rows)
    chosen: list[list[FragmentState]] = []
    for group in _tiers(due, full):
        worth_it = len(group) >= _GROUP or any(map(_is_worn, group))
        fits = sum(map(_rows, chosen)) + _rows(group) <= max(total // _SHARE, 2 * full)
        if worth_it and (fits or not chosen):
            chosen.append(group)
    return chosen


def _tiers(ascending: Sequence[FragmentState], full: int) -> Iterator[list[FragmentState]]:
    group: list[FragmentState] = []
    for fragment in ascending:
        rows = _rows(group)
        too_large = fragment.rows > _STEP * rows and not _is_worn(fragment)
        if group and (too_large or rows + fragment.rows > 2 * full):
            yield group
            group = []
        group.append(fragment)
    if group:
        yield group


def _is_worn(fragment: FragmentState) -> bool:
    return fragment.deleted >= _WORN * (fragment.rows + fragment.deleted)


def _rows(group: Sequence[FragmentState]) -> int:
    return sum(fragment.rows for fragment in group)


@dataclass(frozen=True, slots=True)
class _Rewritten:
    """A group and the file that takes its place: both sides of the publication."""

    corpus: Corpus
    saga: UUID
    group: Sequence[FragmentState]
    file: StagedFragment

    def write(self, connection: Connection, base: int, version: int) -> Compaction:  # noqa: ARG002  of the protocol
        numbers = [fragment.number for fragment in self.group]
        there = self.corpus.table.states(base, numbers)
        if any(there.get(fragment.number) != fragment for fragment in self.group):
            raise ConflictError(
                f"Fragments {numbers} of the table of corpus {self.corpus.name!r} changed while they were rewritten"
            )
        ledger.forget_fragments(connection, self.saga)
        return Compaction([self.file], numbers)

    def place(self, connection: Connection, fragments: dict[str, int]) -> None:
        old = [fragment.number for fragment in self.group]
        catalog.move_rows(connection, self.corpus.generation, old=old, new=fragments[self.file.name])


def _rewrite(corpus: Corpus, head: int, group: Sequence[FragmentState]) -> bool:
    def prepare(saga: UUID) -> _Rewritten:
        name = f"{saga}-0.lance"
        # By fragment and then as they were written, so a document's rows stay together.
        numbers = [fragment.number for fragment in group]
        rows = corpus.table.batches(head, corpus.table.columns(head), fragments=numbers, batch_size=_ROWS_AT_ONCE)
        file = corpus.table.stage_batches(name, rows)
        with boundary(Boundary.FRAGMENT_RECORDED), corpus.database.transaction() as connection:
            ledger.record_fragment(connection, saga, name=name, row_count=file.row_count)
        return _Rewritten(corpus, saga, group, file)

    version = publish_maintenance(corpus, head, prepare)
    if version is not None:
        log.info("corpus %s: %d fragments became one of %d rows", corpus.generation, len(group), _rows(group))
    return version is not None
