"""How well questions find their answers, by how documents are cut and what is embedded of them.

A chunk is right if at least half of it is answer, or at least half of the answer is in it. Recall@5 is the share of
questions with a right chunk among the first five. nDCG@10 credits the first right chunk only, by its rank: a way to cut
that spreads an answer over more chunks must not look better for it. Every question is compared with every chunk. The
weights of a hybrid search were chosen by every other question, so the others alone are judged. `by ranks` is a hybrid
search that fuses by reciprocal ranks, with the constant 60 and equal weights, as is usual. `e5` is a sentence model
that answers over HTTP, if it is installed, see `benchmarks.support.e5`. As a reranker it orders what the local model
and the words found.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from statistics import median, quantiles

import lance
import numpy as np
import pyarrow as pa
from semantic_text_splitter import TextSplitter

from benchmarks.data.questions import Collection, Question, collections
from benchmarks.report import Figure, Report
from benchmarks.support.e5 import SentenceModel, sentence_model
from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.chunking.model_input import ModelInput
from ingest_pipeline.chunking.tokenizer import WORDLLAMA, Tokenizer
from ingest_pipeline.embedding.base import EmbeddingSettings
from ingest_pipeline.embedding.local import LOCAL_DIMENSIONS, LOCAL_MODEL, LocalEmbedder
from ingest_pipeline.lance.search import matching
from ingest_pipeline.search.fusion import fuse
from ingest_pipeline.types import ChunkUnit, TextPiece, Vectors, embedded_text

_SIZE = 1000
_SEED = 20261128
_EDITABLE = 8
"""Paragraphs that a document needs to be edited."""
_NEAREST = 5
_RANKED = 10
_CANDIDATES = 56
"""As many as each half of a hybrid search returns for ten hits."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk."""

    document: int
    start: int
    end: int
    embedded: str
    """What the model and the index of words are given."""


Cut = Callable[[int, str, bool], Iterator[Piece]]
"""Cuts a document: its index, its text and whether that is Markdown."""
Embed = Callable[[Sequence[str]], Vectors]


_RECIPROCAL = 60
"""The constant of reciprocal rank fusion."""
_MOST_CHUNKS = 3_000
"""A collection of more is not embedded with the sentence model, which takes a third of a second for each."""
_RERANKED = 50
"""As many candidates as a search lets a reranker order."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to cut documents, to embed texts and questions, and to order what was found."""

    cut: Cut
    embed_texts: Embed
    embed_questions: Embed
    reranker: SentenceModel | None = None


