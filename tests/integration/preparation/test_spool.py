"""Recorded vectors are in the spool: none is billed twice, none is used unless it is the one that was recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from ingest_pipeline.errors import UnavailableError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.lance.files.spool import Spool, spool_name
from ingest_pipeline.maintenance import sweep as sweeping
from ingest_pipeline.maintenance.sweep import OrphanFiles, find_orphan_files, orphans, sweep
from ingest_pipeline.postgres.ledger import embedding_cache, sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.types import Usage, Vectors
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.zombie import Zombie
from tests.support.servers.embedding_server import vector_of
from tests.support.world import World, ended_saga, paragraphs

pytestmark = pytest.mark.promise("spool", "pay-once")

TEXT = paragraphs("alpha", 12)
VECTORS = np.ones((2, 32), np.float32)
HASHES = [UUID(int=1), UUID(int=2)]
BEFORE_PUBLICATION = Place(Boundary.PREPARED, "before")


def spool_files(world: World) -> list[Path]:
    return sorted((Path(world.corpus.table.uri) / "_spool").glob("*"))


def bought_twice(world: World) -> list[str]:
    return [text[:40] for text, count in world.embeddings.texts.items() if count > 1]


def die_before_the_publication(world: World) -> int:
    """A run records all answers for TEXT and dies; returns how many texts it embedded."""
    assert world.corpus
    world.put("a.txt", TEXT)
    assert Child(crash_jobs.ingest, world.address, kill_at=BEFORE_PUBLICATION).outcome().killed
    world.recover()
    return world.embeddings.embedded


def check_vectors(world: World) -> None:
    """Each published vector is the one that the model returns for its text."""
    rows = world.corpus.table.rows(world.head, ["text", "vector"]).to_pylist()
    assert rows
    for row in rows:
        assert np.array_equal(row["vector"], vector_of(row["text"], 32))


def record(world: World, saga: UUID, ordinal: int, checksum: bytes) -> bool:
    with world.database.transaction() as connection:
        return embedding_cache.record_batch(
            connection,
            saga,
            ordinal=ordinal,
            embedding=world.settings.recipe.embedding,
            text_hashes=HASHES,
            checksum=checksum,
            characters=2,
            usage=Usage(tokens=2, requests=1),
        )


def begin(world: World) -> UUID:
    with world.database.transaction() as connection:
        return sagas.begin(connection, generation=world.corpus.generation, kind=SagaKind.INGEST, base_version=1)


def end(world: World, saga: UUID) -> None:
    with world.database.transaction() as connection:
        sagas.mark_failed(connection, saga, "for the test")


def test_a_publication_leaves_no_file_in_the_spool(world: World) -> None:
    world.put("a.txt", TEXT)
    world.ingest()
    assert spool_files(world) == []
    check_vectors(world)
    world.check_nothing_left()


def test_postgres_has_the_hashes_and_no_vector(world: World) -> None:
    embedded = die_before_the_publication(world)
    with world.database.transaction() as connection:
        row = connection.execute(
            "SELECT sum(pg_column_size(b.*)) AS bytes, sum(cardinality(text_hashes)) AS texts, count(*) AS files "
            "FROM ingest_pipeline.embedded_batch b"
        ).fetchone()
    assert row is not None
    assert row["texts"] == embedded
    assert row["bytes"] < 16 * row["texts"] + 200 * row["files"]
    assert sum(path.stat().st_size for path in spool_files(world)) == 4 * 32 * embedded
    assert len(spool_files(world)) == row["files"]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-128]),
    "altered": lambda path: path.write_bytes(path.read_bytes()[:-2] + b"\0\0"),
    "vectors exchanged": lambda path: path.write_bytes(path.read_bytes()[128:] + path.read_bytes()[:128]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_the_texts_of_a_lost_file_are_embedded_again_and_no_others(
    world: World, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    embedded = die_before_the_publication(world)
    lost = max(spool_files(world), key=lambda path: path.stat().st_size)
    texts = lost.stat().st_size // 128
    assert 1 < texts < embedded
    damage(lost)
    with caplog.at_level(logging.WARNING):
        world.ingest()
    assert world.embeddings.embedded == embedded + texts
    [message] = [each.getMessage() for each in caplog.records if "spool" in each.getMessage()]
    assert f"{texts} recorded vectors are lost, and their texts will be embedded again" in message
    assert f"_spool/{lost.name}" in message
    check_vectors(world)
    world.check_nothing_left()


def test_an_audit_and_a_plan_need_no_spool(world: World) -> None:
    die_before_the_publication(world)
    for path in spool_files(world):
        path.unlink()
    assert world.audit().violations == []
    world.ingest()
    world.check_nothing_left()


def test_vectors_that_another_run_publishes_during_the_look_up_are_found_at_head(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run removes its files between the row that this run has read and the file."""
    assert world.corpus
    world.put("a.txt", TEXT)
    other = Child(crash_jobs.ingest, world.address, ["a.txt"], stop_at=BEFORE_PUBLICATION)
    assert other.wait_until_stopped()
    embedded = world.embeddings.embedded
    world.put("b.txt", TEXT)
    read, waited = Spool.read, list[bool]()

    def read_late(spool: Spool, name: str, checksum: bytes, dimensions: int) -> Vectors:
        if not waited:
            other.resume()
            waited.append(other.outcome().error is None)
        return read(spool, name, checksum, dimensions)

    monkeypatch.setattr(Spool, "read", read_late)
    world.ingest(["b.txt"])
    assert waited == [True]
    assert world.embeddings.embedded == embedded
    check_vectors(world)
    world.check_nothing_left()


