"""The child process of the built-in parsers, so that a hostile file cannot harm the parent process.

It runs as a script and imports almost nothing of the package, so that it starts as fast as its parser does. It drops
its rights to files, the network and other processes before it loads the parser, see `confinement`. The parent limits
memory and CPU.

It speaks the protocol of `sandbox.children`. A request has the media type and the limits of a document, then the
document. The outcome of an answer is ``text``, ``corrupt``, ``too large``, ``encrypted`` or ``unsupported``, and its
detail is for the error message. The data of a text is a line of JSON with the characters and the page of each piece,
then the text in UTF-8.
"""

import json
import os
import re
import zlib
from importlib.util import find_spec
from io import BytesIO
from typing import Final
from zipfile import BadZipFile, ZipFile

from ingest_pipeline.parsing.mail import BrokenMailError, mail_text
from ingest_pipeline.parsing.pages import MARKER, Piece, divide_pages, divide_slides
from ingest_pipeline.parsing.tables import rewrite_tables
from ingest_pipeline.sandbox.confinement import drop_rights
from ingest_pipeline.sandbox.exchange import Exchange, remove_files

MAX_LIST_BYTES: Final = 16 << 20
"""Size of the list of pieces, which precedes a text. A page takes about 15 bytes."""
MAX_DETAIL_CHARACTERS: Final = 1_000
"""Characters of an error message: some quote the document."""

# The parser renders the elements in a head as YAML, which then reads as a rule and a heading; without these tags the
# title is the first paragraph and the rest, which no reader of the page sees, is gone.
_HEAD: Final = re.compile(r"""</?(?:head|meta|link|base)\b(?:=\s*+(?:"[^"]*+"|'[^']*+')|[^>])*+>""", re.IGNORECASE)
_TABLE_HEADER: Final = re.compile(r"<th\b", re.IGNORECASE)


def _parser_folder() -> list[str]:
    """The folder with the parser's package."""
    parser = find_spec("kreuzberg")
    return [os.path.dirname(os.path.dirname(parser.origin))] if parser and parser.origin else []  # noqa: PTH120


KEPT: Final = drop_rights(_parser_folder())
"""The rights that this process could not drop."""

import kreuzberg  # noqa: E402  only after the rights were dropped

_HTML: Final = "text/html"
_MAIL: Final = "message/rfc822"
_PDF: Final = "application/pdf"
_PPTX: Final = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
_XLSX: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_EMBEDDED_IMAGE: Final = re.compile(r"!\[[^\]\n]*\]\(data:[^)\s]*\)")


def main() -> None:
    """Answer requests until the input ends."""
    exchange = Exchange()
    exchange.answer("ready", ", ".join(KEPT))
    for request, data in exchange.requests():
        result = _extract(data, request["media_type"], request["unpacked_bytes"])
        if isinstance(result, tuple):
            outcome, detail = result
            exchange.answer(outcome, detail[:MAX_DETAIL_CHARACTERS])
            continue
        pieces = json.dumps([(len(piece), page) for piece, page in result]).encode()
        text = "".join(piece for piece, _ in result).encode()
        if len(text) > request["text_bytes"]:
            exchange.answer("too large", f"has more than {request['text_bytes']} bytes of text")
        elif len(pieces) >= MAX_LIST_BYTES:
            exchange.answer("too large", "has too many pages")
        else:
            exchange.answer("text", data=pieces + b"\n" + text)


def _extract(data: bytes, media_type: str, unpacked_bytes: int) -> list[Piece] | tuple[str, str]:
    """The pieces of the text, or the outcome and the problem."""
    if data.startswith(b"PK") and (refused := _examine_archive(data, unpacked_bytes)):
        return refused
    try:
        return _pieces(data, media_type)
    except MemoryError:
        return "too large", "needs more memory than the parser may use"
    except BrokenMailError as error:
        return "corrupt", str(error)
    except kreuzberg.KreuzbergError as error:
        return _outcome(error), f"cannot be parsed: {_said_once(error)}"


def _converted(data: bytes, media_type: str) -> kreuzberg.ExtractionResult:
    config = kreuzberg.ExtractionConfig(
        use_cache=False,
        output_format="markdown",
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
        pages=kreuzberg.PageConfig(
            insert_page_markers=media_type == _PPTX, marker_format=f"\n\n{MARKER}{{page_num}}\n\n"
        ),
        include_document_structure=media_type == _PDF,
        disable_ocr=True,  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # missing from its stubs
    )
    return kreuzberg.extract_bytes_sync(data, media_type, config)


def _pieces(data: bytes, media_type: str) -> list[Piece]:
    if media_type == _MAIL:
        return [(_searchable(mail_text(data, _page_text)), None)]
    if media_type == _HTML:
        return [(_page_text(data.decode()), None)]
    result = _converted(data, media_type)
    if media_type == _PPTX:
        return divide_slides(result.content, _searchable)
    text = _searchable(result.content)
    if media_type == _PDF:
        return divide_pages(text, result.document["nodes"]) if result.document else [(text, None)]
    return [(rewrite_tables(text, headers=media_type == _XLSX), None)]


def _page_text(page: str) -> str:
    """A page of HTML as Markdown."""
    result = _converted(_HEAD.sub("", page).encode(), _HTML)
    return rewrite_tables(_searchable(result.content), headers=_TABLE_HEADER.search(page) is not None)


def _searchable(text: str) -> str:
    """The text without NUL, which Postgres cannot store, and without images that are embedded as text."""
    return _EMBEDDED_IMAGE.sub("", text).replace("\0", "")


def _examine_archive(data: bytes, unpacked_bytes: int) -> tuple[str, str] | None:
    """The problem with a ZIP archive. The parser skips members that it cannot read and does not report them."""
    try:
        with ZipFile(BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > unpacked_bytes:
                return "too large", f"unpacks to more than {unpacked_bytes} bytes"
            damaged = archive.testzip()
    except (BadZipFile, EOFError, zlib.error) as error:
        return "corrupt", f"is a damaged ZIP archive: {error}"
    except RuntimeError as error:
        outcome = "encrypted" if "encrypted" in str(error) else "unsupported"
        return outcome, f"is a ZIP archive of an unknown kind: {error}"
    return ("corrupt", f"is damaged in its member {damaged}") if damaged else None


def _said_once(error: kreuzberg.KreuzbergError) -> str:
    """The message of the parser, which has its cause twice, and the name of the class before it."""
    parts = dict.fromkeys(str(error).split(": "))
    parts.pop(type(error).__name__, None)
    return ": ".join(parts)


def _outcome(error: kreuzberg.KreuzbergError) -> str:
    message = str(error).lower()
    if "security limit" in message or "compression ratio" in message or "out of memory" in message:
        return "too large"
    if "password" in message or "encrypt" in message:
        return "encrypted"
    if isinstance(error, kreuzberg.ValidationError | kreuzberg.MissingDependencyError):
        return "unsupported"
    return "corrupt"


if __name__ == "__main__":
    main()
    remove_files()
