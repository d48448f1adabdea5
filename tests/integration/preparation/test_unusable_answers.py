"""Answers that cannot be used: how little is bought of them, and that what was billed for them is known."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ingest_pipeline.errors import EmbeddingResponseError
from ingest_pipeline.postgres.catalog import reports
from ingest_pipeline.postgres.ledger.embedding_cache import is_served
from ingest_pipeline.preparation.vectors import requests
from tests.support.servers import embedding_server
from tests.support.servers.embedding_server import POISON, Fault
from tests.support.world import World, paragraphs

BILLED = [Fault.WRONG_WIDTH, Fault.WRONG_COUNT, Fault.NAN]


def totals(world: World) -> dict[str, Any]:
    with world.database.transaction() as connection:
        return reports.totals(connection, world.corpus.generation)


def in_another_width(world: World) -> World:
    """The same with settings that ask the model for a width that it does not have."""
    settings = world.settings.replace(embedding_dimensions=world.embeddings.dimensions + 1)
    return World(world.database, settings, world.embeddings)


@pytest.mark.promise("wrong-settings")
def test_a_wrong_width_costs_one_text(world: World) -> None:
    wrong = in_another_width(world)
    for number in range(30):
        wrong.put(f"{number}.txt", paragraphs(f"topic{number}", 10))
    with pytest.raises(EmbeddingResponseError, match="32 dimensions instead of 33"):
        wrong.ingest()
    assert wrong.embeddings.embedded == 1
    spent = totals(wrong)
    assert spent["tokens"] == spent["unusable_tokens"] == wrong.embeddings.tokens > 0
    assert (spent["requests"], spent["embedded"]) == (1, 0)


def test_a_known_endpoint_gets_no_single_text_first(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 8))
    world.ingest()
    assert world.embeddings.requests == 2
    world.put("b.txt", paragraphs("beta", 8))
    world.ingest()
    assert world.embeddings.requests == 3
    assert world.embeddings.texts.most_common(1)[0][1] == 1, "the text that went ahead is kept"


@pytest.mark.promise("wrong-settings")
def test_an_endpoint_that_went_wrong_gets_one_text_before_the_next_batch(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 2))
    world.ingest()
    world.put("b.txt", paragraphs("beta", 40))
    world.embeddings.fail_next(Fault.WRONG_WIDTH, times=99)
    with pytest.raises(EmbeddingResponseError):
        world.ingest()
    embedded = world.embeddings.embedded
    with pytest.raises(EmbeddingResponseError):
        world.ingest()
    assert world.embeddings.embedded == embedded + 1
    assert totals(world)["tokens"] == world.embeddings.tokens


@pytest.mark.promise("billed")
@pytest.mark.parametrize("fault", BILLED)
def test_billed_tokens_of_an_unusable_answer_and_of_requests_in_flight_are_recorded(
    world: World, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = embedding_server.EmbeddingServer._reply  # pyright: ignore[reportPrivateUsage]

    def late_if_good(server: Any, connection: Any, body: bytes, what: Fault | None) -> None:
        time.sleep(0.0 if what else 0.3)
        reply(server, connection, body, what)

    monkeypatch.setattr(requests, "_LAST_ANSWERS_SECONDS", 120.0)  # a slow machine must not look like a silent endpoint
    world.put("a.txt", paragraphs("alpha", 2))
    world.ingest()
    world.put("b.txt", paragraphs("beta", 120))
    monkeypatch.setattr(embedding_server.EmbeddingServer, "_reply", late_if_good)
    world.embeddings.fail_next(fault)
    with pytest.raises(EmbeddingResponseError):
        world.ingest()
    spent = totals(world)
    assert spent["tokens"] == world.embeddings.tokens
    assert spent["requests"] == world.embeddings.requests
    assert 0 < spent["unusable_tokens"] < spent["tokens"]


@pytest.mark.promise("billed")
def test_an_answer_that_breaks_off_after_its_usage_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    send = embedding_server._send_part  # pyright: ignore[reportPrivateUsage]

    def cut_at_the_end(connection: Any, body: bytes, *, declared_as_whole: bool) -> None:
        send(connection, body[:-1] * 2, declared_as_whole=declared_as_whole)

    monkeypatch.setattr(embedding_server, "_send_part", cut_at_the_end)
    world.put("a.txt", paragraphs("alpha", 1))
    world.embeddings.fail_next(Fault.TRUNCATED_JSON, times=2)
    world.ingest()
    assert totals(world)["tokens"] == world.embeddings.tokens


def test_a_text_that_is_refused_proves_nothing_about_the_endpoint(world: World) -> None:
    world.put("a.txt", f"{POISON} is refused.")
    assert list(world.ingest().failed) == ["a.txt"]
    endpoint = world.embeddings.base_url
    with world.database.transaction() as connection:
        assert not is_served(connection, endpoint + "/", world.context.recipe.embedding)
    world.put("a.txt", "It is taken.")
    world.ingest()
    with world.database.transaction() as connection:
        assert is_served(connection, endpoint + "/", world.context.recipe.embedding)


def test_unusable_answers_do_not_change_the_measured_tokens_per_character(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 8))
    world.embeddings.fail_next(Fault.NAN)
    with pytest.raises(EmbeddingResponseError):
        world.ingest()
    world.ingest()
    with world.database.transaction() as connection:
        row = connection.execute(
            "SELECT sum(tokens)::float / sum(embedded_characters) AS ratio FROM ingest_pipeline.saga"
        ).fetchone()
    assert row is not None
    assert 0.2 < row["ratio"] < 0.3
