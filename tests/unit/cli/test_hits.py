"""Hits of a search as a terminal shows them."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from ingest_pipeline.cli._hits import excerpt, print_hits, words_of
from ingest_pipeline.search.search import Hit

FILLER = "Nothing of that kind is said here. " * 30
TEXT = f"{FILLER}Receipts of travellers are kept for a year. {FILLER}"
HIT = Hit(
    document="policies/travel.md",
    start_offset=10,
    end_offset=2200,
    score=0.7312,
    similarity=None,
    bm25=None,
    rerank_score=None,
    text=TEXT,
    page=3,
    last_page=4,
    heading="Travel > Expenses",
    ordinal=0,
    id="x",
    partition="policies/travel.md",
    last_modified=datetime.now(UTC),
    saga="x",
    published_version=2,
    version=2,
    columns={"title": "The travel policy"},
)


def shown(hit: Hit, width: int, question: str = "receipt of a traveller") -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_hits(console, question, [hit])
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 80, 140])
def test_a_hit_shows_title_place_and_the_words_of_the_question(width: int) -> None:
    lines = shown(HIT, width)
    text = " ".join(" ".join(lines).split())
    assert lines[0].startswith("1. The travel policy")
    assert lines[0].endswith("score 0.731")
    assert "policies/travel.md · pages 3-4 · Travel > Expenses · characters 10-2200" in text
    assert "Receipts of travellers are kept" in text
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= 8


def test_without_a_title_the_key_is_the_title() -> None:
    lines = shown(replace(HIT, columns={}, page=None, heading=None), 80)
    assert lines[0].startswith("1. policies/travel.md")
    assert lines[1].strip() == "characters 10-2200"


def test_an_excerpt_is_cut_between_words_around_most_words_of_the_question() -> None:
    found = excerpt(TEXT, words_of("how are receipts of travellers kept?"), 120)
    assert found.startswith("… ")
    assert found.endswith(" …")
    assert "Receipts of travellers are kept" in found
    assert set(found.strip("… ").split()) <= set(TEXT.split())


@pytest.mark.parametrize("question", ["", "?!", "of", "zebra", "(unclosed [brackets"])
def test_a_question_without_matching_words_shows_the_beginning(question: str) -> None:
    assert excerpt(TEXT, words_of(question), 100).startswith("Nothing of that kind")
    assert excerpt("short", words_of(question), 100) == "short"


def test_a_text_has_no_power_over_the_terminal() -> None:
    text = " ".join(shown(replace(HIT, text="[red]a\x1b[2Jreceipt[/red] -------- b", heading="[bold]"), 80))
    assert "[red]a\\x1b[2Jreceipt[/red] b" in text
    assert "[bold]" in text
