"""Formats that people expect: read well, or refused with an error that names the option for a parser of their own.

``data/berths.xlsx`` was written by openpyxl 3.1: 60 harbours in one sheet, two columns in the other.
"""

from __future__ import annotations

import json
from email.message import EmailMessage
from pathlib import Path

import pytest

from ingest_pipeline.errors import (
    BinaryDocumentError,
    CorruptDocumentError,
    DocumentTooLargeError,
    EmptyDocumentError,
    UnreadableError,
)
from ingest_pipeline.parsing.built_in_parsers import ParserLimits, is_markdown, is_parsed, parse

BERTHS = (Path(__file__).parent / "data" / "berths.xlsx").read_bytes()
SCAN = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj "
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>endobj\ntrailer<</Root 1 0 R>>"
)


def read(name: str, data: bytes, limits: ParserLimits | None = None) -> str:
    return "".join(piece.text for piece in parse(name, [data], limits or ParserLimits()))


def letter(body: str = "The gearbox sheared on Monday.\n") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Zoë Holm <zoe@example.com>"
    message["To"] = "all@example.com"
    message["Subject"] = "Größe of the crane"
    message["Date"] = "Mon, 02 Nov 2026 10:00:00 +0000"
    message.set_content(body, cte="base64")
    return message


# E-mail


def test_an_email_has_its_header_and_its_decoded_body() -> None:
    assert read("a.eml", letter().as_bytes()) == (
        "# Größe of the crane\n\nFrom: Zoë Holm <zoe@example.com>\nTo: all@example.com\n"
        "Date: Mon, 02 Nov 2026 10:00:00 +0000\n\nThe gearbox sheared on Monday."
    )
    assert is_parsed("a.EML")
    assert is_markdown("a.eml")


def test_plain_text_is_preferred_and_no_heading_is_made_of_it() -> None:
    message = letter("#4711 is closed\n> quoted\n")
    message.add_alternative("<p>the page</p>", subtype="html")
    text = read("a.eml", message.as_bytes())
    assert text.endswith("\\#4711 is closed\n> quoted")
    assert "the page" not in text


def test_a_body_that_is_a_page_only_is_read_as_a_page() -> None:
    message = letter()
    row = "<tr><td>Ghent</td><td>12 m</td><td>Ada</td></tr>"
    page = f"<h1>Depths</h1><table><tr><th>Port</th><th>Depth</th><th>Master</th></tr>{row}</table><p>für alle"
    message.set_content(page, subtype="html", charset="latin-1")
    text = read("a.eml", message.as_bytes())
    assert "# Depths\n\n- Port: Ghent; Depth: 12 m; Master: Ada\n" in text
    assert "für alle" in text


def test_a_forwarded_message_is_read_and_an_attachment_is_named() -> None:
    message = EmailMessage()
    message["Subject"] = "Fwd"
    message.set_content("see below")
    inner = letter()
    inner.add_attachment(b"secret", maintype="text", subtype="plain", filename="notes.txt")
    message.add_attachment(inner)
    text = read("a.eml", message.as_bytes())
    assert text.startswith("# Fwd\n\nsee below\n\n## Größe of the crane\n")
    assert "Attachments, not read: notes.txt" in text
    assert "gearbox" in text
    assert "secret" not in text


@pytest.mark.parametrize("levels", [12, 2_000])
def test_messages_inside_each_other_end(levels: int) -> None:
    head = "".join(
        f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" if n else f"Subject: {levels}\nMIME-Version: 1.0\n"
        for n in range(levels)
    )
    data = f"{head}Content-Type: text/plain\n\nthe end\n".encode()
    if levels > 1_000:
        with pytest.raises(CorruptDocumentError, match="is a damaged e-mail"):
            read("a.eml", data)
    else:
        assert read("a.eml", data).startswith("# 12")
    assert read("b.eml", letter().as_bytes())


@pytest.mark.parametrize("data", [b"No header\nin it\n", bytes(range(256)) * 10])
def test_what_is_no_email_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptDocumentError, match="has no header of an e-mail"):
        read("a.eml", data)


