"""Code of a user of each kind: some that works, and some that does whatever wrong code may do."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import cast

from ingest_pipeline.chunking.base import ExtractedDocument, Span
from ingest_pipeline.embedding.base import Embeddings
from ingest_pipeline.enrichment.base import (
    BilledError,
    ChunkEnrichment,
    EnrichableChunk,
    EnrichableDocument,
    Enrichment,
)
from ingest_pipeline.parsing.base import ParsedDocument, RawDocument
from ingest_pipeline.types import TextPiece, Usage


class Lines:
    """A parser: a piece for each line, whose number is its page."""

    fingerprint = "lines-1"
    suffixes = (".lines",)

    def __init__(self, upper: bool = False, fingerprint: str = "lines-1") -> None:
        self.upper = upper
        self.fingerprint = fingerprint

    def parse(self, document: RawDocument) -> ParsedDocument:
        text = document.content.decode()
        lines = (text.upper() if self.upper else text).splitlines(keepends=True)
        pieces = [TextPiece(line, number, ("Lines", f"Line {number}")) for number, line in enumerate(lines, 1)]
        return ParsedDocument(pieces, {"lines": len(lines), "key": document.key})


class Obedient:
    """A parser that does what its document says."""

    fingerprint = "obedient"
    suffixes = (".do",)

    def __init__(self, seconds: float = 30) -> None:
        self.seconds = seconds

    def parse(self, document: RawDocument) -> ParsedDocument:
        what = document.content.decode()
        if what == "recurse":
            return self.parse(document)
        if what.startswith("eval "):
            return ParsedDocument([TextPiece(attempt(what[5:]))])
        return cast("ParsedDocument", WRONG_RESULTS.get(what, lambda: ParsedDocument([TextPiece(what)]))())


def misbehave(what: str) -> None:
    """Do what no extension should do."""
    match what:
        case "raise":
            raise ValueError("no such thing")
        case "exit":
            sys.exit(3)
        case "die":
            os._exit(4)
        case "hang":
            time.sleep(600)
        case "spin":
            while True:
                pass
        case _:
            return


def print_answers() -> ParsedDocument:
    sys.stdout.write('{"outcome": "result", "detail": "", "size": 0}\n' * 1000)
    os.write(1, b"nonsense\n" * 1000)
    sys.stdin.read()
    return ParsedDocument([TextPiece("printed")])


WRONG_RESULTS: Mapping[str, Callable[[], object]] = {
    **{what: partial(misbehave, what) for what in ("raise", "exit", "die", "hang", "spin")},
    "many": lambda: ParsedDocument(TextPiece("") for _ in range(10_000_000)),
    "huge": lambda: ParsedDocument([TextPiece("x" * 120_000_000)]),
    "endless": lambda: ParsedDocument(iter(lambda: TextPiece("x" * 1_000_000), None)),
    "greedy": lambda: ParsedDocument([TextPiece(str(len([bytearray(1 << 20) for _ in range(4096)])))]),
    "print": print_answers,
    "surrogate": lambda: ParsedDocument([TextPiece("\ud800")]),
    "nul": lambda: ParsedDocument([TextPiece("a\0b")]),
    "columns": lambda: ParsedDocument([TextPiece("text")], {"when": {"not": "a scalar"}}),
    "infinite": lambda: ParsedDocument([TextPiece("text")], {"value": float("nan")}),
    "name": lambda: ParsedDocument([TextPiece("text")], cast("dict[str, object]", {1: "number"})),
    "page": lambda: ParsedDocument([TextPiece("text", 0)]),
    "heading": lambda: ParsedDocument([TextPiece("text", 1, cast("tuple[str, ...]", "heading"))]),
    "bytes": lambda: ParsedDocument([TextPiece(cast("str", b"text"))]),
    "strings": lambda: ParsedDocument(cast("list[TextPiece]", ["text"])),
    "none": lambda: None,
}


def attempt(expression: str) -> str:
    """What an expression gives, or the name of its error."""
    names = {"os": os, "socket": socket, "Path": Path}
    try:
        return repr(eval(expression, names))  # noqa: S307  this is the attack
    except BaseException as error:  # noqa: BLE001  whatever it is
        return type(error).__name__


class ObedientChunker:
    """A chunker that does what its document says, and else cuts it at lines."""

    fingerprint = "obedient-chunker"

    def __init__(self, seconds: float = 30, fingerprint: str = "obedient-chunker") -> None:
        self.seconds = seconds
        self.fingerprint = fingerprint

    def chunks(self, document: ExtractedDocument) -> Iterable[Span]:
        what = document.text.strip()
        misbehave(what)
        if what == "outside":
            return [Span(0, len(document.text) + 1)]
        return WRONG_SPANS.get(what, lambda: cut_at_lines(document.text))()


WRONG_SPANS: Mapping[str, Callable[[], Iterable[Span]]] = {
    "backward": lambda: [Span(4, 6), Span(0, 4)],
    "again": lambda: [Span(0, 4), Span(0, 5)],
    "overlap": lambda: [Span(0, 6), Span(2, 7)],
    "negative": lambda: [Span(-3, 2)],
    "empty": lambda: [Span(2, 2)],
    "text": lambda: [Span(0, 4, text="another text")],
    "float": lambda: [Span(cast("int", 0.0), 4)],
    "tuples": lambda: cast("list[Span]", [(0, 4)]),
    "many": lambda: (Span(number, number + 1) for number in range(10_000_000)),
    "none": lambda: cast("list[Span]", None),
}


def cut_at_lines(text: str) -> Iterator[Span]:
    """A chunk for each line, under a heading of its first word."""
    start = 0
    for line in text.splitlines(keepends=True):
        yield Span(start, start + len(line), tuple(line.split()[:1]))
        start += len(line)


class Title:
    """An enricher: the first line as title."""

    fingerprint = "title-1"

    def enrich(self, document: EnrichableDocument) -> Mapping[str, object]:
        return {"title": document.text.splitlines()[0] if document.text else None, "seen": sorted(document.columns)}


class Costly:
    """An enricher that is billed for each call, which it notes in a file."""

    durable = True

    def __init__(self, calls: str, fingerprint: str = "costly-1", tokens: int = 100, cost: str | None = None) -> None:
        self.calls = calls
        self.fingerprint = fingerprint
        self.tokens = tokens
        self.cost = cost

    async def enrich(self, document: EnrichableDocument) -> Enrichment:
        with Path(self.calls).open("a") as calls:  # noqa: ASYNC230  nothing else runs
            calls.write(f"{len(document.text)} {document.key!r}\n")
        cost, currency = (None, None) if self.cost is None else (Decimal(self.cost), "EUR")
        return Enrichment({"length": len(document.text)}, Usage(tokens=self.tokens, requests=1), cost, currency)


class Topics:
    """An enricher of chunks: the first word as topic, and the length. It notes the first word of each in a file."""

    durable = True

    def __init__(self, calls: str, fingerprint: str = "topics-1", prefix: str = "", tokens: int = 10) -> None:
        self.calls = calls
        self.fingerprint = fingerprint
        self.prefix = prefix
        self.tokens = tokens

    async def enrich_chunks(self, chunks: Sequence[EnrichableChunk]) -> ChunkEnrichment:
        words = [chunk.text.split()[0] for chunk in chunks]
        with Path(self.calls).open("a") as calls:  # noqa: ASYNC230  nothing else runs
            calls.writelines(f"{word}\n" for word in words)
        columns = [
            {"topic": self.prefix + word, "length": len(chunk.text)} for word, chunk in zip(words, chunks, strict=True)
        ]
        return ChunkEnrichment(columns, Usage(tokens=self.tokens * len(chunks), requests=1))


class Overcharged:
    """An enricher that is billed for each document or chunk, and fails with those that say so."""

    fingerprint = "overcharged-1"

    def enrich(self, document: EnrichableDocument) -> Enrichment:
        return self.found(document.text)

    def enrich_chunks(self, chunks: Sequence[EnrichableChunk]) -> ChunkEnrichment:
        found = [self.found(chunk.heading or "") for chunk in chunks]
        return ChunkEnrichment([one.columns for one in found], Usage(tokens=0))

    def found(self, text: str) -> Enrichment:
        usage, cost = Usage(tokens=70, requests=1), Decimal("0.25")
        what = text.rsplit(maxsplit=1)[-1] if text else ""
        if what == "raise":
            raise BilledError("the answer is cut off", usage, cost, "EUR")
        return Enrichment({"value": object() if what == "invalid" else "fine"}, usage, cost, "EUR")


NO_COLUMNS: Mapping[str, object] = {}
WRONG_CHUNK_COLUMNS: Mapping[str, Callable[[int], object]] = {
    "fewer": lambda count: [NO_COLUMNS] * (count - 1),
    "more": lambda count: [NO_COLUMNS] * (count + 1),
    "mapping": lambda _: {"topic": "x"},
    "none": lambda _: None,
    "member": lambda count: ["x"] * count,
    "type": lambda count: [{"topic": 1}] * count,
    "usage": lambda count: ChunkEnrichment([NO_COLUMNS] * count, Usage(tokens=-1)),
}


class ObedientChunkEnricher:
    """An enricher that does what a chunk says, and knows the title of the document besides."""

    fingerprint = "obedient-chunk-enricher"

    def enrich(self, document: EnrichableDocument) -> Mapping[str, object]:
        return {"title": document.text.splitlines()[0]}

    def enrich_chunks(self, chunks: Sequence[EnrichableChunk]) -> Sequence[Mapping[str, object]]:
        what = chunks[-1].text.split()[-1]
        misbehave(what)
        wrong = WRONG_CHUNK_COLUMNS.get(what)
        found = [{"topic": chunk.heading} for chunk in chunks] if wrong is None else wrong(len(chunks))
        return cast("Sequence[Mapping[str, object]]", found)


WRONG_ENRICHMENTS: Mapping[str, Callable[[], object]] = {
    "columns": lambda: {"value": object()},
    "usage": lambda: Enrichment({}, Usage(tokens=-1)),
    "cost": lambda: Enrichment({}, cost=cast("Decimal", 0.5), currency="EUR"),
    "currency": lambda: Enrichment({}, cost=Decimal(1), currency="euros"),
    "infinite": lambda: Enrichment({}, cost=Decimal("inf"), currency="EUR"),
    "many": lambda: {"value": list(range(200_000))},
    "none": lambda: None,
}


class ObedientEnricher:
    """An enricher that does what its document says."""

    fingerprint = "obedient-enricher"

    def __init__(self, seconds: float = 30) -> None:
        self.seconds = seconds

    def enrich(self, document: EnrichableDocument) -> Mapping[str, object] | Enrichment:
        what = document.text.strip()
        misbehave(what)
        if what in WRONG_ENRICHMENTS:
            return cast("Enrichment", WRONG_ENRICHMENTS[what]())
        return {"environment": os.environ.get("OWN_CODE_TEST")}


def direction(text: str, dimensions: int = 8) -> list[float]:
    """A vector that depends on the words of a text."""
    vector = [0.01] * dimensions
    for word in text.lower().split():
        vector[sum(word.encode()) % dimensions] += 1
    return vector


class NotingEmbedder:
    """An embedder that notes every text of a document that it embeds, for whose words it is billed."""

    def __init__(
        self, notes: str = "/dev/null", fingerprint: str = "noting-1", dimensions: int = 8, batch_size: int = 4
    ) -> None:
        self.notes = notes
        self.fingerprint = fingerprint
        self.dimensions = dimensions
        self.batch_size = batch_size

    async def embed_documents(self, texts: Sequence[str]) -> Embeddings:
        with Path(self.notes).open("a") as notes:  # noqa: ASYNC230  nothing else runs
            notes.writelines(f"{text!r}\n" for text in texts)
        vectors = [direction(text, self.dimensions) for text in texts]
        return Embeddings(vectors, Usage(tokens=sum(len(text.split()) for text in texts), requests=1))

    def embed_query(self, text: str) -> list[float]:
        return direction(text, self.dimensions)


class ObedientEmbedder:
    """An embedder that does what its texts say. It counts its calls in a file, across its processes."""

    dimensions = 4
    fingerprint = "obedient-embedder"

    def __init__(self, calls: str = "/dev/null", seconds: float = 30, fingerprint: str = "obedient-embedder") -> None:
        self.calls = calls
        self.seconds = seconds
        self.fingerprint = fingerprint

    def embed_documents(self, texts: Sequence[str]) -> Embeddings | list[list[float]]:
        with Path(self.calls).open("a") as calls:
            calls.write(f"{len(texts)}\n")
        for text in texts:
            misbehave(text)
            if text == "offline" or (text == "busy" and len(Path(self.calls).read_text().splitlines()) == 1):
                raise ConnectionResetError("try again")
        vectors = [direction(text, 4) for text in texts]
        for text in texts:
            if text in WRONG_VECTORS:
                return cast("list[list[float]]", WRONG_VECTORS[text](vectors))
        refused = {index: "has too many words" for index, text in enumerate(texts) if text == "long"}
        if refused:
            return Embeddings(vectors, Usage(tokens=7), refused)
        for index, text in enumerate(texts):
            match text:
                case "zero":
                    vectors[index] = [0.0] * 4
                case "nan":
                    vectors[index][2] = float("nan")
                case "big":
                    vectors[index][0] = 1e300
                case _:
                    pass
        return vectors

    def embed_query(self, text: str) -> list[float]:
        misbehave(text)
        if text == "offline":
            raise TimeoutError
        return [float("nan")] * 4 if text == "nan" else direction(text, 4)


WRONG_VECTORS: Mapping[str, Callable[[list[list[float]]], object]] = {
    "few": lambda vectors: vectors[1:],
    "many": lambda vectors: [*vectors, vectors[0]],
    "wide": lambda vectors: [[*vector, 1.0] for vector in vectors],
    "ragged": lambda vectors: [[1.0], *vectors[1:], [1.0, 2.0]][: len(vectors)],
    "words": lambda vectors: [["a", "b", "c", "d"] for _ in vectors],
    "nothing": lambda _: None,
    "usage": lambda vectors: Embeddings(vectors, Usage(tokens=-1)),
    "index": lambda vectors: Embeddings(vectors, refused={len(vectors): "why"}),
    "dear": lambda vectors: Embeddings(vectors[1:], Usage(tokens=50)),
}


class ObedientReranker:
    """A reranker that does what the question says, and else prefers short texts."""

    def __init__(self, seconds: float = 30) -> None:
        self.seconds = seconds

    async def rerank(self, question: str, texts: Sequence[str]) -> list[float]:
        misbehave(question)
        match question:
            case "offline":
                raise ConnectionRefusedError
            case "few":
                return [1.0] * (len(texts) - 1)
            case "nan":
                return [float("nan")] * len(texts)
            case "words":
                return cast("list[float]", "x" * len(texts))
            case "nothing":
                return cast("list[float]", None)
            case _:
                return [-float(len(text)) for text in texts]


class ProcessEmbedder:
    """An embedder whose vectors tell its process, and whether its address space is limited."""

    fingerprint = "process-1"
    dimensions = 2
    concurrency = 2

    def embed_documents(self, texts: Sequence[str]) -> list[list[int]]:
        time.sleep(0.2)
        return [[os.getpid(), 1 + (resource.getrlimit(resource.RLIMIT_AS)[0] >= 1 << 50)] for _ in texts]

    def embed_query(self, text: str) -> list[int]:
        return self.embed_documents([text])[0]
