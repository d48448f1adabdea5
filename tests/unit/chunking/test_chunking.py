"""Chunks are exact, complete and within their size, whatever the text is and however it arrives; edits stay local."""

# chance repeats itself here on purpose

import random
import re
import statistics
from collections.abc import Iterable, Iterator
from importlib import import_module
from inspect import cleandoc
from itertools import accumulate, pairwise
from pydoc_data.topics import topics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_pipeline.chunking import content_defined
from ingest_pipeline.chunking.blocks import BlockRecorder
from ingest_pipeline.chunking.content_defined import GREATEST_SIZE, LEAST_SIZE, Chunker, Cutting
from ingest_pipeline.chunking.sections import Sections
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.types import Chunk, TextPiece
from tests.support.allocations import traced

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
THUMB = "\U0001f44d\U0001f3fd"

# Text made of what the cuts look for, so that short examples reach every branch.
ATOMS = [
    *(
        "word ",
        "Sentence. ",
        "\n",
        "\r\n",
        "\r",
        "\n\n",
        " \n\t\n",
        "# Head\n",
        "\n\n## Head\n\n",
        "\n\nTitle\n=====\n",
        "\r\n\r\n*****\r\nTitle\r\n*****\r\n",
        "- item\n",
        "| a | b |\n",
        "```\n",
        "0,1,2\n",
    ),
    *("\u00e9", "e\u0301", FAMILY, THUMB, "\u3002", "x" * 60, " " * 30, "\x1c", "\u2028", "\ufeff"),
]
TEXTS = st.lists(st.sampled_from(ATOMS) | st.text(max_size=20), max_size=120).map("".join)

proved = settings(max_examples=150, derandomize=True, deadline=None)


def cut(text: str, size: int = 50, overlap: int = 0, *, markdown: bool = False) -> list[Chunk]:
    return list(Chunker(size, overlap).chunks([TextPiece(text)], markdown=markdown))


def divided(text: str, lengths: Iterable[int]) -> list[str]:
    pieces, at = list[str](), 0
    for length in lengths:
        pieces.append(text[at : at + length])
        at += length
    return [*pieces, text[at:]]


def uncovered(text: str, chunks: list[Chunk]) -> str:
    ends, starts = [0, *(c.end for c in chunks)], [*(c.start for c in chunks), len(text)]
    return "".join(text[end:start] for end, start in zip(ends, starts, strict=True)).strip()


@proved
@given(TEXTS, st.sampled_from([50, 64, 200]), st.sampled_from([0, 10, 49]), st.booleans())
def test_a_chunk_is_the_text_between_its_offsets(text: str, size: int, overlap: int, markdown: bool) -> None:
    chunks = cut(text, size, overlap, markdown=markdown)
    assert [c.ordinal for c in chunks] == list(range(len(chunks)))
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text.strip()
        assert len(chunk.text) <= size


@proved
@given(TEXTS, st.booleans())
def test_without_overlap_every_visible_character_is_in_one_chunk(text: str, markdown: bool) -> None:
    chunks = cut(text, markdown=markdown)
    assert all(before.end <= after.start for before, after in pairwise(chunks))
    assert not uncovered(text, chunks)


@proved
@given(TEXTS, st.sampled_from([10, 49]), st.booleans())
def test_with_overlap_every_visible_character_is_in_a_chunk_and_no_chunk_is_inside_another(
    text: str, overlap: int, markdown: bool
) -> None:
    chunks = cut(text, overlap=overlap, markdown=markdown)
    covered = {at for c in chunks for at in range(c.start, c.end)}
    assert not "".join(character for at, character in enumerate(text) if at not in covered).strip()
    assert all(before.end < after.end for before, after in pairwise(chunks))
    assert all(len(text[after.start : before.end].strip()) <= overlap for before, after in pairwise(chunks))


@proved
@given(TEXTS, st.lists(st.integers(0, 90), max_size=40), st.sampled_from([0, 20]), st.booleans())
def test_the_division_into_pieces_does_not_matter(text: str, lengths: list[int], overlap: int, markdown: bool) -> None:
    pieces = divided(text, lengths)
    assert list(Chunker(50, overlap).chunks(map(TextPiece, pieces), markdown=markdown)) == cut(
        text, 50, overlap, markdown=markdown
    )