def test_an_email_in_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(CorruptDocumentError, match="is a damaged e-mail: unknown encoding: klingon"):
        read("a.eml", b"Subject: x\nContent-Type: text/plain; charset=klingon\n\nqapla\xff\n")


# Tables


def test_a_row_of_a_workbook_names_its_columns() -> None:
    text = read("berths.xlsx", BERTHS)
    assert text.startswith("## Berths\n\n- Harbour: Aldamo; Notice period: 1 days; Depth at low water: 3.1; Harbour")
    assert "- Harbour: Fenonda; Notice period: 20 days; " in text
    assert "## Legend\n\n| Colour | Meaning |\n| --- | --- |\n| red | closed |" in text


def test_a_row_of_a_page_names_its_columns_if_the_page_marks_its_headers() -> None:
    rows = "<tr><{0}>Port</{0}><{0}>Depth</{0}><{0}>Master</{0}></tr><tr><td>Ghent</td><td>12</td><td>Ada</td></tr>"
    marked, bare = (read("a.html", f"<table>{rows.format(tag)}</table>".encode()) for tag in ("th", "td"))
    assert marked == "- Port: Ghent; Depth: 12; Master: Ada\n"
    assert bare == "| Port | Depth | Master |\n| --- | --- | --- |\n| Ghent | 12 | Ada |\n"


def test_names_that_are_repeated_in_every_row_count_towards_the_limit() -> None:
    header = "".join(f"<th>{'name ' * 12}{n}</th>" for n in range(3))
    page = f"<table><tr>{header}</tr>{'<tr><td>1<td>2<td>3</tr>' * 500}</table>".encode()
    with pytest.raises(DocumentTooLargeError, match="has more than 60000 bytes of text"):
        read("a.html", page, ParserLimits(output_bytes=60_000))


# Text


def test_json_is_text_whose_characters_are_decoded() -> None:
    data = json.dumps([{"title": "Größe"}, {"emoji": "\U0001f600"}])
    assert "\\u00f6" in data
    for name in ("a.json", "a.jsonl", "a.ndjson"):
        blocks = [data[at : at + 7].encode() for at in range(0, len(data), 7)]
        assert "".join(piece.text for piece in parse(name, blocks)) == '[{"title": "Größe"}, {"emoji": "\U0001f600"}]'
    assert read("a.txt", data.encode()) == data


@pytest.mark.parametrize("name", ["a.xml", "a.rst", "a.py", "a.rs", "a.java", "a.sql", "Makefile", "a.yaml", "a.svg"])
def test_source_code_and_markup_are_text_as_they_are(name: str) -> None:
    text = "<a b='c'>\n  x = 1  # ü\n</a>\n"
    assert read(name, text.encode()) == text
    assert not is_markdown(name)


# Refused


@pytest.mark.parametrize(
    ("name", "data", "error", "problem"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0", BinaryDocumentError, "is a PNG image, and not text"),
        ("a.jpg", b"\xff\xd8\xff\xe0\0", BinaryDocumentError, "is a JPEG image, and not text"),
        ("a.tiff", b"II*\0\x08", BinaryDocumentError, "is a TIFF image, and not text"),
        ("a.webp", b"RIFF\x10\0\0\0WEBPVP8 ", BinaryDocumentError, "contains NUL"),
        ("a.mp4", b"\0\0\0\x18ftypmp42", BinaryDocumentError, "contains NUL"),
        ("scan.pdf", SCAN, EmptyDocumentError, "has no text; scanned pages are not read"),
    ],
)
def test_what_needs_a_parser_of_the_users_says_how_to_name_it(
    name: str, data: bytes, error: type[UnreadableError], problem: str
) -> None:
    with pytest.raises(error) as caught:
        read(name, data)
    assert problem in str(caught.value)
    assert "Set INGEST_PARSER (parser of a component) to a parser of yours that reads it" in str(caught.value)
