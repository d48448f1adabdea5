"""The resource searches with the embedder and the reranker that its attributes name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ingest_pipeline import build_resources
from ingest_pipeline.resources.catalog import PostgresCatalogResource
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.search import CorpusSearchResource
from tests.support.world import World
from tests.unit.search.test_rerank_endpoint import Server

NAMES = ["alpha", "beta", "gamma"]


class ByName:
    """Prefers a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def rerank(self, question: str, texts: Sequence[str]) -> list[float]:
        assert question == "words"
        return [float(self.name in text) for text in texts]


@pytest.fixture
def searched(world: World) -> World:
    for name in NAMES:
        world.put(f"{name}.txt", f"{name} words " * (3 + len(name)))
    world.ingest()
    return world


def resource(world: World, rerank_url: str | None = None) -> CorpusSearchResource:
    catalog = PostgresCatalogResource(url=world.database.url)
    settings = world.embedding_settings
    return CorpusSearchResource(
        lancedb=VersionedLanceDBResource(uri=world.settings.lancedb_uri, catalog=catalog),
        embedder=OpenAIEmbedderResource(
            model=settings.model, dimensions=settings.dimensions, base_url=settings.base_url, api_key="key"
        ),
        rerank_url=rerank_url,
    )


def test_an_embedder_of_the_user_embeds_the_question(world: World) -> None:
    settings = world.settings.replace(embedder="tests.support.user_code.NotingEmbedder")
    found = World(world.database, settings, world.embeddings)
    for name in NAMES:
        found.put(f"{name}.txt", f"{name} words")
    found.ingest()
    catalog = PostgresCatalogResource(url=world.database.url)
    lancedb = VersionedLanceDBResource(uri=settings.lancedb_uri, catalog=catalog)
    searching = CorpusSearchResource(lancedb=lancedb, embedder=build_resources(settings).embedder)
    hits = searching.search(settings.corpus, "beta words", mode="vector")
    assert (hits[0].document, round(hits[0].score, 3)) == ("beta.txt", 1.0)
    assert world.embeddings.requests == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_reranker_that_is_passed_decides_the_order(searched: World, name: str) -> None:
    hits = resource(searched).search(searched.corpus.name, "words", mode="text", limit=2, reranker=ByName(name))
    assert (hits[0].document, hits[0].rerank_score) == (f"{name}.txt", 1.0)
    assert len(hits) == 2


def test_the_endpoint_decides_the_order_unless_a_reranker_is_passed(searched: World) -> None:
    server = Server()
    try:
        found = resource(searched, server.url)
        hits = found.search(searched.corpus.name, "words", where=["key=*a.txt"], limit=3)
        # The endpoint of the test prefers long texts.
        assert [len(hit.text) for hit in hits] == sorted((len(hit.text) for hit in hits), reverse=True)
        assert [request["query"] for request in server.requests] == ["words"]
        found.search(searched.corpus.name, "words", reranker=ByName("beta"))
        assert len(server.requests) == 1
    finally:
        server.close()
    assert all(hit.rerank_score is None for hit in resource(searched).search(searched.corpus.name, "words"))
