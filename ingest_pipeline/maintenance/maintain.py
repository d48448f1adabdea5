"""Maintenance of a corpus: compaction, indexing, retention and sweep.

Each step is safe while publications, readers and another maintenance are active, and may be interrupted at any point.
Its results are ordinary publications, and the long work is done without the lock, so others wait for one commit at
most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.corpus.opening import check_writable
from ingest_pipeline.lance.indices import IndexKind
from ingest_pipeline.maintenance.compaction import CompactionReport, compact
from ingest_pipeline.maintenance.indexing import IndexReport, update_indices
from ingest_pipeline.maintenance.retention import RetentionReport, retain
from ingest_pipeline.maintenance.sweep import SweepReport, sweep
from ingest_pipeline.telemetry.logs import get_logger
from ingest_pipeline.telemetry.scope import scope
from ingest_pipeline.telemetry.spans import span
from ingest_pipeline.types import Retention, counted

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TableStats:
    """The size of a table."""

    fragments: int
    versions: int
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """What one maintenance did, and the size of the table before and after it."""

    corpus: str
    head_version: int
    before: TableStats
    after: TableStats
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
    """Run all steps of maintenance; each does only what is due.

    Args:
        corpus: The corpus to maintain.
        retention: How long versions are kept.
        indices: The indices that the table should have. None: those of a corpus of documents.
        log: Called with a message after each step.

    Raises:
        ForeignWriteError: A version that this package did not write is above head.
        OtherDatabaseError: Another database writes the table, or this database is older than the table.
        UnavailableError: One of the stores failed. The steps that were completed keep their effect.
    """
    with scope(corpus=corpus.name, generation=corpus.generation), span("maintain"):
        return _maintain(corpus, retention, indices, log)


def _maintain(
    corpus: Corpus,
    retention: Retention,
    indices: Sequence[IndexKind] | None,
    log: Callable[[str], object],
) -> MaintenanceReport:
    check_writable(corpus)
    before = measure(corpus)
    compaction = compact(corpus)
    fragments, skipped = counted(compaction.fragments, "fragment"), counted(compaction.skipped, "group")
    log(f"{fragments} compacted into {compaction.groups}; {skipped} skipped")
    indexed = update_indices(corpus, indices)
    for index in indexed:
        built = counted(index.built, "row")
        log(f"index {index.name}: indexed {built}; rows without index: {index.unindexed} of {index.rows}")
    retained = retain(corpus, retention)
    removed = f"{counted(retained.versions, 'version')} before {retained.oldest_version}"
    log(f"removed {removed} with {counted(retained.documents, 'document')}")
    swept = sweep(corpus)
    log(
        f"swept {counted(len(swept.files), 'file')}, {counted(len(swept.versions), 'version')} and "
        f"{counted(swept.rows, 'row')}"
    )
    head = corpus.head().head_version
    return MaintenanceReport(corpus.generation, head, before, measure(corpus), compaction, indexed, retained, swept)


def measure(corpus: Corpus) -> TableStats:
    """Measure the table's folder."""
    sizes = corpus.table.file_sizes()
    fragments = corpus.table.fragments(corpus.head().head_version)
    return TableStats(len(fragments), len(corpus.table.versions()), len(sizes), sum(sizes.values()))