def test_vectors_recorded_before_the_first_publication_move_with_the_table(world: World) -> None:
    embedded = die_before_the_publication(world)
    elsewhere = world.settings.replace(lancedb_uri=world.settings.lancedb_uri + "-elsewhere")
    moved = World(world.database, elsewhere, world.embeddings)
    moved.ingest()
    assert moved.embeddings.embedded == embedded
    check_vectors(moved)
    moved.check_nothing_left()


def test_answers_that_the_store_does_not_take_are_kept_in_postgres(world: World) -> None:
    spool = Path(world.corpus.table.uri) / "_spool"
    spool.write_text("no folder")
    world.put("a.txt", TEXT)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            world.ingest()
    spool.unlink()
    world.sweep()
    world.ingest()
    assert bought_twice(world) == []
    check_vectors(world)
    world.check_nothing_left()


def test_a_sweep_keeps_the_files_of_running_sagas_and_those_that_have_rows(world: World) -> None:
    running, ended = begin(world), begin(world)
    spool = world.corpus.table.spool
    names = {(saga, ordinal): spool_name(saga, ordinal) for saga in (running, ended) for ordinal in (0, 1)}
    for saga in (running, ended):
        record(world, saga, 0, spool.write(names[saga, 0], [VECTORS]))
        spool.write(names[saga, 1], [VECTORS])
    end(world, ended)
    assert orphans(world.corpus) == [names[ended, 1]]
    assert sweep(world.corpus, dry_run=True).files == [names[ended, 1]]
    assert world.sweep().files == [names[ended, 1]]
    assert {f"_spool/{path.name}" for path in spool_files(world)} == set(names.values()) - {names[ended, 1]}
    end(world, running)
    assert world.sweep().files == [names[running, 1]]
    world.check_nothing_left()


def test_a_file_goes_with_its_row_when_the_vectors_are_at_head_or_a_week_old(world: World) -> None:
    die_before_the_publication(world)
    old = begin(world)
    record(world, old, 0, world.corpus.table.spool.write(spool_name(old, 0), [VECTORS]))
    end(world, old)
    world.sweep()
    assert len(spool_files(world)) > 1
    world.ingest()
    with world.database.transaction() as connection:
        connection.execute(
            "UPDATE ingest_pipeline.saga SET ended_at = ended_at - interval '8 days' WHERE id = %s", (old,)
        )
    world.sweep()
    assert spool_files(world) == []


def test_a_file_that_is_recorded_while_a_sweep_decides_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer was taken for dead, and records its answer between the sweep's listing and its removals."""
    zombie = ended_saga(world)
    name = spool_name(zombie, 0)
    checksum = world.corpus.table.spool.write(name, [VECTORS])
    found: list[OrphanFiles] = []

    def find_then_record(corpus: object) -> OrphanFiles:
        found.append(find_orphan_files(world.corpus))
        assert record(world, zombie, 0, checksum), "the saga has ended"
        return found[0]

    monkeypatch.setattr(sweeping, "find_orphan_files", find_then_record)
    world.sweep()
    assert found[0].files == [name]
    assert world.corpus.table.spool.read(name, checksum, 32).tolist() == VECTORS.tolist()


def test_a_writer_whose_file_was_swept_before_its_row_records_it_all_the_same(world: World) -> None:
    """It was taken for dead between the two, and what it embedded is not embedded again."""
    assert world.corpus
    world.put("a.txt", TEXT)
    zombie = Zombie(
        world.database.url, crash_jobs.ingest, world.address, place=Place(Boundary.BATCH_SPOOLED, "after", 2)
    )
    zombie.die()
    written = spool_files(world)
    world.recover()
    swept = world.sweep().files
    assert swept == [f"_spool/{path.name}" for path in written if f"_spool/{path.name}" in swept] != []
    assert zombie.wake().ours
    world.embeddings.wait_until_quiet()
    world.ingest()
    assert bought_twice(world) == []
    check_vectors(world)
    world.check_nothing_left()


def test_files_of_sagas_that_the_ledger_lacks_are_kept_and_reported(world: World) -> None:
    unknown = spool_name(UUID(int=9), 0)
    world.corpus.table.spool.write(unknown, [VECTORS])
    report = world.sweep()
    assert (report.files, report.unknown) == ([], [unknown])
    assert [f"_spool/{path.name}" for path in spool_files(world)] == [unknown]
