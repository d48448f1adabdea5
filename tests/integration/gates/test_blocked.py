"""A publication that does not pass its gates: kept, hidden from readers, released, dropped or overtaken."""

from __future__ import annotations

from uuid import UUID

import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.erasure.erase import erase
from ingest_pipeline.errors import ConfigurationError, FencedError, GenerationRetiredError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog import gates
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.saga.blocked import blocked_publications, drop_publication, release_publication
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.world import World, paragraphs

pytestmark = pytest.mark.promise("gates")


@pytest.fixture
def gated(world: World) -> World:
    """Three documents at head, and a gate that lets no document be lost."""
    for name in ("alpha", "beta", "gamma"):
        world.put(f"{name}.txt", paragraphs(name, 2))
    world.ingest()
    return World(world.database, world.settings.replace(gate_max_lost=0), world.embeddings)


def lose(world: World, name: str = "alpha") -> UUID:
    """Empty a document, and edit another; returns the blocked saga."""
    world.put(f"{name}.txt", "")
    world.put("beta.txt", paragraphs("new beta", 3))
    summary = world.ingest()
    assert summary.publications == []
    (blocked,) = summary.blocked
    assert sorted(plan.key for plan in blocked.plans) == sorted([f"{name}.txt", "beta.txt"])
    return blocked.saga


def state_of(world: World, saga: UUID) -> sagas.SagaState:
    with world.database.transaction() as connection:
        row = sagas.read(connection, saga)
    assert row is not None
    return row.state


def test_it_is_kept_with_its_findings_and_no_reader_sees_it(gated: World) -> None:
    head, texts = gated.head, gated.texts()
    saga = lose(gated)
    assert (gated.head, gated.texts()) == (head, texts)
    (found,) = blocked_publications(gated.corpus)
    assert (found.saga, found.documents, found.removed, found.head_version) == (saga, 2, 0, head)
    (finding,) = found.findings
    assert (finding.figure, finding.value, finding.limit, finding.passed) == ("lost", 1, 0, False)
    assert finding.ids == ("alpha.txt",)
    assert gated.recover().abandoned == []
    gated.sweep()
    gated.check()
    assert state_of(gated, saga) == sagas.SagaState.BLOCKED


def test_runs_and_sensors_skip_it_until_a_document_changes(gated: World) -> None:
    lose(gated)
    page = Planner(gated.context).page()
    assert (page.plans, [plan.key for plan in page.blocked]) == ([], ["alpha.txt", "beta.txt"])
    assert page.unchanged(["alpha.txt", "gamma.txt"]) == ["gamma.txt"]
    assert gated.ingest().blocked == []
    gated.put("alpha.txt", paragraphs("alpha again", 1))
    assert [plan.key for plan in Planner(gated.context).plans()] == ["alpha.txt"]


def test_a_release_publishes_what_was_judged_and_embeds_nothing(gated: World, embeddings: EmbeddingServer) -> None:
    saga = lose(gated)
    gated.sweep()
    gated.put("beta.txt", paragraphs("even newer", 1))
    before = embeddings.embedded
    version = release_publication(gated.corpus, saga)
    assert (gated.head, embeddings.embedded) == (version, before)
    assert "new beta 2." in gated.text_at("beta.txt")
    assert gated.text_at("alpha.txt") == ""
    assert state_of(gated, saga) == sagas.SagaState.PUBLISHED
    gated.check()
    assert [plan.key for plan in Planner(gated.context).plans()] == ["beta.txt"]
    with pytest.raises(ConfigurationError, match="has no blocked publication"):
        release_publication(gated.corpus, saga)
    gated.ingest()
    gated.check_nothing_left()


def test_what_is_dropped_is_planned_again_and_embeds_nothing(gated: World, embeddings: EmbeddingServer) -> None:
    saga = lose(gated)
    before = embeddings.embedded
    drop_publication(gated.corpus, saga)
    assert state_of(gated, saga) == sagas.SagaState.FAILED
    with pytest.raises(ConfigurationError):
        drop_publication(gated.corpus, saga)
    assert blocked_publications(gated.corpus) == []
    gated.put("alpha.txt", paragraphs("alpha", 2))
    gated.ingest()
    assert embeddings.embedded == before
    assert "new beta" in gated.text_at("beta.txt")
    gated.check_nothing_left()


def test_the_next_good_publication_of_a_document_overtakes_it(gated: World, embeddings: EmbeddingServer) -> None:
    saga = lose(gated)
    gated.put("alpha.txt", paragraphs("alpha again", 1))
    gated.ingest()
    assert state_of(gated, saga) == sagas.SagaState.FAILED
    before = embeddings.embedded
    with pytest.raises(ConfigurationError):
        release_publication(gated.corpus, saga)
    assert [plan.key for plan in Planner(gated.context).plans()] == ["beta.txt"], "the rest is planned again"
    gated.ingest()
    assert embeddings.embedded == before
    gated.check_nothing_left()


