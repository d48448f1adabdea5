"""What an edit costs: texts embedded, bytes written in both stores, time. A hundred edits of real documents, and some
of a large one.

CPU beyond the file is what an edit takes in this process, less what it takes to read, hash and parse the file once. The
large document is also edited once without its blocks, so that all of its rows are written again, as if nothing were
known of its text. The shares compare the others with that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time

from benchmarks.data.random_edits import EDITS, edited, normal, real_documents
from benchmarks.data.texts import prose
from benchmarks.report import Report
from benchmarks.support.corpus import corpus_config
from benchmarks.support.endpoint import DIMENSIONS, MODEL, Endpoint, endpoint
from benchmarks.support.stage import stage
from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.ingestion.ingest import Ingestion
from ingest_pipeline.parsing.built_in_parsers import parse
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.database import Database

_COUNT = 120
_LARGE_COUNT = 8
_BLOCK_BYTES = 1 << 20
_WHOLE = "insert, and write all rows"


@dataclass(frozen=True, slots=True)
class _Edit:
    embedded: int
    seconds: float
    cpu: float
    """CPU seconds of this process, all threads. A busy machine changes them little."""
    cpu_of_file: float
    """Of these, what reading, hashing and parsing the file takes."""
    table: int
    """Bytes of the files that the edit wrote into the table's folder."""
    log: int
    """Bytes that it wrote to the log of Postgres."""

    @property
    def written(self) -> int:
        return self.table + self.log

    @property
    def cpu_beyond_file(self) -> float:
        return self.cpu - self.cpu_of_file


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
        context = open_context(database, corpus_config(source, surroundings.folder / "lancedb"))
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
            cpu_s_beyond_file_p50=round(median(edit.cpu_beyond_file for edit in edits), 2),
            table_kb_p50=round(median(edit.table for edit in edits) / 1000),
            log_kb_p50=round(median(edit.log for edit in edits) / 1000),
            share_of_bytes=_share(edits, found.get(_WHOLE, ()), lambda edit: edit.written),
            share_of_cpu=_share(edits, found.get(_WHOLE, ()), lambda edit: edit.cpu_beyond_file),
        )


def _share(edits: Sequence[_Edit], whole: Sequence[_Edit], of: Callable[[_Edit], float]) -> str:
    """What the edits take, as a share of what writing all rows takes."""
    return f"1/{median(map(of, whole)) / max(median(map(of, edits)), 0.001):.0f}" if whole else ""


def _p95(embedded: list[int]) -> float:
    # A large document is edited once in each way, and one number has no quantiles.
    return round(quantiles(embedded, n=20, method="inclusive")[-1], 1) if len(embedded) > 1 else embedded[0]


def _files(context: IngestContext) -> dict[Path, int]:
    return {path: path.stat().st_size for path in Path(context.corpus.table.uri).rglob("*") if path.is_file()}


def _log_position(context: IngestContext) -> int:
    with context.corpus.database.transaction() as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0' AS n").fetchone()
    assert row is not None
    return int(row["n"])


def _forget_blocks(context: IngestContext) -> None:
    with context.corpus.database.transaction() as connection:
        connection.execute("UPDATE ingest_pipeline.document SET blocks = NULL")


def _cpu_of_file(path: Path) -> float:
    start, hashed = process_time(), sha256()

    def blocks() -> Iterator[bytes]:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                hashed.update(block)
                yield block

    for _ in parse(path.name, blocks()):
        pass
    return process_time() - start


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
        whole = [_WHOLE] if len(texts) == 1 else []
        for number, kind in enumerate([*kinds, *whole]):
            step(f"edits: {number + 1} of {len(kinds)}")
            if kind == _WHOLE:
                _forget_blocks(context)
            chosen = chance.randrange(len(texts))
            texts[chosen] = edited(texts[chosen], next(iter(EDITS)) if kind == _WHOLE else kind, chance)
            (source / f"{chosen}.txt").write_text(texts[chosen])
            files, position, of_file = _files(context), _log_position(context), _cpu_of_file(source / f"{chosen}.txt")
            before, start, cpu = server.embedded(), perf_counter(), process_time()
            summary = await Ingestion(context, embedder).run(Planner(context).plans([f"{chosen}.txt"]))
            seconds, cpu = perf_counter() - start, process_time() - cpu
            assert len(summary.publications) == 1
            table = sum(size for path, size in _files(context).items() if path not in files)
            log = _log_position(context) - position
            found.setdefault(kind, []).append(_Edit(server.embedded() - before, seconds, cpu, of_file, table, log))
    measured = {kind: edits for kind, edits in found.items() if kind != _WHOLE}
    all_but_the_last = [edit for kind, edits in measured.items() if kind != "move twelve paragraphs" for edit in edits]
    done = {kind: edits for kind, edits in found.items() if edits}
    return done | {"all but the last": all_but_the_last, "all": [edit for edits in measured.values() for edit in edits]}
