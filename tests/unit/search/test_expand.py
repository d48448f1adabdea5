"""Chunks around a hit become one text: what they share is in it once."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.search.expand import Passage, stitch
from ingest_pipeline.types import TextPiece


def row(start: int, text: str) -> dict[str, Any]:
    return {"start_offset": start, "end_offset": start + len(text), "text": text}


def test_what_two_chunks_share_is_in_the_text_once() -> None:
    assert stitch([row(5, "one two"), row(9, "two three"), row(18, " four")]) == Passage(5, 23, "one two three four")


def test_white_space_between_chunks_is_kept_as_far_as_it_is_known() -> None:
    assert stitch([row(0, "one."), row(5, "two."), row(14, "three.")]).text == "one. two.\n\nthree."


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    st.lists(st.sampled_from(["word ", "Sentence. ", "\n\n", "# Head\n\n", "x" * 30]), max_size=80).map("".join),
    st.sampled_from([0, 20, 49]),
)
def test_all_chunks_of_a_document_are_its_text(text: str, overlap: int) -> None:
    chunks = list(Chunker(50, overlap).chunks([TextPiece(text)], markdown=True))
    if chunks:
        assert stitch([row(chunk.start, chunk.text) for chunk in chunks]).text.split() == text.split()
