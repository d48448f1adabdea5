"""Calls a chunker of the user in the child process, and checks its spans there and again in the parent process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from ingest_pipeline.chunking.base import Chunker, ExtractedDocument, Span
from ingest_pipeline.extensions.protocol import InvalidResultError, pack, pieces_from_json, unpack
from ingest_pipeline.types import TextPiece

MAX_SPANS: Final = 500_000


def request(pieces: Sequence[TextPiece]) -> bytes:
    """The request to the child process: the text, and how it is divided into pieces."""
    return pack(
        "".join(piece.text for piece in pieces), [(len(piece.text), piece.page, piece.heading) for piece in pieces]
    )


def answer(extension: object, head: dict[str, object], data: bytes) -> bytes:
    """The spans of a document.

    Args:
        extension: The chunker.
        head: The document's `key`, and the `size` and `overlap` of chunks.
        data: Its text, as `request` wrote it.

    Raises:
        InvalidResultError: The chunker returned something that its protocol does not allow.
    """
    text, (division,) = unpack(data)
    size, overlap = int(str(head["chunk_size"])), int(str(head["overlap"]))
    document = ExtractedDocument(str(head["key"]), text, pieces_from_json(text, division), size, overlap)
    found = cast("object", cast("Chunker", extension).chunks(document))
    if not isinstance(found, Iterable):
        raise InvalidResultError(f"returned a {type(found).__name__}, not spans")
    spans = checked(cast("Iterable[object]", found), text, size, overlap)
    return json.dumps([(span.start, span.end, span.heading) for span in spans]).encode()


def read_answer(data: bytes, text: str, size: int, overlap: int) -> list[Span]:
    """The spans, checked again, because a hostile document may control the child process.

    Raises:
        ValueError, TypeError: They are no spans of this text.
    """
    parts = cast("list[list[Any]]", json.loads(data))
    spans = [Span(start, end, None if heading is None else tuple(heading)) for start, end, heading in parts]
    try:
        return checked(spans, text, size, overlap)
    except InvalidResultError as error:
        raise ValueError(str(error)) from error


def checked(spans: Iterable[object], text: str, size: int, overlap: int) -> list[Span]:
    """The spans that are not blank.

    Args:
        spans: What a chunker returned.
        text: The document.
        size: Characters of a chunk, at most.
        overlap: Characters that it may repeat, at most.

    Raises:
        InvalidResultError: One is no span of the text, too long, or overlaps the one before it too far.
    """
    found: list[Span] = []
    before = Span(0, 0)
    for number, span in enumerate(spans):
        if number == MAX_SPANS:
            raise InvalidResultError(f"returned more than {MAX_SPANS} chunks")
        if not isinstance(span, Span):
            raise InvalidResultError(f"returned a chunk that is a {type(span).__name__}, not a Span")
        _check(span, before, text, size, overlap)
        before = span
        if not text[span.start : span.end].isspace():
            found.append(span)
    return found


def _check(span: Span, before: Span, text: str, size: int, overlap: int) -> None:
    start, end, heading = span.start, span.end, cast("object", span.heading)
    shown = f"the chunk {start!r:.30}-{end!r:.30}"
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        raise InvalidResultError(f"returned {shown}, which is not in the text of {len(text)} characters")
    if end - start > size:
        raise InvalidResultError(f"returned {shown} of {end - start} characters, and chunk_size allows {size}")
    # The first span follows nothing.
    if before.end and (start <= before.start or end <= before.end):
        raise InvalidResultError(f"returned {shown} after the chunk {before.start}-{before.end}: offsets must ascend")
    if before.end - start > overlap:
        raise InvalidResultError(
            f"returned {shown}, which repeats {before.end - start} characters of the one before it, and chunk_overlap "
            f"allows {overlap}"
        )
    if span.text is not None and span.text != text[start:end]:
        raise InvalidResultError(f"returned {shown} with a text that differs from the document's text there")
    if heading is not None and not (
        isinstance(heading, tuple) and all(isinstance(title, str) for title in cast("tuple[object, ...]", heading))
    ):
        raise InvalidResultError(f"returned {shown} with the heading {heading!r:.60}, which is not a tuple of texts")
