"""Plain text: encodings, byte order marks, newlines, and what is no text."""

import codecs
from itertools import repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_pipeline.errors import BinaryDocumentError, DocumentEncodingError
from ingest_pipeline.parsing.built_in_parsers import parse
from tests.support.allocations import traced
from tests.support.parsing import PARSED, text_of

# Text


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-32-be"]),
    st.lists(st.integers(0, 9)),
)
def test_text_survives_every_encoding_and_division_into_blocks(text: str, encoding: str, lengths: list[int]) -> None:
    text = "x" + text
    mark = {"utf-16-be": codecs.BOM_UTF16_BE, "utf-32-be": codecs.BOM_UTF32_BE}.get(encoding, b"")
    data, blocks, at = mark + text.encode(encoding), list[bytes](), 0
    for length in lengths:
        blocks.append(data[at : at + length])
        at += length
    assert text_of("a.txt", *blocks, data[at:]) == text


def test_newlines_stay_as_they_are() -> None:
    assert text_of("a.txt", b"a\r\nb\rc\n\n") == "a\r\nb\rc\n\n"


@pytest.mark.parametrize("block", [1, 3, 5_000])
def test_a_wrong_encoding_is_named_with_its_offset(block: int) -> None:
    data = "\u00e9".encode() * 1_000 + "caf\u00e9".encode("latin-1") + b" au lait"
    with pytest.raises(DocumentEncodingError, match=r"not UTF-8 at byte 2003\. Its published version"):
        text_of("a.txt", *(data[at : at + block] for at in range(0, len(data), block)))


def test_an_offset_counts_the_byte_order_mark() -> None:
    with pytest.raises(DocumentEncodingError, match="at byte 5"):
        text_of("a.txt", codecs.BOM_UTF8 + b"ab\xff")
    with pytest.raises(DocumentEncodingError, match="UTF-16-LE at byte 4"):
        text_of("a.txt", codecs.BOM_UTF16_LE, "a".encode("utf-16-le"), b"\x00\xdc")


def test_a_character_cut_off_at_the_end_is_a_wrong_encoding() -> None:
    with pytest.raises(DocumentEncodingError, match="at byte 2"):
        text_of("a.txt", b"ab\xc3")


@pytest.mark.parametrize("name", ["a.txt", "a.bin", "no-extension", "a.csv", "a.html", "a.pdf"])
@pytest.mark.parametrize(
    "data", [b"PK\x03\x04rest", b"\x89PNG\r\n\x1a\n", b"\x1f\x8b\x08", b"\x7fELF\x02", b"PAR1\x15", b"\xff\xd8\xff\xe0"]
)
def test_a_known_binary_format_is_not_text_whatever_its_name(name: str, data: bytes) -> None:
    with pytest.raises(BinaryDocumentError, match="and not text"):
        text_of(name, data)


@pytest.mark.parametrize("prefix", [b"", b"text " * 1_000], ids=["in the head", "later"])
@pytest.mark.parametrize("name", ["a.log", "a.html"])
def test_nul_is_no_text(name: str, prefix: bytes) -> None:
    with pytest.raises(BinaryDocumentError, match="contains NUL"):
        text_of(name, prefix, b"a\0b\xff" if name == "a.log" and not prefix else b"a\0b")


@pytest.mark.parametrize("name", ["a.txt", *PARSED])
@pytest.mark.parametrize("data", [b"", b" \n"])
def test_a_file_without_bytes_or_of_white_space_holds_the_empty_text(name: str, data: bytes) -> None:
    assert text_of(name, data, b"") == ""


@pytest.mark.parametrize("data", [b" \r\n\t" * 1_000, codecs.BOM_UTF8, codecs.BOM_UTF8 + b" \n"])
@pytest.mark.parametrize("name", ["a.txt", "a.html"])
def test_much_white_space_and_a_mark_alone_are_no_error(name: str, data: bytes) -> None:
    assert text_of(name, data).strip() == ""


BLOCK = b"Some line of text.\n" * 1_000


def length_of_blocks() -> int:
    """Characters of a text of 1,000 blocks."""
    return sum(len(piece.text) for piece in parse("a.log", repeat(BLOCK, 1_000)))


def test_text_is_streamed_in_the_memory_of_one_block() -> None:
    length, peak = traced(length_of_blocks)
    assert length == 1_000 * len(BLOCK)
    assert peak < 10 * len(BLOCK)
