"""Ingests whose texts the chunking process cuts: the same rows, the same errors, and no document is lost with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ingest_pipeline.chunking import worker_pool
from ingest_pipeline.chunking.cut_texts import CutText, WholeText
from ingest_pipeline.chunking.worker_pool import TextCutter
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.preparation.reading import read_stage
from tests.support.crash.meanwhile import once_at
from tests.support.world import World, paragraphs

DYING = """
import os
from ingest_pipeline.chunking import worker
worker._cut = lambda *_: os._exit(3)
worker.main()
"""


class Sent:
    """What was sent to chunking processes."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.cut: list[str] = []


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sent]:
    """Every ingest has a chunking process from its first document on."""
    sent, cut, start = Sent(), TextCutter.cut, TextCutter.start

    def recorded(self: TextCutter, documents: Sequence[WholeText]) -> Sequence[CutText | None]:
        found = cut(self, documents)
        sent.keys += [document.key for document in documents]
        sent.cut += [document.key for document, text in zip(documents, found, strict=True) if text is not None]
        return found

    def started(self: TextCutter) -> None:
        start(self).join()

    monkeypatch.setattr(TextCutter, "cut", recorded)
    monkeypatch.setattr(TextCutter, "start", started)
    monkeypatch.setattr(read_stage, "_LEAST_BYTES", 1)
    monkeypatch.setattr(read_stage, "usable_processors", lambda: 2)
    yield sent
    worker_pool.close()


def put_documents(world: World) -> None:
    for number in range(30):
        world.put(f"{number:02}.txt", paragraphs(f"document{number}", 1 + number % 5))
    world.put("notes.md", "---\nauthor: Ada\n---\n\n# One\n\n" + paragraphs("notes", 3) + "\n\n## Two\n\nEnd.\n")
    world.put("large.txt", paragraphs("large", 400))
    world.put("empty.txt", "")
    (Path(world.settings.source) / "image.txt").write_bytes(b"\x89PNG\r\n\x1a\n")
    (Path(world.settings.source) / "latin.txt").write_bytes("é".encode("latin-1") * 100)


def state(world: World) -> tuple[object, object]:
    """What readers find, and how each document failed."""
    summary = world.ingest()
    columns = ["id", "document", "ordinal", "start_offset", "end_offset", "text"]
    rows = world.corpus.table.rows(world.head, columns).sort_by("id").to_pylist()
    failed = {key: (type(error), str(error)) for key, (_, error) in summary.failed.items()}
    assert world.audit().violations == []
    return rows, failed


def test_rows_and_errors_are_those_of_an_ingest_without_it(
    world: World, sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_documents(world)
    with_process = state(world)
    assert {"00.txt", "large.txt", "notes.md"} <= set(sent.cut)
    assert {"image.txt", "latin.txt"} <= set(sent.keys) - set(sent.cut)
    count = len(sent.keys)
    monkeypatch.setattr(read_stage, "usable_processors", lambda: 1)
    other = world.settings.replace(corpus="others", lancedb_uri=str(tmp_path / "others"))
    assert state(World(world.database, other, world.embeddings)) == with_process
    assert len(sent.keys) == count


def test_a_large_document_is_edited_as_if_it_had_been_cut_here(world: World, sent: Sent) -> None:
    """The process records its blocks, from which the edit is cut."""
    text = paragraphs("large", 700)
    world.put("large.txt", text)
    world.ingest()
    assert sent.cut == ["large.txt"]
    world.put("large.txt", text.replace("large 350.", "large edited.", 1))
    (publication,) = world.ingest().publications
    assert sent.cut == ["large.txt"], "an edit is cut in the process of the run"
    assert publication.usage.embedded <= 3
    assert world.audit().violations == []


def test_a_document_that_changes_while_it_is_read_is_planned_again(world: World, sent: Sent) -> None:
    world.put("a.txt", paragraphs("before", 3))
    world.put("b.txt", paragraphs("other", 3))
    with once_at((Boundary.SOURCE_READ, "after"), lambda: world.put("b.txt", paragraphs("after", 4))):
        world.ingest()
    assert world.text_at("b.txt").startswith("after 0.")
    assert sent.cut
    assert world.audit().violations == []


@pytest.mark.promise("limits")
def test_a_document_with_too_many_chunks_buys_nothing(world: World, sent: Sent) -> None:
    limited = World(world.database, world.settings.replace(max_chunks=5), world.embeddings)
    limited.put("a.txt", paragraphs("few", 2))
    limited.put("b.txt", paragraphs("many", 20))
    summary = limited.ingest()
    assert sent.cut == ["a.txt", "b.txt"]
    assert list(summary.failed) == ["b.txt"]
    assert len(limited.chunks("a.txt")) == limited.embeddings.embedded


def test_front_matter_is_read_in_the_process_of_the_run(world: World, sent: Sent) -> None:
    columned = World(world.database, world.settings.replace(columns={"author": "string"}), world.embeddings)
    put_documents(columned)
    columned.ingest()
    assert "notes.md" not in sent.keys
    assert "00.txt" in sent.cut
    rows = columned.corpus.table.rows(columned.head, ["author"], "document = 'notes.md'")
    assert set(rows["author"].to_pylist()) == {"Ada"}


def test_chunking_processes_that_die_take_no_document_with_them(
    world: World, sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(DYING)
    monkeypatch.setattr(worker_pool, "_SCRIPT", script)
    put_documents(world)
    summary = world.ingest()
    assert sent.keys
    assert not sent.cut
    assert set(summary.failed) == {"image.txt", "latin.txt"}
    assert {plan.key for publication in summary.publications for plan in (d.plan for d in publication.documents)} == {
        path.name for path in Path(world.settings.source).iterdir()
    } - set(summary.failed)
    assert world.audit().violations == []
