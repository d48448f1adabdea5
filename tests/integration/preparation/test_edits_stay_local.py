"""An edit of a real document buys the chunks around it and no others. The server counts."""

from __future__ import annotations

import random
import statistics
from itertools import cycle, islice

import pytest

from benchmarks.data.random_edits import EDITS, MOVES, edited, normal, real_documents
from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.types import TextPiece
from tests.support.world import World

pytestmark = pytest.mark.promise("edits-stay-local")

OF_ONE_PLACE = [kind for kind in EDITS if kind not in MOVES]


@pytest.mark.parametrize("edits", [16, *(pytest.param(edits, marks=pytest.mark.soak) for edits in (40, 100))])
def test_random_edits_of_real_documents_embed_one_or_two_chunks_each(world: World, edits: int) -> None:
    chance = random.Random(11)
    texts = [normal(text) for text in real_documents(50_000)][:3]
    for number, text in enumerate(texts):
        world.put(f"{number}.txt", text)
    world.ingest()
    embedded: dict[str, list[int]] = {kind: [] for kind in EDITS}
    for kind in [*islice(cycle(OF_ONE_PLACE), edits), *MOVES * max(4, edits // 8)]:
        chosen = chance.randrange(len(texts))
        texts[chosen] = edited(texts[chosen], kind, chance)
        world.put(f"{chosen}.txt", texts[chosen])
        before = world.embeddings.embedded
        world.ingest([f"{chosen}.txt"])
        embedded[kind].append(world.embeddings.embedded - before)
    of_sections, of_paragraphs = (embedded.pop(kind) for kind in MOVES)
    assert statistics.median(of_sections) <= 3
    assert statistics.median(of_paragraphs) <= 5
    assert max(of_sections + of_paragraphs) <= 9
    of_one_place = sorted(count for counts in embedded.values() for count in counts)
    assert statistics.median(of_one_place) <= 2
    assert of_one_place[edits * 95 // 100 - 1] <= 3
    assert max(world.embeddings.texts.values()) == 1
    assert world.audit().violations == []


@pytest.mark.parametrize("edits", [10, pytest.param(24, marks=pytest.mark.soak)])
def test_an_edit_of_a_large_document_changes_as_few_chunks_as_one_of_a_small_one(edits: int) -> None:
    chance, chunker = random.Random(12), Chunker(1000, 0)
    text = normal("\n\n".join(f"{number} {text}" for number in range(6) for text in real_documents(50_000)))
    assert len(text) > 2_000_000

    def cut(text: str) -> set[str]:
        return {chunk.text for chunk in chunker.chunks([TextPiece(text)], markdown=False)}

    before = cut(text)
    changes = sorted(len(cut(edited(text, kind, chance)) - before) for kind in islice(cycle(OF_ONE_PLACE), edits))
    assert statistics.median(changes) <= 2
    assert changes[edits * 95 // 100 - 1] <= 3
