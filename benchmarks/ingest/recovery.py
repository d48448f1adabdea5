"""How long it takes to settle a writer that was killed between the two stores."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

from benchmarks.data.texts import write_document, write_documents
from benchmarks.report import Report
from benchmarks.support.corpus import corpus_config
from benchmarks.support.endpoint import endpoint
from benchmarks.support.stage import Job, stage
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.saga.recover import recover

_KILLED = -9


def run(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Kill a run right after its Lance commit, and recover; five times for each size."""
    for count in [20] if quick else [20, 400]:
        with stage() as surroundings, endpoint(0) as server, Database(surroundings.database()) as database:
            source = surroundings.folder / "source"
            write_documents(source, count, 50_000)
            job = Job(str(source), database.url, str(surroundings.folder / "lancedb"), server.base_url)
            surroundings.run("benchmarks.scripts.ours", job)
            settings = corpus_config(source, job.lancedb)
            corpus = open_context(database, settings).corpus
            times: list[float] = []
            for number in range(2 if quick else 5):
                step(f"recovery: {count} documents, death {number + 1}")
                write_document(source / f"new{number}.txt", 50_000)
                killed = surroundings.start(
                    "benchmarks.scripts.ours", job, INGEST_FAILPOINTS="lance commit:after=kill"
                ).wait()
                assert killed == _KILLED
                start = perf_counter()
                undone = recover(corpus, silence=0)
                times.append(perf_counter() - start)
                assert len(undone.abandoned) == 1
            rows = corpus.table.at(corpus.head().head_version).count_rows()
        report.add(
            documents=count,
            rows=rows,
            deaths=len(times),
            recovery_p50_ms=round(1000 * median(times), 1),
            recovery_most_ms=round(1000 * max(times), 1),
        )
