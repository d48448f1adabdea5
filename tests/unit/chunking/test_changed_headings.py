"""A changed heading embeds its own section again, and of the rest no more than an edit of one place may move."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.chunking.model_input import ModelInput
from ingest_pipeline.chunking.tokenizer import IN_BYTES
from ingest_pipeline.types import Chunk, TextPiece

LIMITS = [None, 300]
# Windows that an edit of one place may change, each of four chunks at most.
MOST_MOVED = 8


@dataclass(frozen=True)
class Section:
    level: int
    title: str
    paragraphs: list[int]
    """Words of each paragraph."""


SECTIONS = st.lists(
    st.builds(
        Section,
        st.integers(1, 4),
        st.text("abcdefgh", min_size=1, max_size=30),
        st.lists(st.integers(1, 120), max_size=6),
    ),
    min_size=2,
    max_size=10,
)


def written(sections: list[Section], setext: bool) -> str:
    """The document. All paragraphs differ, and titles are numbered so that they do too."""
    parts: list[str] = []
    for number, section in enumerate(sections):
        title = f"{section.title} {number}"
        underlined = setext and section.level <= 2
        parts.append(f"{title}\n{'=-'[section.level - 1] * 5}" if underlined else f"{'#' * section.level} {title}")
        for place, words in enumerate(section.paragraphs):
            parts.append(" ".join(f"w{number}x{place}y{word}" for word in range(words)) + ".")
    return "\n\n".join(parts)


def cut(text: str, limit: int | None) -> list[Chunk]:
    chunker = Chunker(200, 0, model_input=ModelInput(IN_BYTES, limit, "passage: ", heading_context=True))
    return list(chunker.chunks([TextPiece(text)], markdown=True))


@pytest.mark.parametrize("limit", LIMITS)
@settings(max_examples=150, derandomize=True, deadline=None)
@given(SECTIONS, st.integers(0, 9), st.text("xyz", min_size=1, max_size=30), st.booleans())
def test_a_changed_heading_embeds_its_own_section_only(
    limit: int | None, sections: list[Section], number: int, title: str, setext: bool
) -> None:
    number %= len(sections)
    changed = sections[number]
    after = [*sections[:number], Section(changed.level, title, changed.paragraphs), *sections[number + 1 :]]
    old, new = cut(written(sections, setext), limit), cut(written(after, setext), limit)
    embedded, texts = {chunk.embedded_text for chunk in old}, {chunk.text for chunk in old}
    again = [chunk for chunk in new if chunk.embedded_text not in embedded]
    outside = [chunk for chunk in again if f"{title} {number}" not in chunk.headings]
    # Not because of its headings, but because a cut moved.
    assert all(chunk.text not in texts for chunk in outside)
    assert len(outside) <= MOST_MOVED
    assert again or not sections[number].paragraphs


@settings(max_examples=50, derandomize=True, deadline=None)
@given(SECTIONS, st.integers(0, 9))
def test_a_heading_of_another_level_embeds_what_is_below_it(sections: list[Section], number: int) -> None:
    number %= len(sections)
    changed = sections[number]
    after = [*sections[:number], Section(5, changed.title, changed.paragraphs), *sections[number + 1 :]]
    old, new = cut(written(sections, setext=False), None), cut(written(after, setext=False), None)
    paths = {chunk.text: chunk.headings for chunk in old}
    embedded = {chunk.embedded_text for chunk in old}
    for chunk in new:
        if paths.get(chunk.text) == chunk.headings:
            assert chunk.embedded_text in embedded
