"""Documents become rows in both stores, and only what changed is done again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingest_pipeline.model import SourceObject
from tests.support.embedding_server import POISON
from tests.support.world import World, paragraphs


def test_documents_become_rows_that_agree(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 5))
    world.put("folder/b.md", "# Beta\n\n" + paragraphs("beta", 3))
    summary = world.ingest()
    assert len(summary.publications) == 1
    report = world.audit()
    assert report.violations == []
    assert report.documents == 2
    assert report.chunks == world.embeddings.bought


def test_ingesting_again_does_nothing(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 5))
    world.ingest()
    before = world.head, world.embeddings.requests, world.corpus.table.all_files()
    summary = world.ingest()
    assert not summary.publications
    assert (world.head, world.embeddings.requests, world.corpus.table.all_files()) == before


def test_an_edit_pays_for_the_changed_chunks_only(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 20))
    world.ingest()
    world.embeddings.reset_counters()
    world.put("a.txt", paragraphs("alpha", 20) + "\n\nA new paragraph at the end.")
    world.ingest()
    assert 1 <= world.embeddings.bought <= 3
    assert world.audit().violations == []


def test_a_removed_document_leaves_both_stores(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 2))
    world.put("b.txt", paragraphs("beta", 2))
    world.ingest()
    world.remove("a.txt")
    world.ingest()
    assert world.chunks("a.txt") == []
    assert world.text_at("a.txt") == ""
    assert world.audit().violations == []
    world.put("a.txt", paragraphs("alpha", 2))
    world.ingest()
    assert world.audit().documents == 2


def test_a_bad_document_does_not_stop_the_others(world: World) -> None:
    world.put("good.txt", paragraphs("good", 2))
    world.put("empty.txt", "")
    summary = world.ingest()
    assert list(summary.failed) == ["empty.txt"]
    assert world.audit().documents == 1


def test_a_touched_file_with_the_same_bytes_is_not_published_again(world: World) -> None:
    path = world.put("a.txt", paragraphs("alpha", 2))
    world.ingest()
    before = world.head
    path.write_text(path.read_text())
    assert len(world.ingest().unchanged) == 1
    assert world.head == before
    assert world.ingest().unchanged == []


def test_a_chunk_is_the_text_at_its_offsets(world: World) -> None:
    text = paragraphs("alpha", 9)
    world.put("a.txt", text)
    world.ingest()
    rows = world.corpus.table.rows(world.head, ["text", "start_offset", "end_offset"]).to_pylist()
    assert rows
    assert all(text[row["start_offset"] : row["end_offset"]] == row["text"] for row in rows)


def test_an_old_head_reads_the_same_after_a_publication(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 4))
    world.ingest()
    old = world.head
    chunks, text = world.chunks("a.txt", old), world.text_at("a.txt", old)
    world.put("a.txt", paragraphs("other", 2))
    world.ingest()
    assert world.head > old
    assert (world.chunks("a.txt", old), world.text_at("a.txt", old)) == (chunks, text)


def test_a_document_published_while_the_source_is_listed_is_not_taken_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put("a.txt", paragraphs("alpha", 1))
    world.ingest()
    source = world.workshop.source
    listing = source.list

    def listing_overtaken(*_: str) -> Iterator[SourceObject]:
        found = list(listing())
        world.put("b.txt", paragraphs("beta", 1))
        World(world.database, world.settings, world.embeddings).ingest(["b.txt"])
        yield from found

    monkeypatch.setattr(source, "list", listing_overtaken)
    assert world.ingest().publications == []
    assert world.audit().documents == 2


def test_a_document_that_comes_back_is_not_bought_again(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 3))
    world.ingest()
    bought = world.embeddings.bought
    world.remove("a.txt")
    world.ingest()
    world.put("a.txt", paragraphs("other", 2))
    world.ingest()
    between = world.embeddings.bought
    world.put("a.txt", paragraphs("alpha", 3))
    world.ingest()
    assert bought < between == world.embeddings.bought
    assert world.audit().violations == []


def test_what_was_bought_for_a_document_that_failed_is_not_bought_again(world: World) -> None:
    good = paragraphs("alpha", 20)
    world.put("a.txt", f"{good}\n\n{POISON} is refused by the API.")
    world.put("b.txt", paragraphs("beta", 2))
    assert list(world.ingest().failed) == ["a.txt"]
    bought = world.embeddings.bought
    world.put("a.txt", good)
    world.ingest()
    assert world.embeddings.bought <= bought + 1
    world.sweep()
    assert world.audit().violations == []
