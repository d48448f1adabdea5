"""The pieces of a document: its pages, and where the parser found them."""

import re

import pytest

from ingest_pipeline.cli.demo import sample_documents
from ingest_pipeline.cli.demo.sample_documents import VECTOR_SEARCH
from ingest_pipeline.parsing.built_in_parsers import parse
from ingest_pipeline.parsing.worker_pool import _pieces  # pyright: ignore[reportPrivateUsage]
from tests.support.parsing import SAMPLES

# Pages


def test_a_piece_is_a_page_and_the_pieces_are_the_text(samples: dict[str, bytes]) -> None:
    pieces = list(parse("vector-search.pptx", [samples["vector-search.pptx"]]))
    assert [piece.page for piece in pieces] == [1, 2, 3, 4]
    for piece, line in zip(pieces, VECTOR_SEARCH, strict=True):
        assert line in " ".join(piece.text.split())


@pytest.mark.parametrize("name", [name for name in SAMPLES if not name.endswith((".pdf", ".pptx"))])
def test_a_format_without_pages_has_none(name: str, samples: dict[str, bytes]) -> None:
    assert {piece.page for piece in parse(name, [samples[name]])} == {None}


def pdf(pages: list[list[str]]) -> bytes:
    """A PDF with a page for each list of lines."""
    kids = " ".join(f"{3 + 2 * number} 0 R" for number in range(len(pages)))
    font = 3 + 2 * len(pages)
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>"]
    for number, lines in enumerate(pages):
        shown = "".join(f"({line}) Tj 0 -40 Td\n" for line in lines)
        stream = f"BT /F1 10 Tf 50 780 Td\n{shown}ET"
        objects += [
            (
                f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {4 + 2 * number} 0 R "
                f"/Resources << /Font << /F1 {font} 0 R >> >> >>"
            ),
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    out, offsets = "%PDF-1.4\n", list[int]()
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    table = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n" + "".join(f"{at:010} 00000 n \n" for at in offsets)
    trailer = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return (out + table + trailer).encode("latin-1")


def test_each_page_of_a_pdf_has_its_own_words() -> None:
    pages = [
        [f"Page {page} says na\u00efve things * {line} * of its own." for line in range(page, page + 4)]
        for page in range(1, 8)
    ]
    pieces = list(parse("a.pdf", [pdf(pages)]))
    assert [piece.page for piece in pieces] == list(range(1, 8))
    for piece in pieces:
        assert set(re.findall(r"Page (\d+)", piece.text)) == {str(piece.page)}


def test_a_page_is_found_by_characters_although_the_parser_counts_bytes() -> None:
    lines = [f"Page {number} says na\u00efve caf\u00e9 \u2014 twice." for number in range(1, 6)]
    deck = sample_documents._pptx(lines)  # pyright: ignore[reportPrivateUsage]
    pieces = list(parse("a.pptx", [deck]))
    assert [(piece.page, piece.text.strip("# \n")) for piece in pieces] == list(enumerate(lines, 1))


@pytest.mark.parametrize(
    "division", ["[[3, null]]", "[[5, null]]", "[[-1, null], [5, null]]", "[[4, 0]]", '[[4, "1"]]', "[[4]]", "4", "{"]
)
def test_pieces_that_are_not_those_of_the_text_are_refused(division: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        _pieces(f"{division}\ntext".encode())
