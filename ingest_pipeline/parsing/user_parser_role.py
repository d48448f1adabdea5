"""Calls a parser of the user in the child process, and reads its answer in the parent process."""

from __future__ import annotations

from typing import cast

from ingest_pipeline.extensions.protocol import (
    InvalidResultError,
    columns_from_json,
    columns_to_json,
    pack,
    pieces_from_json,
    pieces_to_json,
    unpack,
)
from ingest_pipeline.parsing.base import ParsedDocument, Parser, RawDocument, TextPiece


def answer(extension: object, head: dict[str, object], data: bytes) -> bytes:
    """The pieces and columns of a document.

    Args:
        extension: The parser.
        head: The document's `key`, and the `max_text_bytes` that it may have, in bytes.
        data: Its bytes.

    Raises:
        InvalidResultError: The parser returned something that its protocol does not allow.
    """
    found = cast("object", cast("Parser", extension).parse(RawDocument(str(head["key"]), data)))
    if not isinstance(found, ParsedDocument):
        raise InvalidResultError(f"returned a {type(found).__name__}, not a ParsedDocument")
    columns = columns_to_json(found.columns)
    text, division = pieces_to_json(found.pieces, int(str(head["max_text_bytes"])))
    return pack(text, division, columns)


def read_answer(data: bytes) -> tuple[list[TextPiece], dict[str, object]]:
    """The pieces and columns.

    Raises:
        ValueError, TypeError: The bytes were not made by `answer`.
    """
    text, (division, columns) = unpack(data)
    return pieces_from_json(text, division), columns_from_json(columns)