def run(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Compare the ways to cut and embed in each collection."""
    edits = 50 if quick else 200
    with nullcontext() if quick else sentence_model() as sentences:
        local = _local_ways()
        ways = local if sentences is None else local | _sentence_ways(local, sentences)
        for collection in collections(quick=quick):
            cuts: dict[Cut, tuple[list[Piece], dict[str, Figure]]] = {}
            for name, way in ways.items():
                step(f"retrieval: {collection.name}, {name}")
                if way.cut not in cuts:
                    cuts[way.cut] = _all_pieces(collection, way.cut), _changed_by_edits(collection, way.cut, edits)
                pieces, changed = cuts[way.cut]
                if name in local or len(pieces) <= _MOST_CHUNKS:
                    report.add(**_describe(collection, name, pieces), **find(collection, pieces, way), **changed)
            if sentences is None and not quick:
                report.add(collection=collection.name, way="e5: not installed")


def _describe(collection: Collection, name: str, pieces: Sequence[Piece]) -> dict[str, Figure]:
    return {
        "collection": collection.name,
        "way": name,
        "questions": len(_judged(collection)),
        "chunks": len(pieces),
        "mean_characters": round(sum(piece.end - piece.start for piece in pieces) / len(pieces)),
    }


def _local_ways() -> dict[str, Way]:
    cuts = {
        "recursive splitting": _recursive(_SIZE),
        "ours": _ours(_SIZE, headings=False),
        "ours, with headings": _ours(_SIZE, headings=True),
        "ours, 250 tokens": _ours(250, headings=False, unit="tokens"),
    }
    return {name: Way(cut, embed, embed) for name, cut in cuts.items()}


def _sentence_ways(local: Mapping[str, Way], sentences: SentenceModel) -> dict[str, Way]:
    def embedded(cut: str, *, prefixed: bool) -> Way:
        embed_texts = partial(sentences.embed, purpose="document", prefixed=prefixed)
        return Way(local[cut].cut, embed_texts, partial(sentences.embed, purpose="query", prefixed=prefixed))

    return {
        "recursive splitting, e5 without prefixes": embedded("recursive splitting", prefixed=False),
        "ours, e5 without prefixes": embedded("ours", prefixed=False),
        "ours, e5": embedded("ours", prefixed=True),
        "ours, reranked by e5": replace(local["ours"], reranker=sentences),
    }


def _recursive(size: int) -> Cut:
    """Cut where the largest structure of a text ends that fits, without regard to the text around it."""
    splitter = TextSplitter(size)

    def cut(number: int, whole: str, markdown: bool) -> Iterator[Piece]:  # noqa: ARG001, FBT001  as `Cut`
        for start, text in splitter.chunk_indices(whole):
            yield Piece(number, start, start + len(text), text)

    return cut


def _ours(size: int, *, headings: bool, unit: ChunkUnit = "characters") -> Cut:
    """Cut as this package does."""
    chunker = Chunker(size, 0, unit=unit, model_input=ModelInput(Tokenizer(WORDLLAMA)))

    def cut(number: int, whole: str, markdown: bool) -> Iterator[Piece]:  # noqa: FBT001  as `Cut`
        for chunk in chunker.chunks([TextPiece(whole)], markdown=markdown):
            text = embedded_text(chunk.heading, chunk.text) if headings else chunk.text
            yield Piece(number, chunk.start, chunk.end, text)

    return cut


def _pieces(collection: Collection, cut: Cut, number: int) -> Iterator[Piece]:
    return cut(number, collection.documents[number], collection.markdown[number])


def _all_pieces(collection: Collection, cut: Cut) -> list[Piece]:
    return [piece for number in range(len(collection.documents)) for piece in _pieces(collection, cut, number)]


def _changed_by_edits(collection: Collection, cut: Cut, edits: int) -> dict[str, Figure]:
    """Texts that are new after one edit, the median and the 95th percentile: paragraphs added, removed and changed."""
    chosen = random.Random(_SEED)  # noqa: S311  repeatable, not secret
    long = [number for number, text in enumerate(collection.documents) if text.count("\n\n") > _EDITABLE]
    changed: list[int] = []
    for edit in range(edits):
        number = chosen.choice(long)
        paragraphs = collection.documents[number].split("\n\n")
        place = chosen.randrange(1, len(paragraphs) - 1)
        new = [["This sentence was added.", paragraphs[place]], [], [f"{paragraphs[place]} Changed."]][edit % 3]
        after = "\n\n".join([*paragraphs[:place], *new, *paragraphs[place + 1 :]])
        before = {piece.embedded for piece in _pieces(collection, cut, number)}
        changed.append(len({piece.embedded for piece in cut(number, after, collection.markdown[number])} - before))
    p95 = round(quantiles(changed, n=20, method="inclusive")[-1], 1)
    return {"edit_p50": median(changed), "edit_p95": p95}


def find(collection: Collection, pieces: Sequence[Piece], way: Way) -> dict[str, Figure]:
    """What the questions find by vector, and by vector and words: fused by ranks, and as this package does."""
    texts = [piece.embedded for piece in pieces]
    asked = [question.text for question in _judged(collection)]
    scores = way.embed_questions(asked) @ way.embed_texts(texts).T
    words = lance.write_dataset(pa.table({"id": [str(n) for n in range(len(texts))], "text": texts}), "memory://")
    words.create_scalar_index("text", "INVERTED")
    nearest: list[list[int]] = []
    by_ranks: list[list[int]] = []
    fused: list[list[int]] = []
    for question, row in zip(asked, scores, strict=True):
        best = np.argsort(-row)[:_CANDIDATES].tolist()
        by_vector = pa.table({"id": [str(number) for number in best], "_distance": -row[best]})
        by_words = matching(words, question, _CANDIDATES, ["id"]).select(["id", "_score"])
        nearest.append(best)
        by_ranks.append(_by_ranks(best, [int(key) for key in by_words["id"].to_pylist()]))
        fused.append([int(key) for key in fuse(by_vector, by_words)["id"].to_pylist()])
    if way.reranker is not None:
        fused = _reranked(way.reranker, asked, texts, [ranking[:_RERANKED] for ranking in fused])
    figures: dict[str, Figure] = {}
    for name, rankings in (("vector", nearest), ("ranks", by_ranks), ("hybrid", fused)):
        recall, gain = _judge(collection, pieces, rankings)
        figures |= {f"{name}_recall_at_5": round(recall, 3), f"{name}_ndcg_at_10": round(gain, 3)}
    return figures


def _judged(collection: Collection) -> Sequence[Question]:
    """The questions that had no say in the weights of a hybrid search."""
    return collection.questions[1::2]


def _reranked(
    reranker: SentenceModel, asked: Sequence[str], texts: Sequence[str], rankings: Sequence[Sequence[int]]
) -> list[list[int]]:
    candidates = [[texts[at] for at in ranking] for ranking in rankings]
    scores = reranker.rerank(list(zip(asked, candidates, strict=True)))
    return [
        [at for _, at in sorted(zip(row, ranking, strict=True), key=lambda scored: -scored[0])]
        for row, ranking in zip(scores, rankings, strict=True)
    ]


def _by_ranks(*rankings: Sequence[int]) -> list[int]:
    scores: defaultdict[int, float] = defaultdict(float)
    for ranking in rankings:
        for rank, at in enumerate(ranking, 1):
            scores[at] += 1 / (_RECIPROCAL + rank)
    return sorted(scores, key=lambda at: -scores[at])


def _judge(collection: Collection, pieces: Sequence[Piece], rankings: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Recall@5 and nDCG@10."""
    ranks = [
        next((rank for rank, at in enumerate(ranking[:_RANKED]) if is_right(pieces[at], question)), None)
        for question, ranking in zip(_judged(collection), rankings, strict=True)
    ]
    hits = [rank for rank in ranks if rank is not None]
    recall = sum(rank < _NEAREST for rank in hits) / len(ranks)
    return recall, sum(1 / math.log2(rank + 2) for rank in hits) / len(ranks)


def is_right(piece: Piece, question: Question) -> bool:
    """Whether a chunk answers a question."""
    for document, start, end in question.answers:
        shared = min(end, piece.end) - max(start, piece.start)
        if document == piece.document and 2 * shared >= min(end - start, piece.end - piece.start):
            return True
    return False


def embed(texts: Sequence[str]) -> Vectors:
    """Unit vectors of the local model, shape (n, dimensions)."""

    async def all_of_them() -> list[Vectors]:
        async with LocalEmbedder(EmbeddingSettings(LOCAL_MODEL, LOCAL_DIMENSIONS)) as embedder:
            return [(await embedder.embed(texts[start : start + 128])).vectors for start in range(0, len(texts), 128)]

    return np.concatenate(asyncio.run(all_of_them()))