def test_single_characters_as_pieces_give_the_chunks_of_the_whole() -> None:
    text = topics["with"]
    assert list(Chunker(200, 0).chunks(map(TextPiece, text), markdown=False)) == cut(text, 200)


def test_windows_share_overlap_too() -> None:
    text = "\n\n".join(f"Paragraph {number} says something of its own." for number in range(200))
    chunks = cut(text, 100, 40)
    repeated = [before.end > after.start for before, after in pairwise(chunks)]
    assert statistics.mean(repeated) > 0.9


HOSTILE = {
    "one word of 200 KB": "".join(random.Random(1).choices("abcdefgh", k=200_000)),
    "one letter, 100 KB": "A" * 100_000,
    "a line of 1 MB": " ".join(random.Random(2).choices(["alpha", "beta", "gamma", "delta"], k=180_000)),
    "CRLF": "\r\n\r\n".join("A sentence of words. " * 9 for _ in range(100)),
    "old Macintosh newlines": "\r\r".join("A sentence of words. " * 9 for _ in range(100)),
    "joined emoji": FAMILY * 4_000,
    "skin tones": THUMB * 4_000,
    "combining accents": "e\u0301" * 10_000,
    "Chinese": "\u3002".join("\u6587\u5b57" * 20 for _ in range(500)),
    "CSV with long lines": "\n".join(f"{row}," + "cell," * 3_000 for row in range(20)),
    "JSONL": "\n".join(f'{{"row": {row}, "text": "Some words about row {row}."}}' for row in range(2_000)),
    "blank lines": "first" + "\n" * 100_000 + "last",
    "punctuation": "-" * 20_000,
}


@pytest.mark.parametrize("markdown", [False, True])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_text_without_usual_breaks_is_cut_exactly_and_completely(text: str, markdown: bool) -> None:
    chunks = cut(text, 1000, markdown=markdown)
    assert all(text[c.start : c.end] == c.text and len(c.text) <= 1000 for c in chunks)
    assert not uncovered(text, chunks)


@pytest.mark.parametrize("character", [FAMILY, THUMB, "e\u0301"])
def test_a_grapheme_is_not_split(character: str) -> None:
    assert all(len(c.text) % len(character) == 0 for c in cut(character * 5_000, 997))


@pytest.mark.parametrize("text", ["", " ", "\n" * 100_000, "\x1c\x1d", "\u2028"])
def test_blank_text_has_no_chunks(text: str) -> None:
    assert cut(text) == []


def test_markdown_keeps_a_heading_with_its_text() -> None:
    text = "Words of the first part, as many as fit into sixty characters.\n# Head\nWords of the second part."
    assert [c.text.split("\n")[-1][:5] for c in cut(text, 80)] == ["# Hea", "Words"]
    assert [c.text[:6] for c in cut(text, 80, markdown=True)] == ["Words ", "# Head"]


TITLES = {
    "markdown": "## Section {}",
    "markdown, underlined": "Section {}\n----------",
    "text, underlined": "Section {}\n==========",
    "text, overlined": "**********\nSection {}\n**********",
}


def sections(title: str) -> list[str]:
    """Thirty sections of half a chunk to four chunks of 200 characters."""
    chance = random.Random(9)
    return [
        "\n\n".join(
            [
                title.format(number),
                *(f"Paragraph {chance.random()} of some words." for _ in range(chance.randint(4, 16))),
            ]
        )
        for number in range(30)
    ]


@pytest.mark.parametrize("kind", TITLES)
def test_a_chunk_begins_where_a_section_does(kind: str) -> None:
    chunks = cut("\n\n".join(sections(TITLES[kind])), 200, markdown=kind.startswith("markdown"))
    assert sum(c.text.startswith(TITLES[kind].format("").rstrip()[:7]) for c in chunks) == 30


