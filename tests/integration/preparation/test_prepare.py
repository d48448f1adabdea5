"""What preparing promises about requests, data files and documents that fail half way."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from ingest_pipeline.lance.changes import StagedFragment
from ingest_pipeline.lance.chunk_table import TableRow
from ingest_pipeline.preparation.reading import read_stage
from ingest_pipeline.preparation.writing import write_stage
from ingest_pipeline.preparation.writing.write_stage import WriteStage
from tests.support.servers.embedding_server import POISON
from tests.support.world import World, paragraphs


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data file is full after a few rows, and a batch after 16 chunks."""
    monkeypatch.setattr(write_stage, "_ROWS_PER_FILE", 8)
    monkeypatch.setattr(read_stage, "_BATCH_CHUNKS", 16)


def test_small_documents_share_requests(world: World) -> None:
    for number in range(80):
        world.put(f"{number}.txt", paragraphs(f"document{number}", 3))
    world.ingest()
    full = -(-world.embeddings.embedded // world.embedding_settings.batch_inputs)
    assert world.embeddings.requests <= full + 1
    assert world.audit().violations == []


def test_small_documents_share_a_data_file(world: World) -> None:
    for number in range(20):
        world.put(f"{number}.txt", paragraphs(f"document{number}", 2))
    (publication,) = world.ingest().publications
    assert len({name for document in publication.documents for name in document.files}) == 1


def test_a_large_document_spans_data_files(world: World, small_files: None) -> None:
    text = paragraphs("alpha", 200)
    world.put("large.txt", text)
    world.put("small.txt", paragraphs("beta", 2))
    (publication,) = world.ingest().publications
    files = {document.plan.key: document.files for document in publication.documents}
    assert len(files["large.txt"]) > 1
    assert not set(files["large.txt"]) & set(files["small.txt"])
    assert len(world.chunks("large.txt")) == publication.documents[0].chunks > 128
    assert world.audit().violations == []


def test_a_document_whose_last_file_is_written_first_is_complete(
    world: World, small_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files are in progress at once, and the document waits for both."""
    stage, is_last_written = WriteStage._stage, threading.Event()  # pyright: ignore[reportPrivateUsage]

    def staged(self: WriteStage, name: str, rows: Sequence[TableRow]) -> StagedFragment:
        if name.endswith("-0.lance"):
            assert is_last_written.wait(60)
            return stage(self, name, rows)
        fragment = stage(self, name, rows)
        is_last_written.set()
        return fragment

    monkeypatch.setattr(WriteStage, "_stage", staged)
    world.put("a.txt", paragraphs("alpha", 12))
    (publication,) = world.ingest().publications
    assert len(publication.documents[0].files) == 2
    assert len(world.chunks("a.txt")) == 12
    assert world.audit().violations == []


def test_a_document_that_fails_after_its_first_data_file_leaves_nothing(world: World, small_files: None) -> None:
    world.put("bad.txt", paragraphs("alpha", 200) + f"\n\n{POISON}")
    world.put("good.txt", paragraphs("beta", 2))
    summary = world.ingest()
    assert list(summary.failed) == ["bad.txt"]
    assert world.text_at("bad.txt") == ""
    assert world.chunks("bad.txt") == []
    assert world.chunks("good.txt")
    assert [violation for violation in world.audit().violations if "bad.txt" in str(violation)] == []


def test_counts_add_up_over_batches(world: World, small_files: None) -> None:
    world.put("a.txt", paragraphs("same", 150) + "\n\n" + paragraphs("same", 150))
    (publication,) = world.ingest().publications
    (document,) = publication.documents
    assert document.usage.embedded == world.embeddings.embedded == len(world.embeddings.texts)
    assert document.usage.embedded + document.usage.cached == document.chunks == len(world.chunks("a.txt"))
    assert document.usage.cached > 0


def test_rows_that_do_not_fit_into_columns_are_not_taken_for_a_fault_of_the_store(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("no column can contain this")

    monkeypatch.setattr(write_stage, "chunk_table", refuse)
    world.put("a.txt", "alpha")
    with pytest.raises(ValueError, match="no column can contain this"):
        world.ingest()
