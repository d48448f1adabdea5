"""Every document gives its text or an error of the right class; no file harms the next one or hangs the pipeline."""

# chance repeats itself here on purpose

import codecs
import hashlib
import io
import random
import zipfile
from pathlib import Path

import pytest

from ingest_pipeline.cli.demo.sample_documents import SAGAS, write_python_topics, write_samples
from ingest_pipeline.errors import (
    CorruptDocumentError,
    DocumentEncodingError,
    DocumentError,
    DocumentTooLargeError,
    EmptyDocumentError,
    UnsupportedFormatError,
)
from ingest_pipeline.parsing.built_in_parsers import PARSER, ParserLimits, is_markdown, media_type, parse
from tests.support.parsing import LIMITS, PARSED, SAMPLES, text_of

ZIPPED = [name for name in PARSED if not name.endswith((".html", ".pdf"))]
MAIN_PART = {
    "column-formats.epub": "chapter.xhtml",
    "object-stores.docx": "word/document.xml",
    "tides.xlsx": "xl/worksheets/sheet1.xml",
    "vector-search.pptx": "ppt/slides/slide1.xml",
}


# Samples


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_of_every_format_gives_its_text(name: str, samples: dict[str, bytes]) -> None:
    text = " ".join(text_of(name, samples[name]).split())
    for line in SAMPLES[name]:
        assert line in text


def test_samples_are_the_same_bytes_every_time(samples: dict[str, bytes], tmp_path: Path) -> None:
    assert {path.name: path.read_bytes() for path in write_samples(tmp_path / "again")} == samples
    for name in ZIPPED:
        with zipfile.ZipFile(io.BytesIO(samples[name])) as archive:
            assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_parser_version_names_the_text_that_it_gives(samples: dict[str, bytes]) -> None:
    """If the text of a sample changed, change PARSER and this together: every corpus has to be made again."""
    texts = hashlib.sha256("\0".join(text_of(name, samples[name]) for name in PARSED).encode()).hexdigest()
    assert (PARSER, texts[:16]) == ("text-2/kreuzberg-4.10", "6b6e5bd826e8ca50")


def test_python_topics_are_documents(tmp_path: Path) -> None:
    paths = write_python_topics(tmp_path / "topics")
    assert len(paths) > 60
    assert "context manager" in text_of("with.txt", (tmp_path / "topics" / "with.txt").read_bytes())


# Formats


@pytest.mark.parametrize(
    ("document", "expected", "markdown"),
    [
        ("a/b.MD", "text/markdown", True),
        ("a.PDF", "application/pdf", True),
        ("a.html", "text/html", True),
        ("a.csv", "text/csv", False),
        ("a.jsonl", "application/jsonl", False),
        ("a.py", "text/plain", False),
        ("folder.md/README", "text/plain", False),
        (".html", "text/plain", False),
    ],
)
def test_the_extension_names_the_media_type(document: str, expected: str, markdown: bool) -> None:
    assert (media_type(document), is_markdown(document)) == (expected, markdown)


@pytest.mark.parametrize("name", ["report", "report.txt", "report.docx", "report.html"])
def test_a_pdf_is_a_pdf_whatever_its_name(name: str, samples: dict[str, bytes]) -> None:
    assert SAGAS[1] in text_of(name, samples["sagas.pdf"])


def test_a_pdf_may_have_something_before_its_header(samples: dict[str, bytes]) -> None:
    assert SAGAS[1] in text_of("a.pdf", b"\r\n\r\n" + samples["sagas.pdf"])


def test_blocks_of_one_byte_make_the_same_document(samples: dict[str, bytes]) -> None:
    data = samples["object-stores.docx"]
    blocks = (data[at : at + 1] for at in range(len(data)))
    assert "".join(piece.text for piece in parse("a.docx", blocks)) == text_of("a.docx", data)


