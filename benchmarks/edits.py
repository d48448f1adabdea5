"""How many texts an edit embeds, and how long it takes: a hundred edits of real documents, and some of a large one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time

from benchmarks.data.random_edits import EDITS, edited, normal, real_documents
from benchmarks.data.texts import prose
from benchmarks.report import Report
from benchmarks.support.endpoint import DIMENSIONS, MODEL, Endpoint, endpoint
from benchmarks.support.stage import stage
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.ingestion.ingest import Ingestion
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.database import Database

_COUNT = 120
_LARGE_COUNT = 8


@dataclass(frozen=True, slots=True)
class _Edit:
    embedded: int
    seconds: float
    cpu: float
    """CPU seconds of this process, all threads. A busy machine changes them little."""


def run(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Edit documents of 50 KB, and one of 20 MB unless in a hurry."""
    _measure(report, step, "50 KB", [normal(text) for text in real_documents(50_000)], 40 if quick else _COUNT)
    if not quick:
        _measure(report, step, "20 MB", [_large(20)], _LARGE_COUNT)


def run_200mb(report: Report, step: Callable[[str], None], *, quick: bool) -> None:  # noqa: ARG001  nothing of it is quick
    """Edit one document of 200 MB."""
    _measure(report, step, "200 MB", [_large(200)], _LARGE_COUNT)


def _large(megabytes: int) -> str:
    parts: list[str] = []
    size = 0
    for paragraph in prose("large"):
        parts.append(paragraph)
        size += len(paragraph)
        if size >= megabytes * 1_000_000:
            return normal("".join(parts))
    raise AssertionError


def _measure(report: Report, step: Callable[[str], None], size: str, texts: list[str], count: int) -> None:
    with stage() as surroundings, endpoint(0.05) as server, Database(surroundings.database()) as database:
        source = surroundings.folder / "source"
        source.mkdir()
        for number, text in enumerate(texts):
            (source / f"{number}.txt").write_text(text)
        lancedb = str(surroundings.folder / "lancedb")
        context = open_context(
            database,
            CorpusConfig(
                corpus="documents",
                source=str(source),
                lancedb_uri=lancedb,
                embedding_model=MODEL,
                embedding_dimensions=DIMENSIONS,
                max_chunks=0,
                max_tokens_per_run=0,
                max_tokens_per_day=0,
            ),
        )
        step(f"edits: {size}, first ingest")
        found = asyncio.run(_edit(context, server, source, texts, kinds=list(islice(cycle(EDITS), count)), step=step))
    for kind, edits in found.items():
        embedded = [edit.embedded for edit in edits]
        report.add(
            document=size,
            edit=kind,
            edits=len(edits),
            embedded_p50=median(embedded),
            embedded_p95=_p95(embedded),
            embedded_most=max(embedded),
            seconds_p50=round(median(edit.seconds for edit in edits), 2),
            cpu_s_p50=round(median(edit.cpu for edit in edits), 2),
        )


def _p95(embedded: list[int]) -> float:
    # A large document is edited once in each way, and one number has no quantiles.
    return round(quantiles(embedded, n=20, method="inclusive")[-1], 1) if len(embedded) > 1 else embedded[0]


async def _edit(
    context: IngestContext,
    server: Endpoint,
    source: Path,
    texts: list[str],
    *,
    kinds: list[str],
    step: Callable[[str], None],
) -> dict[str, list[_Edit]]:
    """Edit and ingest, one document at a time; what each kind of edit took, all but the last kind, and all of them."""
    chance = random.Random(1)  # noqa: S311  repeatable, not secret
    found: dict[str, list[_Edit]] = {kind: [] for kind in EDITS}
    async with OpenAIEmbedder(OpenAISettings(MODEL, DIMENSIONS, base_url=server.base_url, api_key="none")) as embedder:
        await Ingestion(context, embedder).run(Planner(context).plans())
        for number, kind in enumerate(kinds):
            step(f"edits: {number + 1} of {len(kinds)}")
            chosen = chance.randrange(len(texts))
            texts[chosen] = edited(texts[chosen], kind, chance)
            (source / f"{chosen}.txt").write_text(texts[chosen])
            before, start, cpu = server.embedded(), perf_counter(), process_time()
            summary = await Ingestion(context, embedder).run(Planner(context).plans([f"{chosen}.txt"]))
            assert len(summary.publications) == 1
            found[kind].append(_Edit(server.embedded() - before, perf_counter() - start, process_time() - cpu))
    all_but_the_last = [edit for kind, edits in found.items() if kind != "move twelve paragraphs" for edit in edits]
    done = {kind: edits for kind, edits in found.items() if edits}
    return done | {"all but the last": all_but_the_last, "all": [edit for edits in found.values() for edit in edits]}
