"""No text is bought twice for one corpus, whatever becomes of the documents that hold it. The server counts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import pytest

from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.postgres.ledger import embedding_cache, sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.preparation import prepare
from ingest_pipeline.preparation.reading import read_stage
from ingest_pipeline.preparation.vectors.recorded_texts import RecordedTexts
from ingest_pipeline.preparation.vectors.vector_resolver import VectorResolver
from ingest_pipeline.types import Chunk, Usage, text_hash
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.servers.embedding_server import POISON
from tests.support.world import World, paragraphs

pytestmark = pytest.mark.promise("pay-once")

TEXT = paragraphs("alpha", 12)


def bought_twice(world: World) -> list[str]:
    return [text[:40] for text, count in world.embeddings.texts.items() if count > 1]


def test_a_renamed_document_costs_nothing(world: World) -> None:
    world.put("a.txt", TEXT)
    world.ingest()
    embedded = world.embeddings.embedded
    world.put("b.txt", TEXT)
    world.remove("a.txt")
    world.ingest()
    assert world.embeddings.embedded == embedded
    assert world.audit().documents == 1


def test_copies_cost_nothing_at_once_or_later(world: World) -> None:
    world.put("a.txt", TEXT)
    world.put("folder/copy.txt", TEXT)
    world.ingest()
    embedded = world.embeddings.embedded
    assert embedded == len(world.chunks("a.txt"))
    world.put("later.txt", TEXT)
    world.ingest()
    assert world.embeddings.embedded == embedded
    assert world.audit().violations == []


def test_another_document_pays_for_the_paragraphs_it_does_not_share(world: World) -> None:
    world.put("a.txt", TEXT)
    world.ingest()
    world.embeddings.reset_counters()
    world.put("b.txt", TEXT + "\n\n" + paragraphs("beta", 2))
    world.ingest()
    assert 2 <= world.embeddings.embedded <= 3


def test_other_chunk_sizes_pay_for_new_texts_only(world: World) -> None:
    world.put("long.txt", TEXT)
    world.put("short.txt", "A short document is one chunk of any size.")
    world.ingest()
    World(world.database, world.settings.replace(chunk_size=700), world.embeddings).ingest()
    between = world.embeddings.embedded
    world.ingest()
    assert world.embeddings.embedded == between
    assert bought_twice(world) == []
    assert world.audit().violations == []


def test_a_file_that_is_reverted_costs_nothing_even_if_its_text_left_head(world: World) -> None:
    world.put("a.txt", TEXT)
    world.ingest()
    world.put("a.txt", paragraphs("other", 3))
    world.ingest()
    embedded = world.embeddings.embedded
    world.put("a.txt", TEXT)
    world.ingest()
    assert world.embeddings.embedded == embedded


def test_vectors_of_a_crashed_run_serve_other_documents_too(world: World) -> None:
    assert world.corpus
    world.put("a.txt", TEXT)
    assert Child(crash_jobs.ingest, world.address, kill_at=Place(Boundary.PREPARED, "before")).outcome().killed
    embedded = world.embeddings.embedded
    world.remove("a.txt")
    world.put("b.txt", TEXT)
    world.recover()
    world.sweep()
    world.ingest()
    assert world.embeddings.embedded == embedded
    world.check_nothing_left()


@pytest.mark.promise("edits-stay-local")
def test_vectors_of_another_model_or_width_or_prompt_are_never_used(world: World) -> None:
    hashed = text_hash("a text")
    prompted = world.settings.replace(document_prefix="passage: ").recipe.embedding
    with world.database.transaction() as connection:
        saga = sagas.begin(connection, generation=world.corpus.generation, kind=SagaKind.INGEST, base_version=1)
        recorded = UUID(int=7)
        embedding_cache.record_batch(
            connection,
            saga,
            ordinal=1,
            embedding=prompted,
            text_hashes=[recorded],
            checksum=b"",
            characters=1,
            usage=Usage(tokens=1, requests=1),
        )
        embedding_cache.record_batch(
            connection,
            saga,
            ordinal=0,
            embedding="other-model/32",
            text_hashes=[hashed],
            checksum=b"",
            characters=1,
            usage=Usage(tokens=1, requests=1),
        )

        def found(embedding: str) -> set[UUID]:
            recorded_texts = RecordedTexts(world.corpus.generation, embedding)
            recorded_texts.refresh(connection)
            return {text for text in (hashed, recorded) if text in recorded_texts}

        assert found("other-model/32") == {hashed}
        assert found(world.settings.recipe.embedding) == found("other-model/16") == set()
        assert found(prompted) == {recorded}


PARTS = [paragraphs(f"part{number}", 1) for number in range(40)]
KEYS = [f"{number}.txt" for number in range(5)]


def change(texts: dict[str, list[str]], chance: random.Random) -> None:
    """Do something to one of the documents, which are lists of paragraphs."""
    key = chance.choice(KEYS)
    there = texts.get(key)
    match chance.choice(["write", "insert", "cut", "copy", "remove", "poison"]):
        case "insert" if there:
            there.insert(chance.randrange(len(there) + 1), chance.choice(PARTS))
        case "cut" if there and len(there) > 1:
            there.pop(chance.randrange(len(there)))
        case "copy" if texts:
            texts[key] = list(texts[chance.choice(list(texts))])
        case "remove" if there:
            del texts[key]
        case "poison" if there:
            texts[key] = [*there, f"{POISON} is refused by the API."]
        case _:
            texts[key] = chance.sample(PARTS, 8)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_order_of_edits_renames_copies_and_removals_pays_twice(world: World, seed: int) -> None:
    chance = random.Random(seed)
    texts: dict[str, list[str]] = {}
    for _ in range(14):
        for _ in range(3):
            change(texts, chance)
        for key in KEYS:
            if key in texts:
                world.put(key, "\n\n".join(texts[key]))
            elif (Path(world.settings.source) / key).exists():
                world.remove(key)
        world.ingest()
        assert bought_twice(world) == []
    assert world.audit().violations == []


def test_a_run_finds_vectors_that_another_run_recorded_after_it_began(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is held up in the middle; the second buys the rest meanwhile, and dies before it publishes."""
    monkeypatch.setattr(prepare, "HEARTBEAT_SECONDS", 0.01)
    world.put("a.txt", paragraphs("first", 300))
    world.put("b.txt", TEXT)
    batches: Any = getattr(read_stage.ReadStage, "_batches")  # noqa: B009  it is private
    looked_around = watch(monkeypatch)

    def held_up(stage: Any, plans: Any) -> Iterator[Any]:
        for batch in batches(stage, plans):
            if "b.txt" in {document.plan.key for document in batch.documents}:
                other = Child(crash_jobs.ingest, world.address, ["b.txt"], kill_at=Place(Boundary.PREPARED, "before"))
                assert other.outcome().killed
                looked_around.clear()
                assert looked_around.wait(300)
            yield batch

    monkeypatch.setattr(read_stage.ReadStage, "_batches", held_up)
    world.ingest()
    assert bought_twice(world) == []


