"""Retention removes what is no longer needed, in both stores, and nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import lance
import pytest
from lance.file import LanceFileReader

from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.errors import RollbackRefusedError, VersionGoneError
from ingest_pipeline.ingestion.ingest import Ingestion
from ingest_pipeline.ingestion.summary import Summary
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.maintenance.retention import retain
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog import documents, history, reports
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.types import Retention
from tests.integration.preparation.test_look_ups import blocks_read
from tests.support.world import World, paragraphs

ONLY_HEAD = Retention(days=0, publications=1)
LAST_THREE = Retention(days=0, publications=3)


_MANY_SAGAS = """
WITH ended AS (
    INSERT INTO ingest_pipeline.saga
        (id, generation, kind, state, base_version, published_version, writer, ended_at, retired_by)
    SELECT gen_random_uuid(), %(generation)s, 'ingest',
        (CASE n %% 2 WHEN 0 THEN 'published' ELSE 'failed' END)::ingest_pipeline.saga_state, -n,
        CASE n %% 2 WHEN 0 THEN 1 - n END, 'of long ago', now() - interval '1 year',
        CASE n %% 2 WHEN 0 THEN 'retention' END
    FROM generate_series(1, 30000) n RETURNING id, state
)
INSERT INTO ingest_pipeline.retired_publication (saga, documents, removed, chunks, cached)
SELECT id, 1, 0, 1, 0 FROM ended WHERE state = 'published'
"""
"""Which ended a year ago, half of them published, below the versions of any test."""


@pytest.fixture
def world(world: World) -> World:
    """One document that never changed, one in its sixth form."""
    world.put("still.txt", paragraphs("still", 2))
    for number in range(6):
        world.put("a.txt", paragraphs(f"form{number}", 2))
        world.ingest()
    return world


def age(world: World, days: int, below: int) -> None:
    with world.database.transaction() as connection:
        connection.execute(
            "UPDATE ingest_pipeline.saga SET ended_at = ended_at - make_interval(days => %s) "
            "WHERE generation = %s AND published_version < %s",
            (days, world.corpus.generation, below),
        )


def retired(world: World) -> set[int]:
    with world.database.transaction() as connection:
        rows = connection.execute(
            "SELECT s.published_version AS version FROM ingest_pipeline.retired_publication r "
            "JOIN ingest_pipeline.saga s ON s.id = r.saga WHERE s.generation = %s",
            (world.corpus.generation,),
        )
        return {row["version"] for row in rows}


@pytest.mark.promise("retention")
def test_the_last_publications_are_retained_with_all_that_their_readers_see(world: World) -> None:
    kept = range(world.head - 2, world.head + 1)
    before = {version: (world.texts(version), world.chunks("a.txt", version)) for version in kept}
    report = retain(world.corpus, LAST_THREE)
    assert report.oldest_version == world.head - 2
    assert world.corpus.table.versions() == list(kept)
    assert {version: (world.texts(version), world.chunks("a.txt", version)) for version in kept} == before
    world.check_nothing_left()
    assert retain(world.corpus, LAST_THREE).versions == 0


def test_removed_versions_are_removed_from_both_stores(world: World) -> None:
    head = world.head
    report = retain(world.corpus, ONLY_HEAD)
    assert world.corpus.table.versions() == [head]
    assert report.documents == 5
    assert retired(world) == set(range(1, head))
    with world.database.transaction() as connection:
        [document] = reports.history(connection, world.corpus.generation, "a.txt", 100)
    assert document.published_version == head
    assert world.texts().keys() == {"a.txt", "still.txt"}
    assert "form0" not in str(list(Path(world.settings.table_uri).rglob("*")))
    world.check_nothing_left()


def test_retention_counts_from_when_a_version_ceased_to_be_head(world: World) -> None:
    head = world.head
    age(world, days=30, below=head)
    assert retain(world.corpus, Retention(days=7, publications=1)).oldest_version == head - 1


def test_versions_of_maintenance_do_not_count_as_publications(world: World) -> None:
    oldest = world.head - 2
    maintain(world.corpus, LAST_THREE)
    maintain(world.corpus, LAST_THREE)
    assert world.corpus.table.versions()[0] == oldest


def begin(world: World, kind: SagaKind, base: int, target: int | None = None) -> UUID:
    with world.database.transaction() as connection:
        return sagas.begin(
            connection, generation=world.corpus.generation, kind=kind, base_version=base, target_version=target
        )


@pytest.mark.promise("retention")
def test_the_base_version_of_a_live_saga_is_retained_until_it_ends(world: World) -> None:
    base = world.head - 3
    saga = begin(world, SagaKind.INGEST, base)
    assert retain(world.corpus, ONLY_HEAD).oldest_version == base
    assert base in world.corpus.table.versions()
    with world.database.transaction() as connection:
        sagas.mark_failed(connection, saga, "for the test")
    assert retain(world.corpus, ONLY_HEAD).oldest_version == world.head


@pytest.mark.promise("retention")
def test_the_target_version_of_a_live_rollback_is_retained(world: World) -> None:
    target = world.head - 4
    begin(world, SagaKind.ROLLBACK, world.head, target)
    assert retain(world.corpus, ONLY_HEAD).oldest_version == target


def test_a_tagged_version_stays_with_its_catalog_rows(world: World) -> None:
    tagged = world.head - 3
    lance.dataset(world.settings.table_uri).tags.create("release", tagged)
    before = world.texts(tagged), world.chunks("a.txt", tagged)
    retain(world.corpus, ONLY_HEAD)
    assert (world.texts(tagged), world.chunks("a.txt", tagged)) == before


def test_a_reader_at_a_removed_version_gets_an_error(world: World) -> None:
    old = world.head - 3
    retain(world.corpus, ONLY_HEAD)
    with pytest.raises(VersionGoneError, match=f"Version {old} .*is gone.*INGEST_RETENTION_DAYS"):
        world.texts(old)
    with pytest.raises(RollbackRefusedError, match="no longer retained"):
        world.roll_back(old)


@pytest.mark.promise("retention")
def test_a_rollback_to_a_version_that_is_being_removed_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention died after it had decided: the version still opens, its catalog rows are no longer whole."""
    old = world.head - 3
    with monkeypatch.context() as patch:

        def die(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(LanceTable, "remove_versions", die)
        with pytest.raises(KeyboardInterrupt):
            retain(world.corpus, ONLY_HEAD)
    assert old in world.corpus.table.versions()
    with pytest.raises(RollbackRefusedError, match="no longer retained"):
        world.roll_back(old)
    assert retain(world.corpus, ONLY_HEAD).versions > 0, "the next one goes on"
    world.check_nothing_left()


def test_history_still_shows_the_counts_of_a_removed_publication(world: World) -> None:
    def publications() -> list[history.PublicationRow]:
        with world.database.transaction() as connection:
            return history.publication_history(connection, world.corpus.generation, 100)

    before = publications()
    retain(world.corpus, ONLY_HEAD)
    after = publications()
    assert [replace(row, retired_by=None) for row in after] == before
    assert [row.retired_by for row in after] == [None, *["retention"] * (len(after) - 1)]


def test_a_removed_documents_tombstone_outlives_its_rows(world: World) -> None:
    world.remove("a.txt")
    world.ingest()
    retain(world.corpus, ONLY_HEAD)
    with world.database.transaction() as connection:
        latest = {d.key: d.removed for d in documents.latest_documents(connection, world.corpus.generation)}
    assert latest == {"a.txt": True, "still.txt": False}
    assert world.ingest().publications == []


def test_vectors_of_retained_versions_are_used_and_those_of_removed_ones_embedded_again(world: World) -> None:
    first = paragraphs("form4", 2)
    world.put("a.txt", first)
    world.embeddings.reset_counters()
    world.ingest()
    assert world.embeddings.embedded == 0, "version by version, form4 was superseded once"
    retain(world.corpus, ONLY_HEAD)
    world.put("a.txt", paragraphs("form3", 2))
    world.ingest()
    assert world.embeddings.embedded == len(world.chunks("a.txt"))
    world.check_nothing_left()


def test_vectors_of_a_document_that_was_compacted_before_it_was_replaced_are_found(world: World) -> None:
    """Its fragments in the catalog are those of its last version, not of its first."""
    for number in range(8):
        world.put(f"{number}.txt", paragraphs(f"other{number}", 2))
        world.ingest()
    maintain(world.corpus, Retention())
    world.put("3.txt", paragraphs("new", 2))
    world.ingest()
    world.embeddings.reset_counters()
    world.put("3.txt", paragraphs("other3", 2))
    world.ingest()
    assert world.embeddings.embedded == 0


@pytest.mark.promise("retention")
def test_a_reader_at_a_kept_version_sees_the_same_through_maintenance(world: World) -> None:
    for number in range(8):
        world.put(f"{number}.txt", paragraphs(f"other{number}", 2))
        world.ingest()
    pinned = world.head
    dataset = world.corpus.table.at(pinned)
    before = dataset.to_table().sort_by("id")
    world.remove("0.txt")
    world.ingest()
    maintain(world.corpus, Retention(days=0, publications=2))
    assert dataset.to_table().sort_by("id").equals(before)
    assert world.corpus.table.at(pinned).to_table().sort_by("id").equals(before)


def rows_on_disk(world: World) -> int:
    """Of all data files, needed or not. Their bytes also depend on the order in which documents were published."""
    files = (Path(world.settings.table_uri) / "data").glob("*.lance")
    return sum(LanceFileReader(str(file)).metadata().num_rows for file in files)


@pytest.mark.promise("maintenance")
@pytest.mark.parametrize("edits", [12, pytest.param(30, marks=pytest.mark.soak)])
def test_disk_use_stays_near_the_live_data_over_many_edits(world: World, tmp_path: Path, edits: int) -> None:
    for number in range(2 * edits):
        world.put(f"{number}.txt", paragraphs(f"large{number}", 10))
    world.ingest()
    live = world.corpus.table.at(world.head).count_rows()
    rows: list[int] = []
    used: list[int] = []
    for number in range(edits):
        world.put(f"{number}.txt", paragraphs(f"edit{number}", 10))
        world.ingest([f"{number}.txt"])
        if number % 6 == 5:
            used.append(maintain(world.corpus, ONLY_HEAD).after.bytes)
            rows.append(rows_on_disk(world))
    # The last publication is retained, and with it the rows that compaction copied after it.
    assert max(rows) <= 2.3 * live
    fresh = world.settings.replace(lancedb_uri=str(tmp_path / "fresh"), corpus="fresh")
    other = World(world.database, fresh, world.embeddings)
    other.ingest()
    assert max(used) <= 5 * maintain(other.corpus, ONLY_HEAD).after.bytes
    world.put("0.txt", paragraphs("last", 10))
    world.ingest(["0.txt"])
    maintain(world.corpus, ONLY_HEAD)
    assert rows_on_disk(world) <= 1.2 * live
    world.check_nothing_left()


def tombstones(world: World) -> list[str]:
    with world.database.transaction() as connection:
        rows = connection.execute("SELECT key FROM ingest_pipeline.document WHERE removed ORDER BY key")
        return [row["key"] for row in rows]


@pytest.mark.promise("retention")
def test_the_row_of_a_document_that_was_removed_leaves_with_the_last_version_that_had_it(world: World) -> None:
    world.remove("a.txt")
    world.ingest()
    removed = world.head
    world.put("b.txt", paragraphs("beta", 1))
    world.ingest()
    retain(world.corpus, Retention(days=0, publications=2))
    assert tombstones(world) == ["a.txt"], f"version {removed - 1} is gone, and {removed} is the oldest that is kept"
    retain(world.corpus, ONLY_HEAD)
    assert tombstones(world) == []
    world.check_nothing_left()
    world.put("a.txt", paragraphs("back again", 2))
    world.ingest()
    assert len(world.chunks("a.txt")) == 2


def test_a_removal_is_kept_until_it_was_reported_to_dagster(world: World) -> None:
    world.remove("a.txt")
    world.ingest()
    with world.database.transaction() as connection:
        connection.execute(
            "UPDATE ingest_pipeline.saga SET run_id = 'died' WHERE published_version = %s", (world.head,)
        )
    world.put("b.txt", paragraphs("beta", 1))
    world.ingest()
    retain(world.corpus, ONLY_HEAD)
    assert tombstones(world) == ["a.txt"]


def test_a_document_that_comes_back_while_its_tombstone_leaves_is_published(world: World) -> None:
    world.remove("a.txt")
    world.ingest()
    world.put("b.txt", paragraphs("beta", 1))
    world.ingest()
    world.put("a.txt", paragraphs("back again", 2))
    plans = Planner(world.context).plans()
    assert plans[0].replaces is not None
    retain(world.corpus, ONLY_HEAD)

    async def run() -> Summary:
        async with OpenAIEmbedder(world.embedding_settings) as embedder:
            return await Ingestion(world.context, embedder).run(plans)

    assert len(asyncio.run(run()).publications) == 1
    assert len(world.chunks("a.txt")) == 2
    world.check_nothing_left()


@pytest.mark.promise("retention")
def test_retention_does_not_read_more_with_more_sagas(world: World) -> None:
    """Nor what the sweep and the history read; some of it under the lock."""
    head, name = world.head, world.corpus.generation
    queries: dict[str, dict[str, object]] = {
        "oldest_needed": {"generation": name, "days": 7, "publications": 20, "at_least": None},
        "count_publications": {"generation": name, "before": head, "among": None, "limit": 16},
        "retire_versions": {"generation": name, "before": head, "among": None, "by": "retention"},
        "forget_superseded": {"generation": name, "oldest": head, "limit": 500},
        "forget_tombstones": {"generation": name, "oldest": head, "limit": 500},
        "published_versions": {"generation": name, "among": world.corpus.table.versions()},
        "live_sagas": {"generation": name},
        "count_ended": {"generation": name, "ordinals": []},
        "forget_ended": {"generation": name, "ordinals": [], "sagas": []},
        "publication_history": {"generation": name, "limit": 20},
        "published_sagas": {"generation": name, "limit": 20},
        "spent_batches": {"generation": name},
        "is_retained": {"generation": name, "version": head},
    }

    def blocks() -> dict[str, int]:
        with world.database.transaction() as connection:
            connection.execute("ANALYZE ingest_pipeline.saga")
            connection.execute("ANALYZE ingest_pipeline.document")
            return {name: blocks_read(connection, name, values) for name, values in queries.items()}

    with world.database.transaction() as connection:
        connection.execute(_MANY_SAGAS, {"generation": name})
    assert {name: count for name, count in blocks().items() if count >= 150} == {}


_MANY_RETAINED = """
WITH made AS (
    INSERT INTO ingest_pipeline.saga
        (id, generation, kind, state, base_version, published_version, writer, ended_at)
    SELECT gen_random_uuid(), %(generation)s, 'ingest', 'published', 1000 + n, 1001 + n, 'of today',
        now() - make_interval(mins => 10001 - n)
    FROM generate_series(1, %(count)s) n RETURNING id, published_version
)
INSERT INTO ingest_pipeline.document (generation, key, saga, partition, published_version, removed)
SELECT %(generation)s, 'removed-' || published_version, id, 'gone', published_version, true FROM made
"""
"""Publications of the last week, each of which removed a document that stays removed."""


@pytest.mark.promise("retention")
@pytest.mark.parametrize("count", [100, 10_000])
def test_nothing_under_the_lock_reads_more_with_more_retained_publications_and_tombstones(
    world: World, count: int
) -> None:
    name = world.corpus.generation
    with world.database.transaction() as connection:
        connection.execute(_MANY_RETAINED, {"generation": name, "count": count})
        for table in ("saga", "document"):
            connection.execute(f"ANALYZE ingest_pipeline.{table}")
        saga = sagas.begin(connection, generation=name, kind=SagaKind.INGEST, base_version=1001 + count)
        wanted = {"generation": name, "days": 7, "publications": 20, "at_least": None}
        queries: dict[str, dict[str, object]] = {
            "retire_versions": {"generation": name, "before": 1, "among": None, "by": "retention"},
            "count_publications": {"generation": name, "before": 1, "among": None, "limit": 16},
            "forget_superseded": {"generation": name, "oldest": 1, "limit": 500},
            "forget_tombstones": {"generation": name, "oldest": 1, "limit": 500},
            "conflicting_documents": {"saga": saga},
            "supersede_documents": {"saga": saga, "version": 1002 + count},
            "publish_documents": {"saga": saga, "version": 1002 + count},
            "release_superseded": {"saga": saga},
            "published_versions": {"generation": name, "among": [1001 + count]},
        }
        read = {each: blocks_read(connection, each, values) for each, values in queries.items()}
        connection.execute("DELETE FROM ingest_pipeline.saga WHERE id = %s", (saga,))
        read["oldest_needed"] = blocks_read(connection, "oldest_needed", wanted)
    assert {each: blocks for each, blocks in read.items() if blocks >= 100} == {}
