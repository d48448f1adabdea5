"""A corpus whose vectors are of an embedder of the user: ingest, cache, accounting, search, re-embedding."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from ingest_pipeline.api import OpenCorpus
from ingest_pipeline.embedding import user_embedder_client
from ingest_pipeline.embedding.create import create_embedder
from ingest_pipeline.errors import (
    CorpusMismatchError,
    EmbedderError,
    EmbeddingInputError,
    EmbeddingUnavailableError,
    RerankerResponseError,
    SpendingLimitError,
)
from ingest_pipeline.ingestion.reembed import Reembedding, begin
from tests.support.user_code import direction
from tests.support.world import World

MODULE = "tests.support.user_code"


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_embedder_client, "_FIRST_WAIT", 0.01)


def noting(tmp_path: Path, **arguments: object) -> dict[str, object]:
    return {"class": f"{MODULE}.NotingEmbedder", "arguments": {"notes": str(tmp_path / "notes"), **arguments}}


def noted(tmp_path: Path) -> list[str]:
    path = tmp_path / "notes"
    return path.read_text().splitlines() if path.exists() else []


def own(world: World, embedder: object, **options: object) -> World:
    return World(world.database, world.settings.replace(embedder=embedder, **options), world.embeddings)


def vectors(world: World) -> dict[str, list[float]]:
    rows = world.corpus.table.rows(world.head, ["document", "vector"]).to_pylist()
    return {row["document"]: row["vector"] for row in rows}


@pytest.mark.promise("user-code")
def test_its_vectors_are_published_counted_and_never_computed_again(world: World, tmp_path: Path) -> None:
    found = own(world, noting(tmp_path), embedding_prices="embedder:noting-1 0.5 USD 2026-11-01")
    for number in range(6):
        found.put(f"{number}.txt", f"text number {number}")
    (publication,) = found.ingest().publications
    assert (publication.usage.embedded, publication.usage.tokens) == (6, 18)
    assert publication.price is not None
    assert publication.price.cost(publication.usage.tokens) == Decimal("0.000009")
    assert np.allclose(vectors(found)["3.txt"], direction("text number 3"))
    found.put("copy.txt", "text number 3")
    found.remove("0.txt")
    found.ingest()
    own(world, noting(tmp_path), chunk_size=500).ingest()
    assert len(noted(tmp_path)) == 6
    assert world.embeddings.requests == 0
    found.check()
    found.check_nothing_left()


def test_a_search_embeds_the_question_by_the_method_for_questions(world: World, tmp_path: Path) -> None:
    found = own(world, noting(tmp_path))
    found.put("a.txt", "green apples")
    found.put("b.txt", "red bricks")
    found.ingest()
    before = noted(tmp_path)
    hits = OpenCorpus(found.database, found.settings).search("red bricks", mode="vector")
    assert (hits[0].document, round(hits[0].score, 3)) == ("b.txt", 1.0)
    assert noted(tmp_path) == before


@pytest.mark.promise("user-code")
def test_a_reranker_of_the_user_decides_the_order(world: World, tmp_path: Path) -> None:
    found = own(world, noting(tmp_path), reranker=f"{MODULE}.ObedientReranker")
    for key, text in (
        ("a.txt", "red bricks and more"),
        ("b.txt", "red bricks"),
        ("c.txt", "green grass and yellow flowers"),
    ):
        found.put(key, text)
    found.ingest()
    corpus = OpenCorpus(found.database, found.settings)
    for mode in ("vector", "text", "hybrid"):
        hits = corpus.search("red bricks", mode=mode, limit=2)
        assert [(hit.document, hit.rerank_score) for hit in hits] == [("b.txt", -10.0), ("a.txt", -19.0)], mode
    with pytest.raises(RerankerResponseError, match="ObedientReranker returned a score that is not finite"):
        corpus.search("nan", mode="vector")


@pytest.mark.promise("user-code")
@pytest.mark.parametrize(("text", "reason"), [("raise", "raised ValueError"), ("nan", "not finite"), ("long", "words")])
def test_a_text_with_which_it_fails_fails_its_document_alone(world: World, text: str, reason: str) -> None:
    found = own(world, f"{MODULE}.ObedientEmbedder")
    found.put("a.txt", text)
    found.put("b.txt", "fine")
    found.put("c.txt", "fine too")
    summary = found.ingest()
    (problem,) = [error for _, error in summary.failed.values()]
    assert isinstance(problem, EmbeddingInputError)
    assert reason in str(problem)
    assert found.texts() == {"b.txt": "fine", "c.txt": "fine too"}
    found.check()


@pytest.mark.promise("user-code")
@pytest.mark.parametrize(
    ("text", "error"), [("few", EmbedderError), ("wide", EmbedderError), ("offline", EmbeddingUnavailableError)]
)
def test_an_invalid_result_is_not_stored_and_its_tokens_are_counted(
    world: World, text: str, error: type[Exception]
) -> None:
    found = own(world, f"{MODULE}.ObedientEmbedder")
    found.put("a.txt", text)
    with pytest.raises(error):
        found.ingest()
    assert found.recorded_vectors == 0
    assert found.texts() == {}
    found.put("a.txt", "fine")
    found.ingest()
    assert found.texts() == {"a.txt": "fine"}
    found.recover()
    found.check()


def test_its_tokens_are_limited(world: World, tmp_path: Path) -> None:
    found = own(world, noting(tmp_path), max_tokens_per_day=20)
    for number in range(40):
        found.put(f"{number}.txt", f"text number {number}")
    with pytest.raises(SpendingLimitError, match="INGEST_MAX_TOKENS_PER_DAY"):
        found.ingest()
    assert len(noted(tmp_path)) <= 8


@pytest.mark.promise("user-code")
def test_a_corpus_is_reembedded_from_and_to_it(world: World, tmp_path: Path) -> None:
    world.put("a.txt", "green apples")
    world.ingest()
    before = world.settings.recipe.embedding
    mine = own(world, noting(tmp_path))
    assert mine.context.recipe.embedding == before
    for target in (mine, own(world, noting(tmp_path, fingerprint="noting-2", dimensions=5)), world):
        old, new = begin(target.database, target.settings)

        async def run(target: World = target, old: object = old, new: object = new) -> None:
            async with create_embedder(target.embedding_settings) as client:
                reembedding = Reembedding(old, new, client)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
                await reembedding.fill()
                await reembedding.switch()

        asyncio.run(run())
        after = World(target.database, target.settings, target.embeddings)
        assert after.corpus.head().embedding == target.settings.recipe.embedding
        after.check()
    assert len(noted(tmp_path)) == 2


@pytest.mark.promise("user-code")
def test_another_fingerprint_embeds_nothing_until_the_corpus_is_reembedded(world: World, tmp_path: Path) -> None:
    found = own(world, noting(tmp_path))
    found.put("a.txt", "green apples")
    found.ingest()
    found.put("b.txt", "red bricks")
    other = own(world, noting(tmp_path, fingerprint="noting-2"))
    with pytest.raises(CorpusMismatchError, match="run `ingest-pipeline reembed`"):
        OpenCorpus(other.database, other.settings).ingest()
    assert len(noted(tmp_path)) == 1
    assert OpenCorpus(other.database, other.settings).search("green", mode="text")
    with pytest.raises(CorpusMismatchError):
        OpenCorpus(other.database, other.settings).search("green", mode="vector")


def test_a_plan_calls_no_embedder(world: World, tmp_path: Path) -> None:
    found = own(world, noting(tmp_path))
    found.put("a.txt", "green apples")
    assert len(OpenCorpus(found.database, found.settings).plan()) == 1
    assert noted(tmp_path) == []
    assert json.dumps(found.settings.recipe.embedding_model) == '"embedder:noting-1"'
