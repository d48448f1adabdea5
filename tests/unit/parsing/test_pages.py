"""A page begins where its first words are in the Markdown, whatever Markdown made of what is before them."""

from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_pipeline.parsing.pages import MARKER, divide_pages, divide_slides


def node(text: str, page: int | None) -> Mapping[str, Any]:
    return {"content": {"node_type": "paragraph", "text": text}, "page": page}


def test_a_page_begins_with_the_markup_of_its_first_line() -> None:
    text = "# Title\n\nFirst words.\n\n## **Second** page\n\n- an item\n"
    nodes = [node("Title", 1), node("First\nwords.", 1), node("Second page", 2), node("an item", 2)]
    assert divide_pages(text, nodes) == [("# Title\n\nFirst words.\n\n", 1), ("## **Second** page\n\n- an item\n", 2)]


def test_a_page_that_begins_within_a_paragraph_begins_there() -> None:
    nodes = [node("Words of one page", 1), node("and of the next.", 2)]
    assert divide_pages("Words of one page and of the next.\n", nodes) == [
        ("Words of one page ", 1),
        ("and of the next.\n", 2),
    ]


def test_what_is_not_in_the_text_moves_nothing() -> None:
    nodes = [
        node("a header of the page", 1),
        node("Words.", 1),
        node("a footer", 1),
        node("", 2),
        node("More words.", 3),
    ]
    assert divide_pages("Words.\n\nMore words.\n", nodes) == [("Words.\n\n", 1), ("More words.\n", 3)]


def test_words_that_occur_again_are_found_after_those_before_them() -> None:
    text = "Same words.\n\nOther words.\n\nSame words.\n"
    nodes = [node("Same words.", 1), node("Other words.", 1), node("Same words.", 2)]
    assert divide_pages(text, nodes) == [("Same words.\n\nOther words.\n\n", 1), ("Same words.\n", 2)]


def test_a_text_without_known_pages_is_one_piece() -> None:
    assert divide_pages("words\n", []) == divide_pages("words\n", [node("words", None)]) == [("words\n", None)]
    assert divide_pages("", []) == [("", None)]


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=30), st.none() | st.integers(1, 9)), max_size=12),
    st.lists(st.tuples(st.text(max_size=30), st.integers(1, 9)), max_size=6),
)
def test_the_pieces_are_always_the_whole_text(
    parts: list[tuple[str, int | None]], others: list[tuple[str, int]]
) -> None:
    text = "\n\n".join(part for part, _ in parts)
    pieces = divide_pages(text, [node(*part) for part in [*parts, *others]])
    assert "".join(piece for piece, _ in pieces) == text
    pages = [page for _, page in pieces]
    assert pages == [None] or pages == sorted({page for page in pages if page is not None})


def test_slides_without_words_have_no_piece() -> None:
    content = f"{MARKER}1\n\n# A\n\n{MARKER}2\n\n{MARKER}3\n\nB\n\n{MARKER}4"
    assert divide_slides(content, str.lower) == [("# a\n\n", 1), ("b\n", 3)]
    assert divide_slides(f"{MARKER}1", str) == [("", None)]
