"""A chunker of the user: its chunks, and that nonsense fails its document alone."""

from __future__ import annotations

import pytest

from ingest_pipeline.chunking import user_chunker_role
from ingest_pipeline.chunking.base import Span
from ingest_pipeline.chunking.user_chunker import UserChunker
from ingest_pipeline.chunking.user_chunker_role import checked
from ingest_pipeline.errors import ExtensionError
from ingest_pipeline.extensions.loader import read_extensions
from ingest_pipeline.extensions.protocol import InvalidResultError
from ingest_pipeline.types import Chunk, TextPiece

PATH = "tests.support.user_code.ObedientChunker"


def chunker(seconds: float = 30) -> UserChunker:
    (extension,) = read_extensions("chunker", {"class": PATH, "arguments": {"seconds": seconds}})
    return UserChunker.load(extension)


def chunks(text: str, seconds: float = 30) -> list[Chunk]:
    return list(chunker(seconds).chunks("a.txt", [TextPiece(text)], 100, 3))


def test_chunks_have_the_texts_pages_and_headings_of_their_spans() -> None:
    pieces = [TextPiece("One line\nTwo", 1), TextPiece(" lines\n\n", 2)]
    assert list(chunker().chunks("a.txt", pieces, 100, 0)) == [
        Chunk(0, 0, 9, "One line\n", 1, 1, ("One",)),
        Chunk(1, 9, 19, "Two lines\n", 1, 2, ("Two",)),
    ]


def test_a_blank_document_is_not_cut() -> None:
    assert chunks(" \n ") == []


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("raise", "which raised ValueError: no such thing"),
        ("exit", "which raised SystemExit: 3"),
        ("die", r"which ended its process \(exit status 4\)"),
        ("hang", "which took more than 1 seconds"),
        ("backward", r"returned the chunk 0-4 after the chunk 4-6: offsets must ascend"),
        ("again", r"returned the chunk 0-5 after the chunk 0-4"),
        ("overlap", r"returned the chunk 2-7, which repeats 4 characters .* allows 3"),
        ("outside", r"returned the chunk 0-8, which is not in the text of 7 characters"),
        ("negative", r"returned the chunk -3-2, which is not in the text"),
        ("empty", r"returned the chunk 2-2, which is not in the text"),
        ("text", r"returned the chunk 0-4 with a text that differs"),
        ("float", r"returned the chunk 0\.0-4, which is not in the text"),
        ("tuples", "returned a chunk that is a tuple, not a Span"),
        ("many", r"returned the chunk 4-5, which is not in the text of 4 characters"),
        ("none", "returned a NoneType, not spans"),
        ("long" * 26, "of 104 characters, and chunk_size allows 100"),
    ],
)
def test_nonsense_fails_its_document_alone(what: str, problem: str) -> None:
    with pytest.raises(ExtensionError, match=problem) as failure:
        chunks(what, 1 if "seconds" in problem else 30)
    assert failure.value.document == "a.txt"
    assert [chunk.text for chunk in chunks("fine")] == ["fine"]


def test_too_many_spans_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_chunker_role, "MAX_SPANS", 500)
    text = "x" * 600
    with pytest.raises(InvalidResultError, match="more than 500 chunks"):
        checked((Span(at, at + 1) for at in range(len(text))), text, 100, 0)


def answer_backward(*_: object) -> bytes:
    return b"[[4, 6, null], [0, 4, null]]"


def test_what_the_child_sends_is_checked_in_the_parent_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found = chunker()
    monkeypatch.setattr(type(found.hook), "run", answer_backward)
    with pytest.raises(ExtensionError, match=r"made the child process of the chunker .* return something invalid"):
        list(found.chunks("a.txt", [TextPiece("some text")], 100, 0))
