"""A run over a corpus: its pages, its guards, what it skips, and what it reports meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.errors import RecipeWithheldError, RemovalsWithheldError, SpendingLimitError
from ingest_pipeline.ingestion import ingest as ingest_module
from ingest_pipeline.ingestion import run as run_module
from ingest_pipeline.ingestion.outcome import IngestOutcome
from ingest_pipeline.ingestion.run import IngestRun, RunOptions
from ingest_pipeline.ingestion.summary import Publication
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.source_comparison import Page
from ingest_pipeline.preparation.reading.preview import ChunkPreview
from ingest_pipeline.types import Chunk
from tests.support.world import World, paragraphs


@dataclass
class Recorder:
    """Notes what a run reports, in its order."""

    calls: list[str] = field(default_factory=list[str])

    def compared(self, page: Page) -> None:
        self.calls.append(f"compared {len(page.plans)}")

    def expect(self, plans: Sequence[DocumentPlan]) -> None:
        self.calls.append(f"expect {' '.join(plan.key for plan in plans)}")

    def publication(self, publication: Publication) -> None:
        self.calls.append(f"publication {publication.version}")

    def usage(self) -> None:
        self.calls.append("usage")


def run_of(world: World, options: RunOptions | None = None, reporter: Recorder | None = None) -> IngestRun:
    def create_embedder() -> EmbeddingClient:
        return OpenAIEmbedder(world.embedding_settings)

    return IngestRun(world.context, create_embedder, options or RunOptions(), reporter=reporter)


def run(world: World, options: RunOptions | None = None, partitions: list[str] | None = None) -> IngestOutcome:
    return run_of(world, options).run(partitions)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "MAX_PAGE_DOCUMENTS", 2)


@pytest.mark.usefixtures("small_pages")
def test_pages_are_published_one_after_the_other_in_order(world: World) -> None:
    for name in "abcde":
        world.put(f"{name}.txt", name)
    recorder = Recorder()
    outcome = run_of(world, reporter=recorder).run()
    assert (outcome.published, outcome.removed, str(outcome)) == (5, 0, "5 documents published")
    assert recorder.calls == [
        "compared 2",
        "compared 2",
        "expect a.txt b.txt",
        "publication 2",
        "usage",
        "compared 1",
        "expect c.txt d.txt",
        "publication 3",
        "usage",
        "expect e.txt",
        "publication 4",
        "usage",
    ]


def test_a_renamed_file_is_one_publication(world: World) -> None:
    world.put("a.txt", "a")
    world.put("b.txt", "b")
    run(world)
    world.remove("a.txt")
    world.put("c.txt", "a")
    outcome = run(world)
    assert (outcome.published, outcome.removed, world.head) == (1, 1, 3)
    assert str(outcome) == "1 document published, 1 removed"


@pytest.mark.usefixtures("small_pages")
def test_removals_are_counted_over_all_pages_before_any_is_published(world: World) -> None:
    for name in "abcdef":
        world.put(f"{name}.txt", name)
    run(world)
    for name in "abcdef":
        world.remove(f"{name}.txt")
    world.put("g.txt", "g")
    outcome = run(world)
    assert [type(problem.error) for problem in outcome.problems] == [RemovalsWithheldError]
    assert (outcome.published, outcome.removed, outcome.incomplete) == (1, 0, {f"{name}.txt" for name in "abcdef"})
    assert run(world, RunOptions(withhold_removals=True)).problems == []
    assert run(world, RunOptions(confirm_removals=True)).removed == 6
    assert world.texts() == {"g.txt": "g"}


@pytest.mark.usefixtures("small_pages")
def test_a_limit_on_tokens_counts_for_the_run_and_not_for_a_page(world: World) -> None:
    for number in range(6):
        world.put(f"{number}.txt", paragraphs(f"topic{number}", 1))
    limited = World(world.database, world.settings.replace(max_tokens_per_run=600), world.embeddings)
    attempt = run_of(limited)
    with pytest.raises(SpendingLimitError, match="This run was billed"):
        attempt.run()
    assert 0 < attempt.outcome.published < 6
    assert world.embeddings.tokens <= 600
    assert limited.audit().violations == []


def test_a_run_without_differences_creates_no_embedder(world: World) -> None:
    world.put("a.txt", "a")
    run(world)

    def create_embedder() -> EmbeddingClient:
        raise AssertionError("it is not needed")

    outcome = IngestRun(world.context, create_embedder, RunOptions()).run()
    assert str(outcome) == "0 documents published"


def test_a_file_that_cannot_be_read_is_skipped_or_fails_in_each_run_and_is_read_once(world: World) -> None:
    world.put("a.txt", "a")
    (Path(world.settings.source) / "b.txt").write_bytes(b"\xff\xfe\xfd text in no encoding \xff")
    first = run(world)
    assert [(one.document, one.reason) for one in first.skipped] == [("b.txt", "of unknown encoding")]
    assert (first.published, first.tried_unreadable, first.incomplete) == (1, {"b.txt"}, {"b.txt"})
    again = run(world)
    assert [one.document for one in again.skipped] == ["b.txt"]
    assert again.tried_unreadable == set(), "its bytes are known to be unreadable"
    strict = run(world, RunOptions(skip_unreadable=False))
    assert [problem.document for problem in strict.failed] == ["b.txt"]
    named = run(world, RunOptions(skip_unreadable=False), ["b.txt"])
    assert named.tried_unreadable == {"b.txt"}, "the user names it, so it is read again"


def test_a_recipe_that_needs_a_confirmation_withholds_its_documents_alone(world: World) -> None:
    for number in range(12):
        world.put(f"{number}.txt", paragraphs(f"topic{number}", 1))
    run(world)
    other = World(world.database, world.settings.replace(chunk_size=500), world.embeddings)
    other.put("new.txt", "new")
    outcome = run(other)
    assert [type(problem.error) for problem in outcome.problems] == [RecipeWithheldError]
    assert (outcome.published, len(outcome.incomplete)) == (1, 12)
    silent = run(other, RunOptions(withhold_recipe=True))
    assert (silent.problems, silent.published) == ([], 0)
    assert run(other, RunOptions(confirm_recipe=True)).published == 12


@pytest.mark.parametrize("shows", [True, False])
def test_texts_of_documents_are_kept_until_publication_only_for_a_reporter(
    world: World, monkeypatch: pytest.MonkeyPatch, *, shows: bool
) -> None:
    previews: list[ChunkPreview] = []
    add = ChunkPreview.add

    def added(preview: ChunkPreview, chunk: Chunk) -> None:
        previews.append(preview)
        add(preview, chunk)

    monkeypatch.setattr(ChunkPreview, "add", added)
    world.put("a.txt", paragraphs("alpha", 3))
    run_of(world, reporter=Recorder() if shows else None).run()
    assert [len(preview.samples) for preview in previews] == [3 if shows else 0] * 3


def test_memory_is_given_back_after_each_publication(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest_pipeline.ingestion.groups._GROUP_DOCUMENTS", 2)
    given_back: list[int] = []
    monkeypatch.setattr(ingest_module, "release_memory", lambda: given_back.append(world.head))
    for number in range(5):
        world.put(f"{number}.txt", f"text {number}")
    run(world)
    assert given_back == [2, 3, 4]
