"""What grows with a table and with its history, with maintenance on: publishing, planning, auditing, sweeping, disk."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import lance

from benchmarks.data.filling import document_key, fill
from benchmarks.data.texts import edit, write_document
from benchmarks.report import Report
from benchmarks.scaling.publish import lock_times, merge_times
from benchmarks.support.corpus import corpus_config
from benchmarks.support.endpoint import MODEL, Endpoint, endpoint
from benchmarks.support.stage import Stage, stage
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.ingestion.ingest import Ingestion
from ingest_pipeline.maintenance.audit import audit
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.maintenance.sweep import sweep
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.types import Retention

_DIMENSIONS = 32
_EDITS = 10
_RETENTION = Retention(days=0, publications=20)
_DOCUMENTS = 500
_DOCUMENT_BYTES = 7_000  # about ten chunks
_EVERY = 50


def by_size(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Tables of 10,000, 100,000 and, unless in a hurry, a million rows."""
    sizes = [10_000, 100_000] if quick else [10_000, 100_000, 1_000_000]
    with stage() as surroundings, endpoint(0, _DIMENSIONS) as server:
        for rows in sizes:
            step(f"growth by size: {rows:,} rows")
            _measure_size(report, surroundings, server, rows)


def by_history(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """A table of some 5,000 rows after 1, 100 and, unless in a hurry, 1,000 publications."""
    _histories(report, step, [1, 100] if quick else [1, 100, 1000])


def by_long_history(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """The same up to 5,000 publications; of 1,000 in a hurry."""
    _histories(report, step, [1, 100, 1000] if quick else [1, 100, 1000, 5000])


def _measure_size(report: Report, surroundings: Stage, server: Endpoint, rows: int) -> None:
    settings = _settings(surroundings.folder / f"size-{rows}")
    keys = [document_key(number * (rows // 100 // _EDITS)) for number in range(_EDITS)]
    with Database(surroundings.database()) as database:
        context = open_context(database, settings)
        fill(context.corpus, rows, _DIMENSIONS)
        maintained = _seconds(lambda: maintain(context.corpus, _RETENTION))
        for number in range(rows // 100):
            (Path(settings.source) / document_key(number)).touch()
        for key in keys:
            write_document(Path(settings.source) / key, 10 * _DOCUMENT_BYTES)
        published = asyncio.run(publish_one_by_one(context, server, keys))
        planned = _seconds(lambda: Planner(context).plans())
        swept = _seconds(lambda: sweep(context.corpus))
        audited = _seconds(lambda: audit(context.corpus))
        again = _seconds(lambda: maintain(context.corpus, _RETENTION))
        merged = merge_times(settings, context, keys[:5])
    report.add(
        rows=rows,
        publish_p50_ms=round(1000 * median(published), 1),
        merge_insert_p50_ms=round(1000 * median(merged), 1),
        plan_s=round(planned, 2),
        sweep_s=round(swept, 2),
        audit_s=round(audited, 2),
        first_maintain_s=round(maintained, 2),
        maintain_s=round(again, 2),
    )


def _histories(report: Report, step: Callable[[str], None], checkpoints: Sequence[int]) -> None:
    with stage() as surroundings, endpoint(0, _DIMENSIONS) as server:
        for maintained in (True, False):
            settings = _settings(surroundings.folder / f"history-{maintained}")
            for number in range(_DOCUMENTS):
                write_document(Path(settings.source) / document_key(number), _DOCUMENT_BYTES)
            with Database(surroundings.database()) as database:
                context = open_context(database, settings)
                _History(report, step, settings, context, server, maintained=maintained).run(checkpoints)


class _History:
    """One corpus that is edited again and again."""

    def __init__(
        self,
        report: Report,
        step: Callable[[str], None],
        settings: CorpusConfig,
        context: IngestContext,
        server: Endpoint,
        *,
        maintained: bool,
    ) -> None:
        self._report = report
        self._step = step
        self._settings = settings
        self._context = context
        self._server = server
        self._maintained = maintained
        self._edits = 0

    def run(self, checkpoints: Sequence[int]) -> None:
        asyncio.run(_ingest_all(self._context, self._server))
        for count in checkpoints:
            self._edit_until(count - _EDITS)
            times = self._edit_some(min(_EDITS, count - self._edits))
            self._note(count, times)

    def _edit_until(self, count: int) -> None:
        while self._edits < count:
            self._edit_some(min(_EVERY, count - self._edits))
            self._step(f"growth by history: {self._edits} publications")

    def _edit_some(self, count: int) -> list[float]:
        # A step that shares no factor with the number of documents comes to all of them.
        keys = [document_key((self._edits + place) * 7 % _DOCUMENTS) for place in range(count)]
        for key in keys:
            edit(Path(self._settings.source) / key)
        times = asyncio.run(publish_one_by_one(self._context, self._server, keys))
        self._edits += count
        if self._maintained:
            maintain(self._context.corpus, _RETENTION)
        return times

    def _note(self, count: int, times: Sequence[float]) -> None:
        corpus = self._context.corpus
        planned = _seconds(lambda: Planner(self._context).plans())
        swept = _seconds(lambda: sweep(corpus))
        used = sum(corpus.table.file_sizes().values())
        self._report.add(
            maintenance="on" if self._maintained else "off",
            publications=count,
            publish_p50_ms=round(1000 * median(times), 1),
            plan_s=round(planned, 2),
            sweep_s=round(swept, 2),
            fragments=len(corpus.table.fragments(corpus.head().head_version)),
            versions=len(corpus.table.versions()),
            used_mb=round(used / 1e6, 1),
            used_to_live=round(used / self._live_bytes(), 2),
        )

    def _live_bytes(self) -> int:
        """Of the rows at head in a table that holds nothing else, without indices."""
        corpus = self._context.corpus
        folder = Path(self._settings.lancedb_uri) / "live"
        lance.write_dataset(corpus.table.at(corpus.head().head_version).to_table(), str(folder))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        shutil.rmtree(folder)
        return size


def _settings(folder: Path) -> CorpusConfig:
    source = folder / "source"
    source.mkdir(parents=True)
    return corpus_config(source, folder / "lancedb", _DIMENSIONS).replace(min_age_seconds=0)


async def _ingest_all(context: IngestContext, server: Endpoint) -> None:
    async with OpenAIEmbedder(_embedding(server)) as embedder:
        await Ingestion(context, embedder).run(Planner(context).plans())


async def publish_one_by_one(
    context: IngestContext, server: Endpoint, keys: Sequence[str], dimensions: int = _DIMENSIONS
) -> list[float]:
    """Ingest documents one by one; returns how long each publication held the lock, seconds."""
    with lock_times() as times:
        async with OpenAIEmbedder(_embedding(server, dimensions)) as embedder:
            for key in keys:
                summary = await Ingestion(context, embedder).run(Planner(context).plans([key]))
                assert len(summary.publications) == 1
    return times


def _embedding(server: Endpoint, dimensions: int = _DIMENSIONS) -> OpenAISettings:
    return OpenAISettings(MODEL, dimensions, base_url=server.base_url, api_key="none")


def _seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start
