"""The built-in parsers: they extract the text of a document from its bytes.

To add a format, add its extension and media type to `_PARSED` or `_TEXT`, and its parser to `worker` if the format is
not text. Text is any format that a search can use as it is.

Text of any kind, source code among it, is decoded as a stream, in the memory of one block. PDF, Office, HTML and EPUB
documents and e-mail are read whole, within limits, and parsed in a child process. Other formats, such as images and
scans, are refused with an error that names the option for a parser of the user's.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain
from pathlib import PurePosixPath
from typing import Final

from ingest_pipeline.errors import (
    BinaryDocumentError,
    CorruptDocumentError,
    DocumentEncodingError,
    DocumentTooLargeError,
    EmptyDocumentError,
    UnsupportedFormatError,
)
from ingest_pipeline.parsing.json_text import decode_escapes
from ingest_pipeline.parsing.text_decoding import encoding_of, with_encoding
from ingest_pipeline.parsing.worker_pool import ParserLimits, ParserPool
from ingest_pipeline.types import TextPiece

__all__ = ["PARSER", "ParserLimits", "is_compressed", "is_markdown", "is_parsed", "is_zipped", "media_type", "parse"]

PARSER: Final = "text-2/kreuzberg-4.10"
"""Part of the recipe. A new value means that the same bytes may give another text, so all documents are ingested again.

It names the version that this package was tested with, not the installed one, so that a new release of kreuzberg alone
does not make every corpus stale. A test compares the text of the samples and fails when this value has to change.
"""

DEFAULT_LIMITS: Final = ParserLimits()

_OFFICE: Final = "application/vnd.openxmlformats-officedocument"
_PDF: Final = "application/pdf"
_HTML: Final = "text/html"
_MAIL: Final = "message/rfc822"
_ZIPPED: Final = {
    ".docx": f"{_OFFICE}.wordprocessingml.document",
    ".epub": "application/epub+zip",
    ".pptx": f"{_OFFICE}.presentationml.presentation",
    ".xlsx": f"{_OFFICE}.spreadsheetml.sheet",
}
_PARSED: Final = _ZIPPED | {".eml": _MAIL, ".htm": _HTML, ".html": _HTML, ".xhtml": _HTML, ".pdf": _PDF}
_TEXT: Final = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".markdown": "text/markdown",
    ".md": "text/markdown",
    ".ndjson": "application/jsonl",
    ".rst": "text/x-rst",
    ".tsv": "text/tab-separated-values",
    ".xml": "application/xml",
}

_JSON: Final = ("application/json", "application/jsonl")
_NO_PARSER: Final = (
    "Its published version, if any, was not changed. Set INGEST_PARSER (parser of a component) to a parser of yours "
    "that reads it, or exclude it with INGEST_EXCLUDE."
)

_HEAD: Final = 1024
"""Number of bytes from which the format is detected. They must include a PDF header and the encoding of HTML."""

_BINARY: Final = {
    b"PK\x03\x04": "a ZIP archive",
    b"PK\x05\x06": "an empty ZIP archive",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF87a": "a GIF image",
    b"GIF89a": "a GIF image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"\x1f\x8b": "compressed by gzip",
    b"BZh91AY&SY": "compressed by bzip2",
    b"\xfd7zXZ\0": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x7fELF": "an ELF program",
    b"MZ\x90\0": "a Windows program",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"Obj\x01": "an Avro file",
    b"SQLite format 3\0": "an SQLite database",
}
_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

_BYTE_ORDER_MARKS: Final = [  # the longer first: UTF-32 in little-endian order starts like UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
]
_DECLARED_ENCODING: Final = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)

_pool: Final = ParserPool()


def media_type(document: str) -> str:
    """The media type of a key's extension, ``text/plain`` if the extension is unknown."""
    extension = _extension(document)
    return _PARSED.get(extension) or _TEXT.get(extension, "text/plain")


