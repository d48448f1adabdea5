"""Parsers, chunkers and enrichers of the user in an ingest: what is published, what fails, what is done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest_pipeline.errors import DocumentError, SpendingLimitError
from ingest_pipeline.ingestion.recipe_guard import RecipeGuard
from ingest_pipeline.maintenance.retention import retain
from ingest_pipeline.types import Retention
from tests.support.world import World, paragraphs

MODULE = "tests.support.user_code"


def own(world: World, **options: object) -> World:
    """The same corpus with extensions."""
    return World(world.database, world.settings.replace(**options), world.embeddings)


def costly(calls: Path, **arguments: object) -> dict[str, object]:
    return {"class": f"{MODULE}.Costly", "arguments": {"calls": str(calls), **arguments}}


def calls_in(calls: Path) -> int:
    return len(calls.read_text().splitlines()) if calls.exists() else 0


def results(world: World) -> int:
    with world.database.transaction() as connection:
        row = connection.execute("SELECT count(*)::int AS n FROM ingest_pipeline.extension_result").fetchone()
    assert row is not None
    return int(row["n"])


def test_a_parser_wins_over_the_built_in_formats_and_other_documents_are_read_as_before(world: World) -> None:
    found = own(world, parser={"class": f"{MODULE}.Lines", "arguments": {"upper": True}})
    found.put("a.lines", "some words\nmore words\n")
    found.put("b.txt", "plain words")
    found.ingest()
    assert found.texts() == {"a.lines": "SOME WORDS\nMORE WORDS", "b.txt": "plain words"}
    found.check()


def test_a_chunker_cuts_the_documents_of_all_formats(world: World) -> None:
    found = own(world, chunker=f"{MODULE}.ObedientChunker")
    found.put("a.txt", "first line\nsecond line\n\nlast")
    found.ingest()
    assert [(chunk.start_offset, chunk.end_offset) for chunk in found.chunks("a.txt")] == [(0, 11), (11, 23), (24, 28)]
    found.check()


@pytest.mark.promise("user-code")
@pytest.mark.parametrize("option", ["parser", "chunker", "enricher"])
def test_nonsense_fails_its_document_alone_and_is_tried_again_with_another_recipe(world: World, option: str) -> None:
    name = {"parser": "Obedient", "chunker": "ObedientChunker", "enricher": "ObedientEnricher"}[option]
    found = own(world, **{option: f"{MODULE}.{name}"})
    for key, text in (("a.do", "raise"), ("b.do", "die"), ("c.do", "fine"), ("d.txt", "fine too")):
        found.put(key, text)
    summary = found.ingest()
    assert set(summary.failed) == {"a.do", "b.do"}
    assert set(found.texts()) == {"c.do", "d.txt"}
    reasons = {error.reason for _, error in summary.failed.values() if isinstance(error, DocumentError)}
    assert reasons == {"not enriched" if option == "enricher" else "refused by an extension"}
    found.check()
    assert set(world.ingest().failed) == set()
    assert set(world.texts()) == {"a.do", "b.do", "c.do", "d.txt"}


def test_another_fingerprint_of_a_parser_makes_only_its_documents_stale(world: World) -> None:
    keys = [f"{number}.txt" for number in range(15)]
    for key in keys:
        world.put(key, f"text {key}")
    world.put("a.lines", "some words")
    world.ingest()
    first = own(world, parser=f"{MODULE}.Lines")
    guard = RecipeGuard(first.context)
    assert guard.error is None
    guard.accept()
    assert [document.plan.key for one in first.ingest().publications for document in one.documents] == ["a.lines"]
    again = own(world, parser={"class": f"{MODULE}.Lines", "arguments": {"upper": True, "fingerprint": "lines-2"}})
    assert RecipeGuard(again.context).error is None
    assert [document.plan.key for one in again.ingest().publications for document in one.documents] == ["a.lines"]
    assert again.text_at("a.lines") == "SOME WORDS"
    assert again.ingest().publications == []


def test_another_chunker_makes_all_documents_stale_and_has_to_be_confirmed(world: World) -> None:
    for number in range(15):
        world.put(f"{number}.txt", f"text {number}")
    world.ingest()
    RecipeGuard(world.context).accept()
    found = own(world, chunker=f"{MODULE}.ObedientChunker")
    error = RecipeGuard(found.context).error
    assert error is not None
    assert "INGEST_CHUNKER (chunker) from None to obedient-chunker" in str(error)
    assert "INGEST_PARSER" not in str(error)


def test_a_rollback_holds_a_document_with_the_recipe_of_its_suffix(world: World) -> None:
    found = own(world, parser=f"{MODULE}.Lines")
    for words in ("first", "second"):
        found.put("a.lines", words)
        found.put("b.txt", words)
        found.ingest()
    found.roll_back(found.head - 1)
    assert found.texts() == {"a.lines": "first", "b.txt": "first"}
    assert found.ingest().publications == []
    other = {"class": f"{MODULE}.Lines", "arguments": {"fingerprint": "lines-2"}}
    assert set(own(world, parser=other).ingest().publications[0].documents[0].plan.key) == set("a.lines")


def test_a_durable_result_is_paid_once_whatever_becomes_of_the_document(world: World, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    found = own(world, enricher=costly(calls))
    found.put("a.txt", "some words")
    found.ingest()
    found.put("copy.txt", "some words")
    found.ingest()
    found.remove("a.txt")
    found.ingest()
    own(world, enricher=costly(calls), chunk_size=200).ingest()
    assert calls_in(calls) == 1
    own(world, enricher=costly(calls, fingerprint="costly-2")).ingest()
    assert calls_in(calls) == 2
    found.check()


def test_an_enrichers_usage_is_counted_and_limited(world: World, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    found = own(world, enricher=costly(calls, tokens=600), max_tokens_per_day=1000)
    for number in range(6):
        found.put(f"{number}.txt", paragraphs(str(number), 1))
    with pytest.raises(SpendingLimitError, match="INGEST_MAX_TOKENS_PER_DAY"):
        found.ingest()
    assert calls_in(calls) < 6
    with world.database.transaction() as connection:
        row = connection.execute(
            "SELECT sum(extension_tokens)::int AS tokens, sum(extension_requests)::int AS requests "
            "FROM ingest_pipeline.saga"
        ).fetchone()
    assert row == {"tokens": 600 * calls_in(calls), "requests": calls_in(calls)}
    before = calls_in(calls)
    own(world, enricher=costly(calls, tokens=600), max_tokens_per_day=0).ingest()
    assert calls_in(calls) == 6
    assert before > 0


def test_retention_forgets_results_of_documents_that_are_gone(world: World, tmp_path: Path) -> None:
    found = own(world, enricher=costly(tmp_path / "calls"))
    found.put("a.txt", "some words")
    found.put("b.txt", "other words")
    found.ingest()
    found.remove("a.txt")
    found.ingest()
    found.put("c.txt", "more words")
    found.ingest()
    assert results(found) == 3
    with world.database.transaction() as connection:
        connection.execute("UPDATE ingest_pipeline.extension_result SET used_at = used_at - interval '8 days'")
    retain(found.corpus, Retention(0, 1))
    assert results(found) == 2
    retain(found.corpus, Retention(0, 1))
    assert results(found) == 2