@pytest.mark.promise("edits-stay-local")
@pytest.mark.parametrize("kind", TITLES)
def test_sections_that_change_places_change_no_chunk(kind: str) -> None:
    *texts, last = sections(TITLES[kind])
    before = {c.text for c in cut("\n\n".join([*texts, last]), 200, markdown=kind.startswith("markdown"))}
    random.Random(10).shuffle(texts)
    assert {c.text for c in cut("\n\n".join([*texts, last]), 200, markdown=kind.startswith("markdown"))} == before


@pytest.mark.parametrize("smallest", [100, *(pytest.param(size, marks=pytest.mark.soak) for size in (101, 102))])
@pytest.mark.parametrize("kind", TITLES)
def test_a_heading_is_recognised_wherever_a_piece_ends(kind: str, smallest: int) -> None:
    text, markdown = "\n\n".join(sections(TITLES[kind])), kind.startswith("markdown")
    for size in range(smallest, 150, 3):
        assert list(Chunker(size, 0).chunks(map(TextPiece, text), markdown=markdown)) == cut(
            text, size, markdown=markdown
        )


def test_a_line_that_looks_like_a_markdown_heading_is_no_heading_in_plain_text() -> None:
    texts = sections(TITLES["markdown"])
    assert sum(c.text.startswith("## Sect") for c in cut("\n\n".join(texts), 200)) < 30


def chunks_of_a_stream() -> int:
    """How many chunks a text of 600 pieces has."""

    def pieces() -> Iterator[str]:
        for number in range(600):
            yield f"{number} " + "some words " * 50

    return sum(1 for _ in Chunker(1000, 0).chunks(map(TextPiece, pieces()), markdown=False))


def test_memory_is_bounded_by_the_window_and_not_by_the_text() -> None:
    count, peak = traced(chunks_of_a_stream)
    assert count > 300
    assert peak < 200_000


@pytest.mark.parametrize(
    ("size", "overlap"), [(LEAST_SIZE - 1, 0), (0, 0), (-1, 0), (GREATEST_SIZE + 1, 0), (100, 100), (100, -1)]
)
def test_a_size_or_overlap_out_of_bounds_is_refused(size: int, overlap: int) -> None:
    with pytest.raises(ConfigurationError, match=r"Set INGEST_CHUNK_(SIZE|OVERLAP)"):
        Chunker(size, overlap)


@pytest.mark.parametrize(("size", "overlap"), [(LEAST_SIZE, LEAST_SIZE - 1), (GREATEST_SIZE, 0)])
def test_the_bounds_themselves_are_accepted(size: int, overlap: int) -> None:
    assert Chunker(size, overlap).size == size


# Locality: how many chunks of an edited document are new, and so have to be embedded.

PARAGRAPH = re.compile(r"(\n\s*\n)")
LIBRARY = [
    "argparse",
    "ast",
    "asyncio",
    "collections",
    "csv",
    "datetime",
    "decimal",
    "difflib",
    "doctest",
    "email",
    "fractions",
    "functools",
    "heapq",
    "inspect",
    "io",
    "ipaddress",
    "itertools",
    "json",
    "locale",
    "logging",
    "numbers",
    "os",
    "pathlib",
    "pickle",
    "pprint",
    "random",
    "re",
    "shutil",
    "socket",
    "ssl",
    "statistics",
    "string",
    "subprocess",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "tokenize",
    "traceback",
    "types",
]


def docstrings() -> Iterator[str]:
    for name in LIBRARY:
        for _, value in sorted(vars(import_module(name)).items()):
            text = getattr(value, "__doc__", None)
            if isinstance(text, str) and getattr(value, "__module__", None) == name:
                yield cleandoc(text)


def documents() -> list[str]:
    """Documents of 50 KB of real prose; every second is one whose paragraphs are merged to be long."""
    prose = "\n\n".join([*(text for _, text in sorted(topics.items())), *docstrings()])
    whole = [prose[at : at + 50_000] for at in range(0, len(prose) - 50_000, 50_000)]
    chance = random.Random(3)
    return [text if number % 2 else merged(text, chance) for number, text in enumerate(whole)]


def merged(text: str, chance: random.Random) -> str:
    return PARAGRAPH.sub(lambda found: found[0] if chance.random() < 0.25 else " ", text)