def is_markdown(document: str) -> bool:
    """Whether the extracted text of a document is Markdown. That of all parsed formats is."""
    return _extension(document) in _PARSED or media_type(document) == "text/markdown"


def is_parsed(document: str) -> bool:
    """Whether the extension of a key names a format that is read whole and parsed, and not streamed as text."""
    return _extension(document) in _PARSED


def is_compressed(document: str) -> bool:
    """Whether the extension names a format that may have more text than bytes."""
    return is_zipped(document) or _PARSED.get(_extension(document)) == _PDF


def is_zipped(document: str) -> bool:
    """Whether the extension names a ZIP archive, which may have far more text than bytes."""
    return _extension(document) in _ZIPPED


def parse(
    document: str, blocks: Iterable[bytes], limits: ParserLimits = DEFAULT_LIMITS, *, encoding: str | None = None
) -> Iterator[TextPiece]:
    """Extract the text of a document.

    Text must be UTF-8, begin with the byte order mark of UTF-16 or UTF-32, or have the given encoding. The mark is
    removed, and newlines stay as they are. A document that is empty or only white space has no text, which is no error.
    No piece is valid before the iterator ends, because an error may come after the first pieces.

    Args:
        document: Its key, whose extension names the format.
        blocks: Its bytes, in order, divided anywhere.
        limits: Limits of the parser. Text is streamed and has none.
        encoding: The encoding of text that is not UTF-8 and has no byte order mark. None: such text is an error.

    Yields:
        Pieces whose concatenated texts are the extracted text, to which the offsets of chunks refer.

    Raises:
        EmptyDocumentError: The parser of its format finds no text in it, as in a scan.
        BinaryDocumentError: It is not text, and no parser reads its format.
        DocumentEncodingError: It is text in an encoding that is neither UTF-8 nor marked nor the one given.
        CorruptDocumentError: It is truncated or damaged.
        DocumentTooLargeError: Parsing exceeded a limit.
        EncryptedDocumentError: It needs a password.
        UnsupportedFormatError: It has an older Office format, or one that the parser does not support.
        MissingExtraError: Its format needs kreuzberg, which is not installed.
        ConfigurationError: The parser does not start.
    """
    head, rest = _split_head(blocks)
    if len(head) < _HEAD and not head.strip():
        return  # the document is empty or only white space
    kind = _format(document, head)
    if kind is None:
        text = _streamed(document, head, rest, encoding)
        yield from map(TextPiece, decode_escapes(text) if media_type(document) in _JSON else text)
    else:
        yield from _parsed(document, kind, rest, limits, encoding)


@lru_cache(64)  # several functions need that of the same key
def _extension(document: str) -> str:
    name = document.rpartition("/")[2]
    if name in {"", "."}:
        return PurePosixPath(document).suffix.lower()
    # As PurePosixPath does, which takes as long as reading a small document.
    dot = name.rfind(".")
    return name[dot:].lower() if 0 < dot < len(name) - 1 else ""


