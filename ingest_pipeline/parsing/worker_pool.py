"""Runs the built-in parsers in child processes: the parent's side of ``worker``."""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ingest_pipeline.errors import (
    CorruptDocumentError,
    DocumentError,
    DocumentTooLargeError,
    EncryptedDocumentError,
    MissingExtraError,
    UnsupportedFormatError,
)
from ingest_pipeline.sandbox.children import ChildPool, DeadChildError, Program, RequestLimits
from ingest_pipeline.types import TextPiece

_SCRIPT: Final = Path(__file__).with_name("worker.py")
_ERRORS: Final[dict[str, type[DocumentError]]] = {
    "corrupt": CorruptDocumentError,
    "too large": DocumentTooLargeError,
    "unsupported": UnsupportedFormatError,
}
_OUTCOMES: Final = frozenset({"text", "encrypted", *_ERRORS})
_MAX_LIST_BYTES: Final = 16 << 20
"""Size of the list of pieces, which precedes a text. A page takes about 15 bytes."""


@dataclass(frozen=True, slots=True)
class ParserLimits:
    """Limits of parsing one document. Text formats are streamed and have no limits."""

    input_bytes: int = 100_000_000
    unpacked_bytes: int = 250_000_000
    """Unpacked size of an Office or EPUB file, which is a ZIP archive."""
    output_bytes: int = 100_000_000
    memory_bytes: int = 2 << 30
    """Address space of the child: its libraries and thread stacks take 0.5 GB before it reads a document."""
    cpu_seconds: int = 60
    wall_seconds: float = 120.0

    @property
    def of_request(self) -> RequestLimits:
        """The limits of a request to a child."""
        return RequestLimits(self.cpu_seconds, self.wall_seconds, self.output_bytes + _MAX_LIST_BYTES)


def blame(death: DeadChildError, document: str, limits: ParserLimits) -> DocumentError:
    """The error of the document that a child was parsing when it died."""
    if death.expired:
        return DocumentTooLargeError(document, f"took more than {limits.wall_seconds:g} seconds to parse")
    if death.out_of_cpu:
        return DocumentTooLargeError(document, f"took more than {limits.cpu_seconds} seconds of CPU to parse")
    if death.out_of_memory:
        return DocumentTooLargeError(document, f"needs more than {limits.memory_bytes} bytes of memory to parse")
    return CorruptDocumentError(document, f"crashed the parser ({death.how})")


class ParserPool:
    """Parses documents of the built-in formats in children."""

    def __init__(self) -> None:
        self._children = ChildPool()

    def extract(self, document: str, media_type: str, data: bytes, limits: ParserLimits) -> list[TextPiece]:
        """Parse a document in a child process. Threads may call this concurrently.

        Args:
            document: Key of the document, for the messages.
            media_type: A format that kreuzberg reads.
            data: The whole document.
            limits: The limits of parsing it.

        Returns:
            The text as Markdown, a piece for each page if the format has pages. No text if the document has none.

        Raises:
            MissingExtraError: kreuzberg is not installed.
            ConfigurationError: The child does not start.
            CorruptDocumentError: The document is damaged, or the child crashed over it.
            DocumentTooLargeError: It exceeded a limit.
            EncryptedDocumentError: It needs a password.
            UnsupportedFormatError: kreuzberg does not support its format.
        """
        if find_spec("kreuzberg") is None:
            raise MissingExtraError(
                "PDF, Office, HTML and EPUB documents and e-mail need the parser kreuzberg, which is not installed",
                "Run: pip install 'ingest-pipeline[documents]'",
            )
        program = Program("document parser", _SCRIPT, _OUTCOMES, limits.memory_bytes)
        head = {"media_type": media_type, "unpacked_bytes": limits.unpacked_bytes, "text_bytes": limits.output_bytes}
        try:
            answer = self._children.ask(program, head, data, limits.of_request)
        except DeadChildError as death:
            raise blame(death, document, limits) from None
        if answer.outcome == "text":
            try:
                return _pieces(answer.data)
            except (ValueError, TypeError):
                raise CorruptDocumentError(document, "made the parser answer with invalid text") from None
        if answer.outcome == "encrypted":
            raise EncryptedDocumentError(document, answer.detail, "Save it without a password.")
        raise _ERRORS[answer.outcome](document, answer.detail)

    def close(self) -> None:
        """End the idle children."""
        self._children.close()


def _pieces(data: bytes) -> list[TextPiece]:
    """Read an answer: a line of JSON with the characters and the page of each piece, then the text.

    Raises:
        ValueError, TypeError: The answer has another form, or the pieces are not those of the text.
    """
    line, _, content = data.partition(b"\n")
    text = content.decode()
    pieces: list[TextPiece] = []
    start = 0
    for characters, page in json.loads(line):
        if type(characters) is not int or characters < 0 or not (page is None or (type(page) is int and page > 0)):
            raise ValueError(characters, page)
        pieces.append(TextPiece(text[start : start + characters], page))
        start += characters
    if start != len(text):
        raise ValueError(start)
    return pieces
