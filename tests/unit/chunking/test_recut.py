"""An edited text that is cut from its blocks has the chunks of a text that is cut as a whole."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate

import pytest

from ingest_pipeline.chunking import blocks as blocks_module
from ingest_pipeline.chunking import recut as recut_module
from ingest_pipeline.chunking.blocks import Block, BlockRecorder, decoded, encoded
from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.chunking.model_input import ModelInput
from ingest_pipeline.chunking.recut import Recut, recut
from ingest_pipeline.types import Chunk, MovedChunks, TextPiece

pytestmark = pytest.mark.promise("edits-stay-local")

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "nobody", "looks", "up"]
LEAST = 1500
MANY = 1_000_000


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recut_module, "LEAST_BLOCK", LEAST)
    assert blocks_module.LEAST_BLOCK > LEAST


def paragraph(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(1, 60))).capitalize() + "."


def heading(chance: random.Random, *, markdown: bool) -> str:
    title = " ".join(chance.choices(WORDS, k=3))
    if markdown:
        return f"{'#' * chance.randint(1, 3)} {title}" if chance.random() < 0.8 else f"{title}\n==="
    return f"{title}\n{chance.choice('=-~') * len(title)}"


def part(chance: random.Random, *, markdown: bool) -> str:
    kind = chance.random()
    if kind < 0.15:
        return heading(chance, markdown=markdown)
    if kind < 0.2 and markdown:
        return f"```\n{paragraph(chance)}\n\n# no heading\n```"
    return paragraph(chance)


def text_of(chance: random.Random, *, markdown: bool, parts: int) -> str:
    return "\n\n".join(part(chance, markdown=markdown) for _ in range(parts))


def edited(text: str, chance: random.Random, *, markdown: bool) -> str:
    at, to = sorted(chance.randrange(len(text) + 1) for _ in range(2))
    to = min(to, at + chance.choice([0, 0, 5, 300, 8000]))
    new = chance.choice(["", " and so on", "\n\n", "```\n", f"\n\n{text_of(chance, markdown=markdown, parts=3)}\n\n"])
    return text[:at] + new + text[to:]


def pieces(text: str, size: int = 700) -> list[TextPiece]:
    return [TextPiece(text[at : at + size]) for at in range(0, len(text), size)]


def whole(chunker: Chunker, text: str, *, markdown: bool) -> tuple[list[Chunk], list[Block]]:
    recorder = BlockRecorder(LEAST)
    chunks = list(chunker.chunks(pieces(text), markdown=markdown, blocks=recorder))
    return chunks, recorder.blocks


def applied(before: Sequence[Chunk], found: Recut) -> list[tuple[object, ...]]:
    """The chunks after an edit, from those before it."""
    moved = [place(chunk, one) for one in found.kept for chunk in before[one.first : one.last]]
    return sorted([*moved, *(place(chunk) for part in found.cut for chunk in part.chunks)])


def place(chunk: Chunk, moved: MovedChunks | None = None) -> tuple[object, ...]:
    shift, offset = (moved.ordinal_shift, moved.offset_shift) if moved else (0, 0)
    return chunk.ordinal + shift, chunk.start + offset, chunk.end + offset, chunk.text, chunk.headings, chunk.header


CHUNKERS = {
    "characters": Chunker(200, 0),
    "overlap": Chunker(200, 60),
    "headings": Chunker(200, 0, model_input=ModelInput(heading_context=True, max_tokens=150)),
    "tokens": Chunker(50, 10, unit="tokens"),
}


@pytest.mark.parametrize("markdown", [True, False])
@pytest.mark.parametrize("name", CHUNKERS)
def test_an_edited_text_has_the_chunks_of_the_whole(name: str, *, markdown: bool) -> None:
    chunker, chance, saved = CHUNKERS[name], random.Random(f"{name}{markdown}"), 0
    text = text_of(chance, markdown=markdown, parts=250)
    before, blocks = whole(chunker, text, markdown=markdown)
    for _ in range(10):
        text = edited(text, chance, markdown=markdown)
        found = recut(chunker, (one.text for one in pieces(text)), markdown=markdown, blocks=blocks, most=MANY)
        assert found is not None
        expected, _ = whole(chunker, text, markdown=markdown)
        assert applied(before, found) == [place(chunk) for chunk in expected]
        assert found.chunk_count == len(expected)
        assert list(accumulate((one.length for one in found.blocks), initial=0))[-1] == len(text)
        assert sum(one.chunks for one in found.blocks) == len(expected)
        saved += sum(one.last - one.first for one in found.kept)
        before, blocks = expected, found.blocks
    assert saved > 5 * len(before)


UNCHANGED, IN_THE_MIDDLE, AT_THE_BEGINNING, AT_THE_END = range(4)


def with_a_sentence(text: str, where: int) -> str:
    half = len(text) // 2
    return {
        UNCHANGED: text,
        IN_THE_MIDDLE: f"{text[:half]} One more sentence. {text[half:]}",
        AT_THE_BEGINNING: f"First of all. {text}",
        AT_THE_END: f"{text} And last.",
    }[where]


@pytest.mark.parametrize(
    ("where", "most"), [(UNCHANGED, 0), (IN_THE_MIDDLE, 110), (AT_THE_BEGINNING, 110), (AT_THE_END, 110)]
)
def test_little_is_cut_again(where: int, most: int) -> None:
    chance, chunker = random.Random(1), Chunker(200, 0)
    text = text_of(chance, markdown=False, parts=600)
    before, blocks = whole(chunker, text, markdown=False)
    edited_text = with_a_sentence(text, where)
    assert recut(chunker, [edited_text], markdown=False, blocks=blocks, most=most) is not None
    assert len(before) > 5 * most


def test_a_block_is_cut_again_if_what_follows_decides_where_it_ends() -> None:
    chance, chunker = random.Random(4), CHUNKERS["characters"]
    text = "\n\n".join(paragraph(chance) for _ in range(150))
    before, blocks = whole(chunker, text, markdown=True)
    for end in accumulate(block.length for block in blocks[:-1]):
        at = text.find("\n\n", end) + 2
        new = f"{text[:at]}# A heading\n\n{text[at:]}"
        found = recut(chunker, [new], markdown=True, blocks=blocks, most=MANY)
        assert found is not None
        assert applied(before, found) == [place(chunk) for chunk in whole(chunker, new, markdown=True)[0]]


def test_a_text_that_changed_too_much_is_not_cut() -> None:
    chance, chunker = random.Random(2), Chunker(200, 0)
    _, blocks = whole(chunker, text_of(chance, markdown=False, parts=100), markdown=False)
    other = text_of(chance, markdown=False, parts=100)
    assert recut(chunker, [other], markdown=False, blocks=blocks, most=10) is None


def test_blocks_are_recorded_and_read_back() -> None:
    chance, chunker = random.Random(3), Chunker(200, 60)
    _, blocks = whole(chunker, text_of(chance, markdown=True, parts=200), markdown=True)
    assert len({block.state for block in blocks}) > 3
    record = encoded(blocks)
    assert record is not None
    assert decoded(record) == blocks
    assert encoded(blocks[:2]) is None