def edited(text: str, other: str, chance: random.Random) -> str:
    parts = PARAGRAPH.split(text)
    at = chance.randrange(0, len(parts), 2)
    kind = chance.choice(["insert", "delete", "change"])
    if kind == "insert":
        parts[at:at] = [chance.choice(PARAGRAPH.split(other)[::2]), "\n\n"]
    elif kind == "delete":
        del parts[at : at + 2]
    else:
        words = parts[at].split(" ")
        words[chance.randrange(len(words))] = "replacement"
        parts[at] = " ".join(words)
    return "".join(parts)


@pytest.mark.promise("edits-stay-local")
def test_an_edit_of_one_paragraph_changes_one_chunk_in_the_median_and_three_at_the_95th_percentile() -> None:
    chance = random.Random(7)
    texts = documents()
    before = [{c.text for c in cut(text, 1000)} for text in texts]
    changes = list[int]()
    for _ in range(600):  # with 200 edits, the percentile of one version of Python's documentation may be off by one
        chosen = chance.randrange(len(texts))
        after = {c.text for c in cut(edited(texts[chosen], chance.choice(texts), chance), 1000)}
        changes.append(len(after - before[chosen]))
    changes.sort()
    assert statistics.median(changes) <= 1
    assert changes[int(0.95 * len(changes))] <= 3
    assert changes[-1] <= 12


def test_a_paragraph_in_front_leaves_all_but_the_first_chunks_alone() -> None:
    for text in documents():
        before = cut(text, 1000)
        after = cut("A new paragraph stands in front.\n\n" + text, 1000)
        assert len({c.text for c in after} - {c.text for c in before}) <= 5


def test_text_appended_leaves_all_but_the_last_chunks_alone() -> None:
    for text in documents():
        before, after = cut(text, 1000), cut(text + "\n\nA new paragraph stands at the end.", 1000)
        assert len({c.text for c in after} - {c.text for c in before}) <= 3


def test_an_edited_row_of_a_table_leaves_the_other_chunks_alone() -> None:
    chance = random.Random(5)
    rows = [",".join(str(chance.random()) for _ in range(6)) for _ in range(1_000)]
    before = {c.text for c in cut("\n".join(rows), 1000)}
    rows.insert(400, "a,new,row")
    assert len({c.text for c in cut("\n".join(rows), 1000)} - before) <= 3


def test_chunks_are_well_filled() -> None:
    lengths = [len(c.text) for text in documents() for c in cut(text, 1000)]
    assert statistics.mean(lengths) > 710


def edges(chunker: Chunker, text: str) -> list[int]:
    """Where windows end inside a text."""
    cut = Cutting(chunker, Sections(markdown=False), markdown=False).cut
    return list(accumulate(len(window) for window in cut.windows([text])))[:-1]


def test_two_chunks_beside_the_end_of_a_window_are_one_if_they_fit_together() -> None:
    chunker, chance, joined = Chunker(200, 0), random.Random(4), 0
    for _ in range(40):
        text = "\n\n".join("Some words. " * chance.randint(1, 14) + str(chance.random()) for _ in range(30))[:3000]
        chunks = list(chunker.chunks([TextPiece(text)], markdown=False))
        for edge in edges(chunker, text):
            joined += any(chunk.start < edge < chunk.end for chunk in chunks)
            for before, after in pairwise(chunks):
                assert not before.end <= edge <= after.start or after.end - before.start > 200
    assert joined > 20


def test_a_run_of_joined_windows_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(6)
    text = "\n\n".join("word " * chance.randint(2, 30) + f"{chance.random()}." for _ in range(1_500))

    def longest() -> int:
        recorder = BlockRecorder(1)
        assert list(Chunker(200, 0).chunks([TextPiece(text)], markdown=False, blocks=recorder))
        assert sum(block.length for block in recorder.blocks) == len(text)
        return max(block.length for block in recorder.blocks)

    assert longest() > 6 * 200
    monkeypatch.setattr(content_defined, "_GREATEST_RUN", 2)
    assert longest() <= 6 * 200
