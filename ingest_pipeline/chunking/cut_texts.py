"""Cuts whole documents of text, and writes the chunks as bytes for the process that requested them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, cast

from ingest_pipeline.chunking.blocks import BlockRecorder, encoded
from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.extensions.protocol import pack, unpack
from ingest_pipeline.parsing.built_in_parsers import is_markdown, parse
from ingest_pipeline.types import Chunk


@dataclass(frozen=True, slots=True)
class WholeText:
    """A document of text to cut, with all of its bytes."""

    key: str
    content: bytes
    has_blocks: bool
    """Whether its blocks are recorded."""


@dataclass(frozen=True, slots=True)
class CutText:
    """A document that was cut."""

    characters: int
    """Number of characters of its text."""
    chunks: Sequence[Chunk]
    blocks: bytes | None
    """The record of its blocks. None: it has none."""
    seconds: float
    """How long it took."""


def cut(chunker: Chunker, document: WholeText, encoding: str | None) -> CutText:
    """Cut a document.

    Args:
        chunker: The built-in chunker.
        document: The document, of a format that is streamed as text.
        encoding: The encoding of text that is neither UTF-8 nor marked.

    Raises:
        DocumentError: It cannot be ingested as it is.
    """
    start = perf_counter()
    pieces = list(parse(document.key, [document.content], encoding=encoding))
    recorder = BlockRecorder() if document.has_blocks else None
    chunks = list(chunker.chunks(pieces, markdown=is_markdown(document.key), blocks=recorder))
    blocks = None if recorder is None else encoded(recorder.blocks)
    return CutText(sum(len(piece.text) for piece in pieces), chunks, blocks, perf_counter() - start)


def to_bytes(texts: Sequence[CutText | None]) -> bytes:
    """Write documents that were cut; None for those that were not."""
    parts: list[object] = []
    for text in texts:
        if text is None:
            parts.append(None)
            continue
        sections: dict[tuple[tuple[str, ...], str | None], int] = {}
        spans: list[int] = []
        for chunk in text.chunks:
            section = sections.setdefault((chunk.headings, chunk.header), len(sections))
            spans += (chunk.start, chunk.end, section)
        blocks = None if text.blocks is None else b64encode(text.blocks).decode()
        parts.append((text.characters, spans, list(sections), blocks, text.seconds))
    return pack("".join(chunk.text for text in texts if text is not None for chunk in text.chunks), *parts)


def from_bytes(data: bytes, count: int) -> list[CutText | None]:
    """Read what `to_bytes` wrote.

    Args:
        data: The bytes.
        count: Number of documents.

    Raises:
        ValueError, TypeError: The bytes are not those of so many documents.
    """
    text, parts = unpack(data)
    if len(parts) != count:
        raise ValueError(len(parts))
    found: list[CutText | None] = []
    start = 0
    for part in parts:
        if part is None:
            found.append(None)
            continue
        characters, spans, sections, blocks, seconds = cast("tuple[Any, ...]", part)
        if type(characters) is not int or type(seconds) is not float:
            raise TypeError(characters, seconds)
        chunks = _chunks(text, start, characters, spans, [_section(*section) for section in sections])
        start += sum(len(chunk.text) for chunk in chunks)
        record = None if blocks is None else b64decode(blocks, validate=True)
        found.append(CutText(characters, chunks, record, seconds))
    if start != len(text):
        raise ValueError(start)
    return found


def _section(headings: Sequence[object], header: object) -> tuple[tuple[str, ...], str | None]:
    if not all(isinstance(heading, str) for heading in headings) or not isinstance(header, str | None):
        raise TypeError(headings, header)
    return cast("tuple[str, ...]", tuple(headings)), header


def _chunks(
    text: str, at: int, characters: int, spans: Sequence[object], sections: Sequence[tuple[tuple[str, ...], str | None]]
) -> list[Chunk]:
    """The chunks of one document, whose texts follow each other from a place on."""
    if not all(type(number) is int for number in spans):
        raise TypeError(spans)
    chunks: list[Chunk] = []
    numbers = iter(cast("Sequence[int]", spans))
    for start, end, section in zip(numbers, numbers, numbers, strict=True):
        if not (0 <= start < end <= characters and 0 <= section < len(sections)):
            raise ValueError(start, end, section)
        chunks.append(Chunk(len(chunks), start, end, text[at : at + end - start], None, None, *sections[section]))
        at += end - start
    if at > len(text):
        raise ValueError(at)
    return chunks
