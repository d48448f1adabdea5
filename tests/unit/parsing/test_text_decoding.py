"""Text without a mark is UTF-8 or in the encoding that the settings name, and its bytes alone decide."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_pipeline.errors import ConfigurationError, DocumentEncodingError
from ingest_pipeline.parsing.built_in_parsers import parse
from ingest_pipeline.parsing.text_decoding import fallback_encoding


def text_of(name: str, *blocks: bytes, encoding: str | None = "cp1252") -> str:
    return "".join(piece.text for piece in parse(name, iter(blocks), encoding=encoding))


@pytest.mark.parametrize(("name", "known_as"), [("CP1252", "cp1252"), ("Windows-1252", "cp1252"), ("gbk", "gbk")])
def test_an_encoding_has_one_name(name: str, known_as: str) -> None:
    assert fallback_encoding(name) == known_as


@pytest.mark.parametrize("name", ["", "no-such", "utf-16", "utf-16-le", "cp037", "base64", "utf-7", "rot13"])
def test_an_encoding_that_is_not_for_text_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="does not extend ASCII"):
        fallback_encoding(name)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.md"])
def test_text_that_is_not_utf8_is_read_in_the_encoding_of_the_settings(name: str) -> None:
    text = "Caf\u00e9 \u201cau lait\u201d\r\n" * 10
    assert text_of(name, text.encode("cp1252")) == text
    assert text_of(name, text.encode()) == text, "UTF-8 comes first"
    assert text_of(name, text.encode("utf-16")) == text, "a mark comes first"
    with pytest.raises(DocumentEncodingError, match="INGEST_ENCODING"):
        text_of(name, text.encode("cp1252"), encoding=None)


def test_a_page_that_declares_nothing_is_read_in_the_encoding_of_the_settings() -> None:
    page = "<html><body><p>Caf\u00e9 {}</p></body></html>"
    assert "Caf\u00e9" in text_of("a.html", page.encode("cp1252"))
    assert "Caf\u00e9" in text_of("a.html", page.encode())
    declared = page.replace("<html>", '<html><meta charset="utf-8">')
    with pytest.raises(DocumentEncodingError, match="UTF-8"):
        text_of("a.html", declared.encode("cp1252"))


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    st.text(st.sampled_from("ab \n\u00e9\u00fc\u00df\u00c3\u00a9\u4f60\u597d"), max_size=60),
    st.sampled_from(["cp1252", "gb18030", "shift_jis", "utf-8"]),
    st.lists(st.integers(1, 9), max_size=20),
)
def test_the_division_into_blocks_does_not_matter(text: str, encoding: str, lengths: list[int]) -> None:
    data = text.encode(encoding, "replace")
    blocks, at = list[bytes](), 0
    for length in lengths:
        blocks.append(data[at : at + length])
        at += length
    fallback = "cp1252" if encoding == "utf-8" else encoding

    def read(*parts: bytes) -> str:
        try:
            return text_of("a.txt", *parts, encoding=fallback)
        except DocumentEncodingError as error:
            return str(error)

    assert read(*blocks, data[at:]) == read(data)


@pytest.mark.parametrize("block", [1 << 10, 1 << 20])
def test_text_after_the_detection_window_must_have_the_same_encoding(block: int) -> None:
    first = "x" * 100_000 + "\u00e9" * 40_000
    data = first.encode() + b"\xe9 alone"
    with pytest.raises(DocumentEncodingError, match=f"not UTF-8 at byte {len(first.encode())}"):
        text_of("a.txt", *(data[at : at + block] for at in range(0, len(data), block)))
    data = (first + "\u20ac").encode("cp1252")
    assert text_of("a.txt", *(data[at : at + block] for at in range(0, len(data), block))) == first + "\u20ac"
