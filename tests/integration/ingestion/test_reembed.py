"""A corpus moves to another embedding model: beside the current table, hidden from readers until it is complete."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest_pipeline.errors import (
    ConfigurationError,
    CorpusMismatchError,
    GenerationRetiredError,
    ReembeddingIncompleteError,
    RemovalsWithheldError,
)
from ingest_pipeline.ingestion import reembed
from ingest_pipeline.ingestion.context import release_holds
from ingest_pipeline.ingestion.reembed import begin, estimate_reembedding
from ingest_pipeline.maintenance.sweep import sweep
from ingest_pipeline.planning import source_comparison
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.saga.generations import abort, drop, drop_retired, list_generations, other_generations
from ingest_pipeline.saga.recover import recover
from tests.support.crash.migrating import EMBEDDING, WIDTH, address_after, look, migrate, moved, world_after
from tests.support.servers.embedding_server import NARROWING_MODEL, POISON
from tests.support.world import World, paragraphs


def sight(world: World) -> Any:
    return look(world.database, "docs", world.settings.lancedb_uri)


def states(world: World) -> dict[str, str]:
    return {found.name: found.state for found in list_generations(world.database, "docs")}


@pytest.fixture
def filled(world: World) -> World:
    for number in range(3):
        world.put(f"{number}.txt", paragraphs(f"topic{number}", 2 + number))
    world.ingest()
    world.embeddings.reset_counters()
    return world


@pytest.fixture(params=["folder", "bucket:2"])
def shared(world: World, request: pytest.FixtureRequest) -> World:
    """Its documents share partitions."""
    world.settings = world.settings.replace(partition_by=request.param)
    for key in ("a/1.txt", "a/2.txt", "b/1.txt", "b/deep/2.txt", "top.txt"):
        world.put(key, paragraphs(key, 2))
    world.ingest()
    world.embeddings.reset_counters()
    return world


def partitions(world: World, generation: str) -> dict[str, str]:
    """Of the documents at a generation's head."""
    with world.database.transaction() as connection:
        latest = documents.latest_documents(connection, generation)
    return {document.key: document.partition for document in latest if not document.removed}


def test_readers_switch_to_the_new_model_and_see_the_same_documents(filled: World) -> None:
    before = sight(filled)
    texts = filled.texts()
    assert migrate(filled.database, address_after(filled)) == {}
    after, new = sight(filled), world_after(filled)
    assert (before.table_name, before.width) == ("docs", 32)
    assert (after.table_name, after.width, after.embedding) == ("docs-2", WIDTH, EMBEDDING)
    assert after.documents == after.rows == before.documents
    assert new.texts() == texts
    assert states(filled) == {"docs": "retired", "docs-2": "current"}
    new.check()
    new.ingest()
    assert filled.embeddings.embedded == sum(count for _, count in before.documents)
    new.check_nothing_left()


def test_another_model_in_the_settings_changes_nothing_by_itself(filled: World) -> None:
    """Documents are kept up to date with the model that the corpus has."""
    other = world_after(filled)
    assert other.context.recipe.embedding == filled.context.recipe.embedding
    filled.put("0.txt", paragraphs("edited", 2))
    filled.ingest()
    other.put("1.txt", "with vectors of the other model")
    with pytest.raises(CorpusMismatchError):
        other.ingest()
    assert sight(filled).width == 32
    assert states(filled) == {"docs": "current"}


def test_readers_do_not_see_the_new_generation_and_concurrent_edits_are_included(filled: World) -> None:
    migrate(filled.database, address_after(filled), then_switch=False)
    assert sight(filled).table_name == "docs"
    filled.put("0.txt", paragraphs("edited", 5))
    filled.remove("1.txt")
    filled.put("new.txt", paragraphs("new", 1))
    filled.ingest()
    seen = sight(filled)
    embedded = filled.embeddings.embedded
    migrate(filled.database, address_after(filled))
    assert sight(filled).documents == seen.documents == sight(filled).rows
    assert filled.embeddings.embedded - embedded == sum(n for key, n in seen.documents if key in ("0.txt", "new.txt"))
    world_after(filled).check_nothing_left()


