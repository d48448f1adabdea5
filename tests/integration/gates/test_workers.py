"""Gates of a run that several workers share: each judges what it publishes, and only what does not pass is blocked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.errors import PublicationBlockedError
from ingest_pipeline.ingestion.run import IngestRun, RunOptions
from ingest_pipeline.ingestion.workers import parts as parts_module
from ingest_pipeline.ingestion.workers import pool as pool_module
from ingest_pipeline.ingestion.workers.pool import WorkerSettings
from ingest_pipeline.saga.blocked import blocked_publications, release_publication
from tests.support.world import World, mark_served, paragraphs

_DOCUMENTS = 10
_QUESTION = "a question about the seventh document"


@pytest.mark.promise("gates", "workers")
def test_each_worker_judges_what_it_publishes(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "SMALLEST_PART", 20_000)
    monkeypatch.setattr(pool_module, "SMALLEST_PART", 20_000)
    for number in range(_DOCUMENTS):
        world.put(f"{number}.txt", paragraphs(f"old{number}", 8))
    world.ingest()
    mark_served(world.database, world.embedding_settings)
    golden = tmp_path / "golden.jsonl"
    golden.write_text(json.dumps({"query": _QUESTION, "documents": ["7.txt"]}))
    settings = world.settings.replace(golden_set=str(golden), golden_k=1000, gate_min_recall=1.0, gate_max_lost=0)
    gated = World(world.database, settings, world.embeddings)
    for number in range(_DOCUMENTS):
        gated.put(f"{number}.txt", paragraphs(f"new{number}", 8))
    gated.put("7.txt", "")

    def create_embedder() -> EmbeddingClient:
        return OpenAIEmbedder(gated.embedding_settings)

    address = gated.address
    workers = WorkerSettings.of(2, address.database_url, address.settings, address.embedding_settings)
    outcome = IngestRun(gated.context, create_embedder, RunOptions(), workers=workers).run()
    (blocked,) = blocked_publications(gated.corpus)
    (problem,) = outcome.problems
    assert isinstance(problem.error, PublicationBlockedError)
    assert "lost 1 (limit 0): 7.txt" in str(problem.error)
    assert 0 < blocked.documents < _DOCUMENTS, "it is the publication of one worker"
    assert outcome.published == _DOCUMENTS - blocked.documents
    new = {key for key, text in gated.texts().items() if text.startswith("new")}
    assert len(new) == outcome.published
    assert gated.texts()["7.txt"].startswith("old7")
    assert len(outcome.judgements) > world.embeddings.texts[_QUESTION], "a worker publishes several times"
    assert world.embeddings.texts[_QUESTION] <= 2, "each worker embeds the questions once"
    paid = world.embeddings.embedded
    release_publication(gated.corpus, blocked.saga)
    assert world.embeddings.embedded == paid
    assert {key for key, text in gated.texts().items() if text.startswith("new")} == {
        f"{number}.txt" for number in range(_DOCUMENTS) if number != 7
    }
    gated.check_nothing_left()