def _split_head(blocks: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, from which the format is detected, and an iterator over all blocks."""
    source = iter(blocks)
    taken: list[bytes] = []
    while sum(map(len, taken)) < _HEAD and (block := next(source, None)) is not None:
        taken.append(block)
    return b"".join(taken)[:_HEAD], chain(taken, source)


def _format(document: str, head: bytes) -> str | None:
    """The media type for the parser, None for text."""
    named = _PARSED.get(_extension(document))
    if head.startswith(_OLE):
        raise UnsupportedFormatError(
            document, "is encrypted or of an Office format before 2007", "Save it as DOCX, XLSX, PPTX or PDF."
        )
    if head.startswith(b"%PDF-"):
        return _PDF
    if named in _ZIPPED.values():
        if not head.startswith(b"PK"):
            raise CorruptDocumentError(document, f"is not the ZIP archive that a {_extension(document)} file is")
        return named
    if named == _PDF and b"%PDF-" in head:
        return named
    for magic, what in _BINARY.items():
        if head.startswith(magic):
            raise BinaryDocumentError(document, f"is {what}, and not text", _NO_PARSER)
    if named == _PDF:
        raise CorruptDocumentError(document, "has no PDF header")
    return named


def _encoding(head: bytes) -> tuple[str, int]:
    """The encoding that the byte order mark names, and the length of the mark."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    return "utf-8", 0


def _streamed(document: str, head: bytes, blocks: Iterator[bytes], fallback: str | None) -> Iterator[str]:
    encoding, mark = _encoding(head)
    if encoding == "utf-8" and b"\0" in head:
        raise _nul_error(document)
    named = ((block, encoding) for block in blocks) if mark else with_encoding(blocks, fallback)
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = 0
    for block, name in chain(named, [(b"", None)]):
        final = name is None
        if name is not None and name != encoding:
            # All earlier bytes were ASCII, so the decoder keeps no partial character.
            encoding, decoder = name, codecs.getincrementaldecoder(name)()
        waiting = len(decoder.getstate()[0])
        try:
            piece = decoder.decode(block, final)
        except UnicodeDecodeError as error:
            raise _wrong_encoding(document, encoding, offset - waiting + error.start) from None
        offset += len(block)
        if "\0" in piece:
            raise _nul_error(document)
        yield piece[1:] if mark and piece else piece
        mark = 0 if piece else mark


def _nul_error(document: str) -> BinaryDocumentError:
    return BinaryDocumentError(
        document, "contains NUL: it is not text, or UTF-16 without a byte order mark", _NO_PARSER
    )


def _wrong_encoding(document: str, encoding: str, offset: int) -> DocumentEncodingError:
    return DocumentEncodingError(
        document,
        f"is not {encoding.upper()} at byte {offset}",
        "Its published version, if any, was not changed. Convert it to UTF-8, or set INGEST_ENCODING (encoding of a "
        "component).",
    )


def _parsed(
    document: str, kind: str, blocks: Iterator[bytes], limits: ParserLimits, fallback: str | None
) -> Iterator[TextPiece]:
    data = bytearray()
    for block in blocks:
        data += block
        if len(data) > limits.input_bytes:
            raise DocumentTooLargeError(document, f"has more than {limits.input_bytes} bytes")
    content = bytes(data)
    if kind == _HTML:
        content = _as_utf8(document, content, fallback)
        if not content.strip():
            return
    pieces = _pool.extract(document, kind, content, limits)
    if not any(piece.text.strip() for piece in pieces):
        scan = "; scanned pages are not read" if kind == _PDF else ""
        raise EmptyDocumentError(document, f"has no text{scan}", _NO_PARSER if scan else None)
    yield from pieces


def _as_utf8(document: str, page: bytes, fallback: str | None) -> bytes:
    """An HTML page in UTF-8: the parser would treat any other encoding as damaged UTF-8 without an error."""
    encoding, mark = _encoding(page)
    declared = _DECLARED_ENCODING.search(page[:_HEAD])
    if not mark and declared:
        encoding = _declared(declared[1].decode("ascii", "replace"))
    elif not mark:
        encoding = encoding_of(page, fallback)
    try:
        text = page[mark:].decode(encoding)
    except UnicodeDecodeError as error:
        raise _wrong_encoding(document, encoding, mark + error.start) from None
    except (LookupError, UnicodeError):
        raise DocumentEncodingError(document, f"declares {encoding!r}, which names no encoding of text") from None
    if "\0" in text:
        raise _nul_error(document)
    return text.encode()


def _declared(encoding: str) -> str:
    """The encoding that browsers use for a declared one (Encoding Standard, 4.2; HTML Standard, 13.2.3.2)."""
    if encoding.lower() in {"iso-8859-1", "latin1", "us-ascii", "ascii"}:
        return "cp1252"
    # A declaration that could be read as ASCII is not in UTF-16.
    return "utf-8" if encoding.lower().startswith("utf-16") else encoding