def test_an_old_or_encrypted_office_file_is_unsupported() -> None:
    with pytest.raises(UnsupportedFormatError, match="before 2007"):
        text_of("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2_000))


def test_an_encrypted_pdf_is_unsupported(samples: dict[str, bytes]) -> None:
    keys = b"/ID [<00><00>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >>" % (b"41" * 32, b"42" * 32)
    with pytest.raises(UnsupportedFormatError) as refused:
        text_of("a.pdf", samples["sagas.pdf"].replace(b"/Root 1 0 R", b"/Root 1 0 R " + keys))
    assert str(refused.value) == (
        "Document 'a.pdf' cannot be parsed: PDF is password-protected. Save it without a password."
    )


def test_the_problem_of_a_corrupt_pdf_is_said_once() -> None:
    with pytest.raises(CorruptDocumentError) as refused:
        text_of("a.pdf", b"%PDF-1.7 and then nothing")
    assert refused.value.problem == "cannot be parsed: Invalid PDF: PdfiumLibraryInternalError: FormatError"


@pytest.mark.parametrize("name", [name for name in PARSED if name != "row-locks.html"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_a_truncated_document_is_corrupt(name: str, kept: float, samples: dict[str, bytes]) -> None:
    with pytest.raises(CorruptDocumentError, match=name):
        text_of(name, samples[name][: int(kept * len(samples[name]))])


@pytest.mark.parametrize(
    ("name", "message"),
    [(f"a.{kind}", f"is not the ZIP archive that a .{kind} file is") for kind in ("docx", "epub", "pptx", "xlsx")]
    + [("a.pdf", "has no PDF header")],
)
def test_text_under_the_name_of_another_format_is_corrupt(name: str, message: str) -> None:
    with pytest.raises(CorruptDocumentError, match=message):
        text_of(name, b"Just text.")


def test_pages_without_text_are_an_empty_document(samples: dict[str, bytes]) -> None:
    with pytest.raises(EmptyDocumentError, match="has no text; scanned pages are not read"):
        text_of("a.pdf", samples["sagas.pdf"].replace(b" Tj", b" %%"))


# HTML


@pytest.mark.parametrize(
    "page",
    [
        "<p>caf\u00e9</p>".encode(),
        codecs.BOM_UTF8 + "<p>caf\u00e9</p>".encode(),
        "<p>caf\u00e9</p>".encode("utf-16"),
        '<meta charset="iso-8859-1"><p>caf\u00e9</p>'.encode("latin-1"),
        "<meta charset=windows-1252><p>caf\u00e9</p>".encode("cp1252"),
        '<?xml version="1.0" encoding="koi8-r"?><p>caf\u00e9</p>'.replace("\u00e9", "e").encode("koi8-r"),
        '<meta charset="utf-16"><p>caf\u00e9</p>'.encode(),
    ],
)
def test_a_page_is_decoded_as_it_declares(page: bytes) -> None:
    assert text_of("a.html", page).replace("\u00e9", "e") == "cafe\n"
    assert "\ufffd" not in text_of("a.html", page)


def test_a_page_that_is_not_what_it_declares_is_refused() -> None:
    with pytest.raises(DocumentEncodingError, match="not UTF-8 at byte 6"):
        text_of("a.html", "<p>caf\u00e9</p>".encode("latin-1"))
    with pytest.raises(DocumentEncodingError, match="'klingon'"):
        text_of("a.html", b"<meta charset=klingon><p>x</p>")


def test_a_page_gives_its_title_and_body_and_nothing_that_readers_do_not_see() -> None:
    page = (
        b'<html><head><title>A &amp; B</title><meta name="description" content="hidden > hidden"">'
        b'<link rel="canonical" href="hidden"><script>hidden</script></head><body><header>Top</header>'
        b'<h1>Head</h1><img src="data:image/png;base64,hidden"><svg><path d="hidden"/></svg>'
    )
    assert text_of("a.html", page).split() == ["A", "&", "B", "Top", "#", "Head"]


# Limits


def bomb(sample: bytes, part: str, megabytes: int) -> bytes:
    """The document with one part swollen by a text that compresses a thousandfold."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(sample)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            at = content.rindex(b"</") if name == part else len(content)
            with new.open(name, "w", force_zip64=True) as member:
                member.write(content[:at])
                for _ in range(megabytes if name == part else 0):
                    member.write(b" " * (1 << 20))
                member.write(content[at:])
    return out.getvalue()


@pytest.mark.parametrize(("name", "most"), [*((name, 20_000_000) for name in ZIPPED), ("tides.xlsx", 250_000_000)])
def test_a_zip_bomb_is_too_large(name: str, most: int, samples: dict[str, bytes]) -> None:
    limits = LIMITS if most == LIMITS.unpacked_bytes else ParserLimits(unpacked_bytes=most)
    with pytest.raises(DocumentTooLargeError, match=f"unpacks to more than {most} bytes"):
        text_of(name, bomb(samples[name], MAIN_PART[name], most // 900_000), limits=limits)


@pytest.mark.parametrize("name", ZIPPED)
def test_a_damaged_member_is_not_skipped(name: str, samples: dict[str, bytes]) -> None:
    data = bytearray(samples[name])
    data[data.index(MAIN_PART[name].encode()) + len(MAIN_PART[name]) + 20] ^= 0xFF
    with pytest.raises(CorruptDocumentError, match="damaged"):
        text_of(name, bytes(data))


def test_an_encrypted_archive_is_unsupported(samples: dict[str, bytes]) -> None:
    data = bytearray(samples["column-formats.epub"])
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[6] |= 1
    with pytest.raises(UnsupportedFormatError, match="encrypted"):
        text_of("a.epub", bytes(data))


def shuffled(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.randrange(1, 30)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    return bytes(damaged)


@pytest.mark.parametrize("name", PARSED)
def test_a_damaged_document_gives_text_or_an_error_of_the_document(name: str, samples: dict[str, bytes]) -> None:
    chance = random.Random(name)
    for _ in range(40):
        try:
            text_of(name, shuffled(samples[name], chance))
        except DocumentError as error:
            assert error.document == name  # noqa: PT017  # either outcome is right, and the loop goes on
    assert text_of(name, samples[name])
