"""A chunk knows the headings above it, however its text arrives; what only looks like a heading is none."""

from collections.abc import Iterator

import pytest

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.chunking.headings import HeadingFinder
from ingest_pipeline.types import TextPiece
from tests.support.allocations import traced


def headings(text: str, *, markdown: bool = True) -> list[tuple[str, tuple[str, ...]]]:
    """The text from each heading on, as far as the line goes, and the path there."""
    finder = HeadingFinder(markdown=markdown)
    return [(text[offset:].splitlines()[0], path) for offset, path in finder.read(text)]


def test_a_path_has_the_headings_that_a_place_is_below() -> None:
    text = "# A\n\ntext\n\n## B\n\n### C\n\n## D\n\n# E\n"
    assert headings(text) == [
        ("# A", ("A",)),
        ("## B", ("A", "B")),
        ("### C", ("A", "B", "C")),
        ("## D", ("A", "D")),
        ("# E", ("E",)),
    ]


def test_a_level_that_is_left_out_is_no_level() -> None:
    assert [path for _, path in headings("# A\n### C\n## B\n")] == [("A",), ("A", "C"), ("A", "B")]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_underlined_headings_begin_at_their_title(newline: str) -> None:
    text = newline.join(["A", "===", "", "text", "", "B", "---", "", "text"])
    assert headings(text) == [("A", ("A",)), ("B", ("A", "B"))]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_in_text_the_first_style_is_the_outermost(newline: str) -> None:
    lines = ["****", "Book", "****", "", "Part", "****", "", "One", "----", "", "Two", "----", "", "Next", "****"]
    found = headings(newline.join(lines), markdown=False)
    assert found == [
        ("****", ("Book",)),
        ("Part", ("Book", "Part")),
        ("One", ("Book", "Part", "One")),
        ("Two", ("Book", "Part", "Two")),
        ("Next", ("Book", "Next")),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "```\n# comment\n```\n",
        "~~~~ python\n# comment\n~~~\n# comment\n~~~~\n",
        "```\n~~~\n# comment\n",
        "---\ntitle: x\n# comment\nauthor: y\n---\n",
        "words\nmore words\n---\n",
        "- item\n---\n",
        "| a |\n---\n",
        "> quotation\n---\n",
        "text\n\n---\n\ntext\n",
        "#\n\n#no-space\n",
        "    # indented code\n",
        "####### seven\n",
        "x" * 200 + "\n---\n",
    ],
)
def test_what_only_looks_like_a_heading_is_none(text: str) -> None:
    assert headings(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "# Markdown\n",
        "words\nmore words\n-----\n",
        "a  b\n== ==\n",
        "text\n\n-----\n\ntext",
        "***\n---\n",
        "x" * 200 + "\n---\n",
    ],
)
def test_in_text_a_rule_or_a_table_is_no_heading(text: str) -> None:
    assert headings(text, markdown=False) == []


def test_a_fence_that_was_closed_hides_nothing() -> None:
    assert headings("```\ncode\n```\n\n# A\n") == [("# A", ("A",))]
    assert headings("``` not a `fence`\n\n# A\n") == [("# A", ("A",))]


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("# Title ##", "Title"),
        ("#   Two   words  ", "Two words"),
        ("# **Bold** and `code`", "Bold and code"),
        ("# See [the page](http://x/y) and ![a picture](p.png)", "See the page and a picture"),
        ("# C\\# and a\\_b", "C# and a_b"),
        ("# Anchored {#anchor .class}", "Anchored"),
        ("# " + "x" * 500, "x" * 119 + "…"),
    ],
)
def test_a_title_is_told_without_its_markup(line: str, title: str) -> None:
    assert headings(line + "\n") == [(line, (title,))]


@pytest.mark.parametrize("markdown", [False, True])
def test_a_title_is_found_although_its_underline_is_in_the_next_window(markdown: bool) -> None:
    finder = HeadingFinder(markdown=markdown)
    assert list(finder.read("text\n\nTitle\n")) == []
    assert list(finder.read("=====\n\ntext\n")) == [(6, ("Title",))]


def test_chunks_have_the_headings_above_their_beginning() -> None:
    text = "# A\n\n" + "First words. " * 9 + "\n\n## B\n\n" + "Second words. " * 9 + "\n\n# C\n\nThird words.\n"
    chunks = list(Chunker(80, 0).chunks([TextPiece(text)], markdown=True))
    for chunk in chunks:
        above = [
            line.lstrip("# ")
            for line in text[: chunk.start].splitlines() + chunk.text.splitlines()[:1]
            if line.startswith("#")
        ]
        assert chunk.headings[-1] == above[-1]
    assert {chunk.headings for chunk in chunks} == {("A",), ("A", "B"), ("C",)}


def test_with_overlap_a_chunk_belongs_to_the_section_of_what_is_new_in_it() -> None:
    text = "# A\n\n" + "\n\n".join(f"Paragraph {number} of A." for number in range(40)) + "\n\n# B\n\nParagraph of B.\n"
    last = list(Chunker(100, 40).chunks([TextPiece(text)], markdown=True))[-1]
    assert "Paragraph 39 of A." in last.text or last.text.startswith("# B")
    assert last.headings == ("B",)


def test_a_chunk_has_the_page_where_it_begins_and_the_page_where_it_ends() -> None:
    pieces = [TextPiece(f"Words of page {number}. " * 3, number) for number in range(1, 40)]
    for chunk in Chunker(100, 0).chunks(pieces, markdown=True):
        texts = [("", 0)]
        for piece in pieces:
            assert piece.page is not None
            texts += [(character, piece.page) for character in piece.text]
        assert (chunk.page, chunk.last_page) == (texts[chunk.start + 1][1], texts[chunk.end][1])


def test_headings_of_the_parser_replace_those_in_the_text() -> None:
    pieces = [TextPiece("# Said in the text\n\nwords\n\n"), TextPiece("more words\n", None, ("Given", "Path"))]
    (chunk,) = Chunker(50, 0).chunks(pieces[:1], markdown=True)
    assert chunk.headings == ("Said in the text",)
    (chunk,) = Chunker(50, 0).chunks(pieces[1:], markdown=True)
    assert (chunk.headings, chunk.heading) == (("Given", "Path"), "Given > Path")


def chunks_under_headings() -> int:
    """How many chunks of 3,999 pages have a heading, if each page has one."""

    def pieces() -> Iterator[TextPiece]:
        for number in range(1, 4_000):
            yield TextPiece(f"# Heading {number}\n\n" + "some words " * 50 + "\n\n", number)

    return sum(chunk.heading is not None for chunk in Chunker(1000, 0).chunks(pieces(), markdown=True))


def test_memory_does_not_grow_with_headings_and_pages() -> None:
    chunks, peak = traced(chunks_under_headings)
    assert chunks >= 3_999
    assert peak < 400_000