def test_two_concurrent_runs_find_each_others_vectors(world: World) -> None:
    mine, yours, ours = (Chunk(0, 0, len(text), text) for text in ("what I want", "what you want", "what both want"))

    async def prepare() -> None:
        async with OpenAIEmbedder(world.embedding_settings) as embedder, asyncio.TaskGroup() as tasks:
            with at_work(world) as first:
                me = VectorResolver(world.corpus, embedder, world.context.recipe, first)
                await me.start(tasks)
                with at_work(world) as second:
                    you = VectorResolver(world.corpus, embedder, world.context.recipe, second)
                    await you.start(tasks)
                    await take(me, mine)
                    await take(you, mine)
                    await take(you, yours)
                    await take(me, yours)
                    await asyncio.gather(take(me, ours), take(you, ours))

    async def take(resolver: VectorResolver, chunk: Chunk) -> None:
        (pending,) = await resolver.resolve([chunk])
        await resolver.flush()
        await pending.vector

    asyncio.run(prepare())
    assert (world.embeddings.texts[mine.text], world.embeddings.texts[yours.text]) == (1, 1)
    assert world.embeddings.texts[ours.text] in {1, 2}


@contextmanager
def at_work(world: World) -> Generator[UUID]:
    with world.database.transaction() as connection:
        saga = sagas.begin(connection, generation=world.corpus.generation, kind=SagaKind.INGEST, base_version=1)
    yield saga
    with world.database.transaction() as connection:
        sagas.mark_failed(connection, saga, "the test is over")


def watch(monkeypatch: pytest.MonkeyPatch) -> Event:
    """An event that is set whenever a preparation has looked around."""
    event, refresh_lookup_scope = Event(), VectorResolver.refresh_lookup_scope

    def noted(resolver: VectorResolver) -> None:
        refresh_lookup_scope(resolver)
        event.set()

    monkeypatch.setattr(VectorResolver, "refresh_lookup_scope", noted)
    return event
