"""A re-embedding is judged before readers are switched: blocked durably, then released or dropped."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.errors import ConfigurationError, PublicationBlockedError
from ingest_pipeline.ingestion import gate_decisions
from ingest_pipeline.ingestion.gate_decisions import waiting, waiting_for
from ingest_pipeline.ingestion.reembed import Reembedding, begin
from ingest_pipeline.saga.generations import list_generations
from tests.support.crash.migrating import moved
from tests.support.world import World

pytestmark = pytest.mark.promise("gates")


@pytest.fixture
def seen(world: World, tmp_path: Path) -> World:
    for name in ("alpha", "beta"):
        world.put(f"{name}.txt", f"{name} words")
    world.ingest()
    file = tmp_path / "golden.jsonl"
    questions = [("alpha words", "alpha.txt"), ("beta words", "alpha.txt")]
    file.write_text("\n".join(json.dumps({"query": query, "documents": [key]}) for query, key in questions))
    return World(world.database, world.settings.replace(golden_set=str(file), golden_k=1), world.embeddings)


def reembed(world: World, **gates: Any) -> Reembedding:
    """Fill a generation of another model, and switch readers to it."""
    settings = moved(world.settings.replace(golden_mode="vector", **gates))
    old, new = begin(world.database, settings)
    address = World(world.database, settings, world.embeddings).address

    async def run() -> Reembedding:
        async with OpenAIEmbedder(address.embedding_settings) as embedder:
            reembedding = Reembedding(
                old, new, embedder, create_old_embedder=lambda: OpenAIEmbedder(world.embedding_settings)
            )
            await reembedding.fill()
            await reembedding.switch()
            return reembedding

    return asyncio.run(run())


def states(world: World) -> dict[str, str]:
    return {found.name: found.state for found in list_generations(world.database, "docs")}


def test_a_switch_that_does_not_pass_is_kept_and_embeds_nothing_again(seen: World) -> None:
    with pytest.raises(PublicationBlockedError, match=r"Generation docs-2 .* recall 0\.5 \(limit 0\.9\): beta words"):
        reembed(seen, gate_min_recall=0.9)
    assert states(seen) == {"docs": "current", "docs-2": "building"}
    (found,) = waiting(seen.corpus)
    assert (found.id, [one.figure for one in found.findings if not one.passed]) == ("docs-2", ["recall"])
    before = seen.embeddings.embedded
    with pytest.raises(PublicationBlockedError):
        reembed(seen, gate_min_recall=0.9)
    assert seen.embeddings.embedded - before == 2, "the two questions"
    assert gate_decisions.release(seen.corpus, waiting_for(seen.corpus, None)) is None
    assert waiting(seen.corpus) == []
    assert reembed(seen, gate_min_recall=0.9).judgement is None
    assert states(seen) == {"docs": "retired", "docs-2": "current"}


def test_a_dropped_one_is_aborted_and_a_good_one_switches(seen: World) -> None:
    with pytest.raises(PublicationBlockedError):
        reembed(seen, gate_max_lost=0, gate_min_recall=0.9)
    gate_decisions.drop(seen.corpus, waiting_for(seen.corpus, "docs-2"))
    assert states(seen) == {"docs": "current", "docs-2": "retired"}
    with pytest.raises(ConfigurationError, match="has nothing called 'docs-2' that did not pass"):
        waiting_for(seen.corpus, "docs-2")
    judgement = reembed(
        seen, gate_max_lost=0, gate_max_recall_drop=0, gate_max_empty=0, gate_max_duplicates=0
    ).judgement
    assert judgement is not None
    assert judgement.passed
    figures = {finding.figure: finding.value for finding in judgement.findings}
    assert (figures["recall"], figures["recall_at_head"], figures["lost"], figures["empty"]) == (0.5, 0.5, 0, 0)
    assert states(seen)["docs-2"] == "current"