def test_a_later_blocked_one_takes_its_place(gated: World) -> None:
    saga = lose(gated)
    gated.put("alpha.txt", " ")
    (blocked,) = gated.ingest().blocked
    assert state_of(gated, saga) == sagas.SagaState.FAILED
    assert [one.saga for one in blocked_publications(gated.corpus)] == [blocked.saga]


def test_a_document_that_is_named_is_judged_again(gated: World) -> None:
    saga = lose(gated)
    page = Planner(gated.context).partitions(["alpha.txt"])
    assert page.plans == []
    page.judge_again()
    assert [plan.key for plan in page.plans] == ["alpha.txt"]
    assert state_of(gated, saga) == sagas.SagaState.BLOCKED


def test_a_rollback_of_a_document_overtakes_it(gated: World) -> None:
    first = gated.head
    gated.put("beta.txt", paragraphs("second beta", 1))
    gated.ingest()
    saga = lose(gated)
    gated.roll_back(first, "beta.txt")
    assert state_of(gated, saga) == sagas.SagaState.FAILED


def test_an_erasure_ends_it_and_leaves_no_name_of_its_documents(gated: World) -> None:
    saga = lose(gated)
    erase(gated.corpus, ["alpha.txt"], reason="a request")
    assert state_of(gated, saga) == sagas.SagaState.ABANDONED
    with gated.database.transaction() as connection:
        rows = connection.execute("SELECT j::text AS row FROM ingest_pipeline.gate_judgement j").fetchall()
    assert len(rows) == 1
    assert "alpha" not in rows[0]["row"]
    with pytest.raises(ConfigurationError):
        release_publication(gated.corpus, saga)
    gated.check_nothing_left()


def test_removals_are_blocked_and_released(world: World) -> None:
    gated = World(world.database, world.settings.replace(gate_max_removed=0.3), world.embeddings)
    for name in "abcd":
        gated.put(f"{name}.txt", paragraphs(name, 1))
    gated.ingest()
    gated.remove("a.txt")
    gated.remove("b.txt")
    (blocked,) = gated.ingest().blocked
    (found,) = blocked_publications(gated.corpus)
    assert (found.removed, found.findings[0].ids, found.findings[0].value) == (2, ("a.txt", "b.txt"), 0.5)
    assert Planner(gated.context).plans() == []
    release_publication(gated.corpus, blocked.saga)
    assert set(gated.texts()) == {"c.txt", "d.txt"}
    gated.check_nothing_left()


def test_columns_that_changed_since_refuse_a_release(gated: World) -> None:
    saga = lose(gated)
    other = World(gated.database, gated.settings.replace(columns={"year": "int"}), gated.embeddings)
    assert other.context.columns
    with pytest.raises(GenerationRetiredError, match="year"):
        release_publication(other.corpus, saga)
    assert state_of(other, saga) == sagas.SagaState.BLOCKED
    drop_publication(other.corpus, saga)


@pytest.mark.parametrize("is_published", [False, True])
def test_a_zombie_that_wakes_after_its_judgement_is_fenced_and_plans_again(gated: World, is_published: bool) -> None:
    """It was taken for dead; then, if another publication of its document came first, it cannot even find that out."""
    gated.put("alpha.txt", "")

    def meanwhile(boundary: Boundary, side: str) -> None:
        if (boundary, side) != (Boundary.BLOCKED, "before"):
            return
        failpoints.install(None)
        if is_published:
            ungated = World(gated.database, gated.settings.replace(gate_max_lost=None), gated.embeddings)
            assert len(ungated.ingest().publications) == 1
        else:
            assert len(gated.recover().abandoned) == 1

    failpoints.install(meanwhile)
    try:
        summary = gated.ingest()
    finally:
        failpoints.install(None)
    assert len(summary.blocked) == len(blocked_publications(gated.corpus)) == int(not is_published)
    gated.check()


def test_a_zombie_that_wakes_after_the_end_of_a_blocked_publication_changes_nothing(gated: World) -> None:
    saga = lose(gated)
    with gated.database.transaction() as connection:
        with pytest.raises(FencedError):
            sagas.touch(connection, saga)
        assert not sagas.mark_failed(connection, saga, "by a zombie")
    version = release_publication(gated.corpus, saga)
    with gated.database.transaction() as connection, pytest.raises(FencedError):
        gates.block(connection, saga, "by a zombie")
    with gated.database.transaction() as connection, pytest.raises(FencedError):
        gates.unblock(connection, saga)
    assert gated.head == version
