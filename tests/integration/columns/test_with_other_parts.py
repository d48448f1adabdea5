"""Columns beside code of the user, passages of a search, a re-embedding's copy and a catalog that was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import closing

import pytest

from ingest_pipeline.ingestion.context import find_corpus
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.restore.lost_corpus import open_for_rebuild
from ingest_pipeline.restore.rebuild import rebuild_catalog
from ingest_pipeline.search.expand import EXPANSIONS
from ingest_pipeline.search.search import search
from tests.integration.columns.test_columns import declare, sidecar, values
from tests.support.servers.databases import empty_database
from tests.support.world import World, paragraphs

TITLE = "tests.support.user_code.Title"


def test_what_an_enricher_finds_is_stored_and_survives_a_change_of_the_sidecar(world: World) -> None:
    found = declare(world, {"title": "string", "year": "int"}, enricher=TITLE)
    found.put("a.txt", "The first line\nand more of it")
    sidecar(found, "a.txt", year=2019)
    found.ingest()
    assert values(found, "a.txt") == {"title": "The first line", "year": 2019}
    embedded, fragments = found.embeddings.embedded, [one.number for one in found.corpus.table.fragments(found.head)]
    sidecar(found, "a.txt", year=2020)
    found.ingest()
    assert values(found, "a.txt") == {"title": "The first line", "year": 2020}
    assert found.embeddings.embedded == embedded
    assert [one.number for one in found.corpus.table.fragments(found.head)] == fragments
    found.check_nothing_left()
    assert found.ingest().publications == []


@pytest.mark.promise("columns")
def test_a_parser_that_returns_another_text_than_at_head_has_its_document_ingested_again(world: World) -> None:
    lines = {"class": "tests.support.user_code.Lines", "arguments": {"upper": False}}
    found = declare(world, {"year": "int"}, parser=lines)
    for key in ("a.lines", "b.txt"):
        found.put(key, f"Some lines of {key}\n")
        sidecar(found, key, year=2019)
    found.ingest()
    shouting = declare(world, {"year": "int"}, parser={**lines, "arguments": {"upper": True}})  # the same fingerprint
    for key in ("a.lines", "b.txt"):
        sidecar(shouting, key, year=2020)
    shouting.ingest()
    assert shouting.text_at("a.lines") == "SOME LINES OF A.LINES"
    assert [values(shouting, key) for key in ("a.lines", "b.txt")] == [{"year": 2020}] * 2
    shouting.check_nothing_left()


@pytest.mark.parametrize("expand", EXPANSIONS)
def test_a_passage_shows_nothing_of_a_document_that_is_forbidden(world: World, expand: str) -> None:
    guarded = declare(world, {"readers": "list<string>"}, access="readers")
    for name, readers in {"a": ["ann"], "b": ["bob"], "c": None}.items():
        guarded.put(f"{name}.txt", paragraphs(f"topic of {name}", 4))
        if readers is not None:
            sidecar(guarded, f"{name}.txt", readers=readers)
    guarded.ingest()
    corpus = find_corpus(guarded.database, guarded.settings)

    def passages(*principals: str) -> list[tuple[str, str]]:
        hits = asyncio.run(
            search(corpus, None, "topic", 50, mode="text", principals=principals or None, expand=expand)  # type: ignore[arg-type]
        )
        return [(hit.document, hit.passage.text if hit.passage else "") for hit in hits]

    assert {document for document, _ in passages("ann")} == {"a.txt"}
    assert all("topic of a" in text and "of b" not in text and "of c" not in text for _, text in passages("ann"))
    assert passages() == []


@pytest.fixture
def empty(postgres: str, entrance: str) -> Generator[Database]:
    with closing(Database(empty_database(postgres, entrance)).open()) as database:
        yield database


def test_a_lost_catalog_comes_back_with_its_columns(world: World, empty: Database) -> None:
    first = declare(world, {"department": "string", "tags": "list<string>"})
    first.put("a.txt", "Text of a.")
    sidecar(first, "a.txt", department="legal", tags=["x", "y"])
    first.put("b.txt", "Text of b.")
    first.ingest()
    embedded = first.embeddings.embedded
    again = World(empty, first.settings, first.embeddings)
    assert rebuild_catalog(open_for_rebuild(empty, first.settings)) is not None
    assert values(again, "a.txt") == {"department": "legal", "tags": ["x", "y"]}
    assert again.ingest().publications == []
    assert again.embeddings.embedded == embedded
    again.check_nothing_left()
