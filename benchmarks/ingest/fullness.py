"""How full chunks of prose are, and how many chunks an edit of the same prose changes: no store, no embedder."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import cycle, islice
from statistics import median, quantiles

from benchmarks.data.random_edits import EDITS, MOVES, edited, normal, real_documents
from benchmarks.report import Report
from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.types import TextPiece

_SIZE = 1000


def run(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Cut the language reference, and edit it 1,500 times; 300 times in a hurry."""
    step("fullness: cutting")
    texts = [normal(text) for text in real_documents(50_000)]
    chunker = Chunker(_SIZE, 0)
    cut = [_texts(chunker, text) for text in texts]
    lengths = [len(chunk) for chunks in cut for chunk in chunks]
    chance = random.Random(1)  # noqa: S311  repeatable, not secret
    kinds = [kind for kind in EDITS if kind not in MOVES]
    changed: list[int] = []
    for number, kind in enumerate(islice(cycle(kinds), 300 if quick else 1500)):
        step(f"fullness: {number + 1} edits")
        chosen = chance.randrange(len(texts))
        changed.append(len(set(_texts(chunker, edited(texts[chosen], kind, chance))) - set(cut[chosen])))
    report.add(
        chunks=len(lengths),
        greatest_size=_SIZE,
        fill=round(sum(lengths) / len(lengths) / _SIZE, 2),
        edits=len(changed),
        changed_p50=median(changed),
        changed_p95=round(quantiles(changed, n=20, method="inclusive")[-1], 1),
    )


def _texts(chunker: Chunker, text: str) -> list[str]:
    return [chunk.text for chunk in chunker.chunks([TextPiece(text)], markdown=False)]