def test_publications_during_the_comparison_of_generations_are_included(
    filled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch, published = reembed.switch, iter(["first", "second"])

    def publish_then_switch(*arguments: Any) -> bool:
        if topic := next(published, None):
            filled.put("0.txt", paragraphs(topic, 3))
            filled.put(f"{topic}.txt", paragraphs(topic, 1))
            filled.ingest()
        return switch(*arguments)

    monkeypatch.setattr(reembed, "switch", publish_then_switch)
    migrate(filled.database, address_after(filled))
    assert {key for key, _ in sight(filled).documents} >= {"first.txt", "second.txt"}
    assert world_after(filled).text_at("0.txt").startswith("second 0.")


def test_a_document_removed_meanwhile_leaves_both_generations(filled: World) -> None:
    migrate(filled.database, address_after(filled), then_switch=False)
    filled.remove("1.txt")
    migrate(filled.database, address_after(filled))
    assert [key for key, _ in sight(filled).documents] == ["0.txt", "2.txt"]
    assert sight(filled).rows == sight(filled).documents


def test_readers_are_not_switched_if_the_source_lacks_most_documents(world: World) -> None:
    for number in range(30):
        world.put(f"{number}.txt", f"text {number}")
    world.ingest()
    for number in range(1, 30):
        world.remove(f"{number}.txt")
    with pytest.raises(RemovalsWithheldError):
        migrate(world.database, address_after(world))
    assert len(sight(world).documents) == 30
    assert sight(world).table_name == "docs"


def test_readers_stay_if_the_new_generation_cannot_take_a_document(filled: World) -> None:
    filled.put("1.txt", "\0")
    assert list(filled.ingest().failed) == ["1.txt"]
    seen = sight(filled)
    with pytest.raises(ReembeddingIncompleteError, match=r"1\.txt"):
        migrate(filled.database, address_after(filled))
    assert sight(filled) == seen
    filled.put("1.txt", "Text again.")
    migrate(filled.database, address_after(filled))
    assert sight(filled).table_name == "docs-2"
    assert len(sight(filled).documents) == 3


def test_an_aborted_reembedding_does_not_affect_readers_and_its_repetition_embeds_nothing(filled: World) -> None:
    seen, head = sight(filled), filled.head
    migrate(filled.database, address_after(filled), then_switch=False)
    embedded = filled.embeddings.embedded
    (beside,) = other_generations(filled.corpus)
    abort(beside)
    assert (sight(filled), filled.head) == (seen, head)
    assert states(filled) == {"docs": "current", "docs-2": "retired"}
    with pytest.raises(GenerationRetiredError):
        abort(beside)
    migrate(filled.database, address_after(filled))
    assert sight(filled).table_name == "docs-2"
    assert filled.embeddings.embedded == embedded


def test_a_reembedding_can_be_reverted_until_the_old_generation_is_dropped(filled: World) -> None:
    migrate(filled.database, address_after(filled))
    new = world_after(filled)
    edited = new.put("0.txt", paragraphs("edited", 2))
    new.ingest()
    embedded = filled.embeddings.embedded
    migrate(filled.database, filled.address)
    assert (sight(filled).table_name, sight(filled).width) == ("docs", 32)
    assert filled.embeddings.embedded - embedded == dict(sight(filled).documents)["0.txt"]
    back = world_after(filled, filled.settings)
    assert "".join(back.text_at("0.txt").split()) == "".join(edited.read_text().split())
    assert states(filled) == {"docs": "current", "docs-2": "retired"}


def test_a_retired_generation_is_dropped_after_a_week_or_at_once(filled: World) -> None:
    migrate(filled.database, address_after(filled))
    new = world_after(filled)
    assert drop_retired(new.corpus) == []
    assert drop_retired(new.corpus, kept=timedelta()) == ["docs"]
    assert not [path for path in Path(filled.settings.table_uri).rglob("*") if path.is_file()]
    assert states(filled) == {"docs": "dropped", "docs-2": "current"}
    with filled.database.transaction() as connection:
        kept = connection.execute(
            "SELECT (SELECT count(*) FROM ingest_pipeline.document WHERE generation = 'docs') AS documents, "
            "(SELECT sum(embedded) FROM ingest_pipeline.saga WHERE generation = 'docs') AS embedded"
        ).fetchone()
    assert kept is not None
    assert kept["documents"] == 0
    assert kept["embedded"] > 0
    new.ingest()
    new.check_nothing_left()
    migrate(filled.database, filled.address)
    assert sight(filled).table_name == "docs-3"


def test_the_current_generation_cannot_be_dropped_or_aborted(filled: World) -> None:
    for forbidden in (abort, drop):
        with pytest.raises(GenerationRetiredError):
            forbidden(filled.corpus)
    assert sight(filled).rows


def test_a_corpus_is_reembedded_with_one_model_at_a_time(filled: World) -> None:
    begin(filled.database, moved(filled.settings))
    third = filled.settings.with_embedding(f"{NARROWING_MODEL}/8")
    with pytest.raises(CorpusMismatchError, match="--abort"):
        begin(filled.database, third)
    with pytest.raises(ConfigurationError, match="already"):
        begin(filled.database, filled.settings)
    (beside,) = other_generations(filled.corpus)
    abort(beside)
    migrate(filled.database, world_after(filled, third).address)
    assert (sight(filled).table_name, sight(filled).width) == ("docs-3", 8)


def test_a_generation_is_filled_page_by_page(filled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_comparison, "MAX_PAGE_DOCUMENTS", 1)
    for number in (0, 2):
        filled.put(f"{number}.txt", f"{POISON} is refused by the API, and so is document {number}.")
    failed = migrate(filled.database, address_after(filled), then_switch=False)
    assert sorted(failed) == ["0.txt", "2.txt"]
    (beside,) = other_generations(filled.corpus)
    with filled.database.transaction() as connection:
        there = documents.latest_documents(connection, beside.generation)
    assert [one.key for one in there] == ["1.txt"]


def test_the_cost_of_a_reembedding_is_estimated_before_and_during_it(filled: World) -> None:
    settings = moved(filled.settings)
    priced = settings.replace(embedding_prices=f"{NARROWING_MODEL} 10 USD 2026-11-01")
    assert estimate_reembedding(filled.context, filled.settings) is None
    foreseen = estimate_reembedding(filled.context, priced)
    assert foreseen is not None
    assert foreseen.documents == 3
    assert foreseen.cost is not None
    assert states(filled) == {"docs": "current"}
    migrate(filled.database, address_after(filled), then_switch=False)
    assert abs(foreseen.tokens - filled.embeddings.tokens) <= filled.embeddings.tokens / 5
    filled.put("1.txt", paragraphs("edited", 1))
    rest = estimate_reembedding(filled.context, priced)
    assert rest is not None
    assert rest.documents == 1


def test_sagas_and_orphan_files_of_a_generation_that_is_filled_are_settled(filled: World) -> None:
    migrate(filled.database, address_after(filled), then_switch=False)
    (beside,) = other_generations(filled.corpus)
    with filled.database.transaction() as connection:
        saga = sagas.begin(connection, generation=beside.generation, kind=SagaKind.INGEST, base_version=1)
    beside.table.stage(f"{saga}-0.lance", beside.table.schema.empty_table())
    assert recover(beside, silence=0).abandoned == [saga]
    assert sweep(beside).files == [f"data/{saga}-0.lance"]


def test_documents_that_share_partitions_switch_together_and_concurrent_edits_are_included(shared: World) -> None:
    before = sight(shared)
    migrate(shared.database, address_after(shared), then_switch=False)
    assert sight(shared) == before
    assert shared.embeddings.embedded == sum(count for _, count in before.documents)
    shared.put("a/1.txt", paragraphs("edited", 3))
    shared.remove("b/1.txt")
    shared.put("b/new.txt", paragraphs("new", 1))
    shared.ingest()
    seen, embedded = sight(shared), shared.embeddings.embedded
    assert seen.table_name == "docs"
    migrate(shared.database, address_after(shared))
    assert sight(shared).table_name == "docs-2"
    assert sight(shared).documents == sight(shared).rows == seen.documents
    edited = sum(count for key, count in seen.documents if key in ("a/1.txt", "b/new.txt"))
    assert shared.embeddings.embedded == embedded + edited, "the others of their partitions were there already"
    assert partitions(shared, "docs-2") == partitions(shared, "docs")
    new = world_after(shared)
    assert Planner(new.context).plans() == []
    new.check_nothing_left()


def test_one_bad_document_of_a_shared_partition_prevents_the_switch_until_it_is_fixed(shared: World) -> None:
    shared.put("a/2.txt", "\0")
    assert list(shared.ingest().failed) == ["a/2.txt"]
    seen = sight(shared)
    with pytest.raises(ReembeddingIncompleteError, match=r"1 document .*a/2\.txt"):
        migrate(shared.database, address_after(shared))
    assert sight(shared) == seen
    assert partitions(shared, "docs-2").keys() == partitions(shared, "docs").keys() - {"a/2.txt"}
    embedded = shared.embeddings.embedded
    shared.put("a/2.txt", "Mended.")
    migrate(shared.database, address_after(shared))
    assert (sight(shared).table_name, shared.embeddings.embedded) == ("docs-2", embedded + 1)
    world_after(shared).check_nothing_left()


def test_a_reembedding_does_not_change_the_partition_scheme(shared: World) -> None:
    """It is refused before anything is made or bought, and the message says what to do."""
    before = sight(shared)
    for scheme in ("file", "folder:2", "bucket:3"):
        there = replace(address_after(shared), settings=moved(shared.settings).replace(partition_by=scheme))
        with pytest.raises(CorpusMismatchError, match="partition scheme") as refused:
            migrate(shared.database, there)
        assert "Set INGEST_PARTITION_BY (of a component: partition_by) back" in str(refused.value)
        assert repr(scheme) in str(refused.value)
    assert (sight(shared), states(shared), shared.embeddings.embedded) == (before, {"docs": "current"}, 0)
    migrate(shared.database, address_after(shared))
    with pytest.raises(CorpusMismatchError, match="Corpus 'docs' has partition scheme"):
        world_after(shared, moved(shared.settings).replace(partition_by="file")).ingest()
    world_after(shared).check()


@pytest.mark.promise("reembedding")
@pytest.mark.parametrize("change", ["edited", "removed"])
def test_a_rollback_is_not_undone_by_a_reembedding(filled: World, change: str) -> None:
    good, before = filled.head, filled.texts()
    if change == "edited":
        filled.put("0.txt", paragraphs("spoilt", 1))
    else:
        filled.remove("0.txt")
    filled.ingest()
    filled.roll_back(good)
    with pytest.raises(ReembeddingIncompleteError, match=r"rolled back.*0\.txt.*retry"):
        migrate(filled.database, address_after(filled))
    assert (filled.texts(), sight(filled).table_name) == (before, "docs")
    release_holds(filled.corpus, ["0.txt"])
    filled.ingest()
    migrate(filled.database, address_after(filled))
    assert world_after(filled).texts() == filled.texts() != before
