"""Whether chunks cut for cheap edits are found as well as chunks of plain recursive splitting.

Known items: the first paragraph of a docstring of the standard library asks for the rest of it, in documents that hold
the rests of one module each. A chunk is the right one if it holds at least half of the rest's first 300 characters.
Vectors come from the local model, and every question is compared with every chunk.
"""

from __future__ import annotations

import asyncio
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import numpy.typing as npt
from semantic_text_splitter import TextSplitter

from benchmarks.report import Report
from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.embedding.base import EmbeddingSettings
from ingest_pipeline.embedding.local import LOCAL_DIMENSIONS, LOCAL_MODEL, LocalEmbedder
from ingest_pipeline.types import TextPiece

_SIZES = (400, 1000)
_NEAREST = 5
_HEAD = 300
_LEFT_OUT = ("antigravity", "this", "test", "idlelib", "lib2to3", "tkinter", "turtle", "turtledemo", "__", "_")


@dataclass(frozen=True, slots=True)
class _Item:
    question: str
    document: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Piece:
    document: int
    start: int
    text: str


def run(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Compare both ways to cut, at the usual chunk size and, unless in a hurry, at a smaller one."""
    step("retrieval: reading docstrings")
    documents, items = _collection()
    asked = _embed([item.question for item in items])
    for size in _SIZES[-1:] if quick else _SIZES:
        ours = _pieces(documents, _ours(size))
        as_large = min(
            (_pieces(documents, _recursive(size * share // 20)) for share in range(12, 21)),
            key=lambda pieces: abs(_mean(pieces) - _mean(ours)),
        )
        ways = {
            "ours": ours,
            "recursive splitting, chunks as large": as_large,
            "recursive splitting": _pieces(documents, _recursive(size)),
        }
        for name, pieces in ways.items():
            step(f"retrieval: {name}, {size} characters")
            found = _recall(items, pieces, asked @ _embed([piece.text for piece in pieces]).T)
            report.add(
                chunk_size=size,
                cut_by=name,
                questions=len(items),
                chunks=len(pieces),
                mean_characters=round(_mean(pieces)),
                recall_at_1=round(found[0], 3),
                recall_at_5=round(found[1], 3),
            )


def _pieces(documents: Sequence[str], cut: Callable[[str], Iterator[tuple[int, str]]]) -> list[_Piece]:
    return [_Piece(number, start, text) for number, whole in enumerate(documents) for start, text in cut(whole)]


def _mean(pieces: Sequence[_Piece]) -> float:
    return sum(len(piece.text) for piece in pieces) / len(pieces)


def _ours(size: int) -> Callable[[str], Iterator[tuple[int, str]]]:
    chunker = Chunker(size, 0)
    return lambda text: ((chunk.start, chunk.text) for chunk in chunker.chunks([TextPiece(text)], markdown=False))


def _recursive(size: int) -> Callable[[str], Iterator[tuple[int, str]]]:
    splitter = TextSplitter(size)
    return lambda text: iter(splitter.chunk_indices(text))


def _collection() -> tuple[list[str], list[_Item]]:
    documents: list[str] = []
    items: list[_Item] = []
    seen: set[str] = set()
    for _, texts in _docstrings():
        whole = ""
        for text in texts:
            summary, _, rest = text.partition("\n\n")
            if summary in seen or len(summary) < 20 or len(rest.strip()) < 80:
                continue
            seen.add(summary)
            start = len(whole)
            whole += rest.strip() + "\n\n"
            items.append(_Item(" ".join(summary.split()), len(documents), start, start + min(len(rest.strip()), _HEAD)))
        if whole:
            documents.append(whole)
    return documents, items


def _docstrings() -> Iterator[tuple[str, list[str]]]:
    """Docstrings of functions, classes and methods, module by module."""
    for found in sorted(pkgutil.iter_modules(), key=lambda module: module.name):
        if found.name not in sys.stdlib_module_names or found.name.startswith(_LEFT_OUT):
            continue
        with suppress(ImportError):
            module = import_module(found.name)
            things = [thing for _, thing in sorted(vars(module).items()) if _belongs(thing, found.name)]
            methods = [m for thing in things if inspect.isclass(thing) for _, m in sorted(vars(thing).items())]
            texts = [inspect.cleandoc(doc) for thing in [*things, *methods] if (doc := _documented(thing))]
            yield found.name, texts


def _belongs(thing: object, module: str) -> bool:
    return getattr(thing, "__module__", None) == module and (inspect.isclass(thing) or inspect.isroutine(thing))


def _documented(thing: object) -> str | None:
    doc = thing.__doc__ if inspect.isclass(thing) or inspect.isroutine(thing) else None
    return doc if isinstance(doc, str) else None


def _embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Unit vectors, shape (n, dimensions)."""

    async def all_of_them() -> list[npt.NDArray[np.float32]]:
        async with LocalEmbedder(EmbeddingSettings(LOCAL_MODEL, LOCAL_DIMENSIONS)) as embedder:
            return [(await embedder.embed(texts[start : start + 128])).vectors for start in range(0, len(texts), 128)]

    vectors = np.concatenate(asyncio.run(all_of_them()))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _recall(items: Sequence[_Item], pieces: Sequence[_Piece], scores: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Share of the questions whose answer is the nearest chunk, and among the five nearest."""
    first = among = 0
    for item, row in zip(items, scores, strict=True):
        nearest = [pieces[int(place)] for place in np.argsort(-row)[:_NEAREST]]
        right = [_holds(piece, item) for piece in nearest]
        first += right[0]
        among += any(right)
    return first / len(items), among / len(items)


def _holds(piece: _Piece, item: _Item) -> bool:
    shared = min(item.end, piece.start + len(piece.text)) - max(item.start, piece.start)
    return piece.document == item.document and 2 * shared >= item.end - item.start
