"""Keeping a corpus small and quick: fragments rewritten, indices brought up to date, old versions gone, litter swept.

Each step is safe beside publications, readers and another maintenance, and may die anywhere. What it makes comes
through the one door, so a publication waits for one commit at most; the long work is done before, without the lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ingest_pipeline.corpus.corpus import Corpus, check_writable
from ingest_pipeline.lance.indices import IndexKind
from ingest_pipeline.maintenance.compaction import CompactionReport, compact
from ingest_pipeline.maintenance.indexing import IndexReport, bring_up_to_date
from ingest_pipeline.maintenance.retention import RetentionReport, retain
from ingest_pipeline.maintenance.sweep import SweepReport, sweep
from ingest_pipeline.types import Retention

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is of a table."""

    fragments: int
    versions: int
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """What was done, and what it brought."""

    corpus: str
    head_version: int
    before: Extent
    after: Extent
    compaction: CompactionReport
    indices: list[IndexReport]
    retention: RetentionReport
    sweep: SweepReport


def maintain(
    corpus: Corpus,
    retention: Retention,
    indices: Sequence[IndexKind] | None = None,
    *,
    log: Callable[[str], object] = _log.info,
) -> MaintenanceReport:
    """Do what is due, which is often nothing.

    Args:
        corpus: Which one.
        retention: How long versions are kept.
        indices: Which the table shall have. None: those of a corpus of documents.
        log: Is told of each step.

    Raises:
        ForeignWriteError: A version that is not ours stands above head.
        OtherDatabaseError: The table is written by another database, or this one is older than it.
        UnavailableError: One of the stores failed. What was done until then stays.
    """
    check_writable(corpus)
    before = measure(corpus)
    compaction = compact(corpus)
    log(f"{compaction.fragments} fragments became {compaction.groups}; {compaction.left_out} groups had changed")
    indexed = bring_up_to_date(corpus, indices)
    for index in indexed:
        log(f"{index.name}: {index.built} rows indexed, {index.unindexed} of {index.rows} are scanned")
    retained = retain(corpus, retention)
    log(f"{retained.versions} versions before {retained.oldest_version} are gone, with {retained.documents} documents")
    swept = sweep(corpus)
    log(f"{len(swept.files)} files, {len(swept.versions)} versions and {swept.rows} rows were swept")
    head = corpus.head().head_version
    return MaintenanceReport(corpus.generation, head, before, measure(corpus), compaction, indexed, retained, swept)


def measure(corpus: Corpus) -> Extent:
    """Count what lies in the table's folder."""
    sizes = corpus.table.file_sizes()
    fragments = corpus.table.fragments(corpus.head().head_version)
    return Extent(len(fragments), len(corpus.table.versions()), len(sizes), sum(sizes.values()))
