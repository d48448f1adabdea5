"""Searching at head: by meaning, by words and by both, with and without indices, in the documents one asks for."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.errors import CorpusMismatchError, TextIndexMissingError
from ingest_pipeline.lance.indices import IndexKind
from ingest_pipeline.maintenance.indexing import update_indices
from ingest_pipeline.search.filters import DocumentFilter, parse_filter
from ingest_pipeline.search.search import Hit, search
from ingest_pipeline.types import SEARCH_MODES, SearchMode
from tests.support.world import World, paragraphs

WORDS = IndexKind("text", "INVERTED", least=1, tail=1)
DOCUMENTS = {
    "guide/exceptions.txt": "Exceptions are raised by statements and caught by handlers.",
    "guide/imports.txt": "A module is imported once, and its names are bound.",
    "reference/raise.txt": "The statement raise ends a block with an exception that a handler may catch.",
    "notes.txt": "Bread is made from flour, water and salt.",
}


@pytest.fixture
def library(world: World) -> World:
    for key, text in DOCUMENTS.items():
        world.put(key, text)
    world.ingest()
    return world


def ask(
    world: World, question: str, mode: SearchMode = "vector", *where: str, limit: int = 10, use_index: bool = True
) -> list[Hit]:
    async def run() -> list[Hit]:
        async with OpenAIEmbedder(world.embedding_settings) as embedder:
            conditions: DocumentFilter = parse_filter(where)
            return await search(
                world.corpus, embedder, question, limit, mode=mode, where=conditions, use_index=use_index
            )

    return asyncio.run(run())


def keys(hits: list[Hit]) -> list[str]:
    return [hit.document for hit in hits]


def ranked(hits: list[Hit]) -> list[tuple[str, float]]:
    return [(hit.document, round(hit.score, 4)) for hit in hits]


def test_a_search_by_vector_ranks_the_chunk_with_the_same_text_first(library: World) -> None:
    best = ask(library, DOCUMENTS["notes.txt"])[0]
    assert (best.document, round(best.score, 5)) == ("notes.txt", 1.0)


def test_a_search_by_words_finds_only_chunks_with_a_form_of_one_of_the_words(library: World) -> None:
    assert set(keys(ask(library, "raising an exception", "text"))) == {"guide/exceptions.txt", "reference/raise.txt"}
    assert keys(ask(library, "salted flour", "text")) == ["notes.txt"]
    assert ask(library, "zebra", "text") == []


def test_a_search_by_words_sends_no_request_to_the_api(library: World) -> None:
    requests = library.embeddings.requests
    ask(library, "flour", "text")
    assert library.embeddings.requests == requests


def test_a_hybrid_search_ranks_the_common_first_hit_first(library: World) -> None:
    question = DOCUMENTS["reference/raise.txt"]
    best, *others = ask(library, question, "hybrid")
    assert best.document == "reference/raise.txt"
    assert best.score == pytest.approx(1, abs=1e-6), "the best score in both"
    assert len({hit.id for hit in (best, *others)}) == len(DOCUMENTS), "each once, also what has none of the words"


@pytest.mark.parametrize("mode", ["text", "hybrid"])
def test_the_text_index_does_not_change_the_hits(library: World, mode: SearchMode) -> None:
    questions = ["raise a statement", "exceptions", "names of a module", "water and bread"]
    before = [ranked(ask(library, question, mode)) for question in questions]
    assert any(before)
    update_indices(library.corpus, [WORDS])
    assert [ranked(ask(library, question, mode)) for question in questions] == before


def test_the_same_chunks_match_while_the_index_lags_behind(library: World) -> None:
    update_indices(library.corpus, [WORDS])
    library.put("later.txt", "Later exceptions have other handlers.")
    library.remove("guide/exceptions.txt")
    library.ingest()
    lagging = ask(library, "exceptions and handlers", "text")
    assert set(keys(lagging)) == {"later.txt", "reference/raise.txt"}
    update_indices(library.corpus, [WORDS])
    assert set(keys(ask(library, "exceptions and handlers", "text"))) == set(keys(lagging))


@pytest.mark.parametrize("mode", SEARCH_MODES)
@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (["key=guide/*"], {"guide/exceptions.txt", "guide/imports.txt"}),
        (["key=*/raise.tx?"], {"reference/raise.txt"}),
        (["partition=notes.txt"], {"notes.txt"}),
        (["key=guide/*", "size>55"], {"guide/exceptions.txt"}),
        (["key=100%"], set[str]()),
    ],
)
def test_only_documents_that_satisfy_the_conditions_are_searched(
    library: World, mode: SearchMode, where: list[str], expected: set[str]
) -> None:
    question = " ".join(DOCUMENTS.values())
    assert set(keys(ask(library, question, mode, *where))) == expected
    assert len(ask(library, question, mode, *where, limit=1)) == min(1, len(expected)), "not cut before it is filtered"


def test_documents_are_chosen_by_time(library: World) -> None:
    os.utime(library.put("old.txt", "Old flour."), (0, 0))
    library.ingest()
    assert keys(ask(library, "flour", "text", "last_modified<2000-01-01")) == ["old.txt"]
    assert keys(ask(library, "flour", "text", "last_modified>=2000-01-01")) == ["notes.txt"]


def test_a_hit_names_its_publication_and_the_head_that_was_read(library: World) -> None:
    first = library.head
    library.put("more.txt", "More flour.")
    library.ingest()
    found = {hit.document: hit for hit in ask(library, "flour", "text")}
    assert (found["notes.txt"].published_version, found["more.txt"].published_version) == (first, first + 1)
    assert {hit.version for hit in found.values()} == {library.head}
    assert found["more.txt"].saga == str(library.chunks("more.txt")[0].saga)
    hit = found["notes.txt"]
    assert DOCUMENTS["notes.txt"][hit.start_offset : hit.end_offset] == hit.text


@pytest.mark.parametrize("mode", SEARCH_MODES)
def test_a_version_above_head_is_not_read(library: World, mode: SearchMode) -> None:
    head = library.head
    rows = library.corpus.table.rows(head, library.corpus.table.schema.names)
    library.corpus.table.at(head).insert(rows)
    assert library.corpus.table.latest_version() == head + 1
    hits = ask(library, "exceptions raised", mode)
    assert len({hit.id for hit in hits}) == len(hits)
    assert {hit.version for hit in hits} == {head}


@pytest.mark.parametrize("mode", SEARCH_MODES)
def test_an_empty_corpus_has_no_answer(world: World, mode: SearchMode) -> None:
    assert ask(world, "anything", mode) == []


def test_chunks_that_score_alike_come_in_a_fixed_order(world: World) -> None:
    for key in ("c.txt", "a.txt", "b.txt"):
        world.put(key, "The same words in each.")
        world.ingest()
    for mode in SEARCH_MODES:
        assert keys(ask(world, "the same words", mode)) == ["a.txt", "b.txt", "c.txt"]


def test_a_question_embedded_with_another_model_is_refused(library: World) -> None:
    async def run() -> None:
        async with OpenAIEmbedder(replace(library.embedding_settings, model="another")) as embedder:
            await search(library.corpus, embedder, "flour", 3)

    with pytest.raises(CorpusMismatchError, match="another"):
        asyncio.run(run())


def test_a_large_table_without_a_text_index_names_the_remedy(library: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest_pipeline.lance.search._MAX_ROWS_INDEXED_IN_MEMORY", 2)
    with pytest.raises(TextIndexMissingError, match="ingest-pipeline maintain"):
        ask(library, "flour", "text")
    update_indices(library.corpus, [WORDS])
    assert keys(ask(library, "flour", "text")) == ["notes.txt"]


def test_an_index_of_vectors_finds_nine_of_ten_of_the_nearest(world: World) -> None:
    for number in range(12):
        world.put(f"{number}.txt", paragraphs(f"topic {number}", 60))
    world.ingest()
    update_indices(world.corpus, [IndexKind("vector", "IVF", least=1, tail=1)])
    found = wanted = 0
    for number in range(20):
        question = f"topic {number % 12} words {number}"
        exact = {hit.id for hit in ask(world, question, use_index=False)}
        found += len(exact & {hit.id for hit in ask(world, question)})
        wanted += len(exact)
    assert found >= 0.9 * wanted
