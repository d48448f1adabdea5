"""A sweep removes what is abandoned and nothing that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import lance
import pytest
from lance.file import LanceFileSession, LanceFileWriter

from ingest_pipeline.errors import ForeignWriteError
from ingest_pipeline.lance.changes import Change, StagedFragment
from ingest_pipeline.lance.indices import IndexKind
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.maintenance.sweep import orphans, saga_of_file, sweep
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.saga.publish import publish
from tests.support.world import World, commit_above, mark, paragraphs


@pytest.fixture
def world(world: World) -> World:
    world.put("a.txt", paragraphs("alpha", 3))
    world.ingest()
    return world


def begin(world: World) -> UUID:
    with world.database.transaction() as connection:
        return sagas.begin(
            connection, generation=world.corpus.generation, kind=SagaKind.INGEST, base_version=world.head
        )


def end(world: World, saga: UUID) -> None:
    with world.database.transaction() as connection:
        sagas.mark_failed(connection, saga, "for the test")


def stage(world: World, saga: UUID) -> str:
    rows = world.corpus.table.rows(world.head, [field.name for field in world.corpus.table.schema])
    return f"data/{world.corpus.table.stage(f'{saga}-0.lance', rows).name}"


@pytest.mark.promise("sweep")
def test_files_of_ended_sagas_are_swept_and_files_of_live_ones_stay(world: World) -> None:
    dead, live = begin(world), begin(world)
    abandoned, wanted = stage(world, dead), stage(world, live)
    end(world, dead)
    assert world.sweep().files == [abandoned]
    assert wanted in world.corpus.table.all_files()
    end(world, live)
    assert world.sweep().files == [wanted]
    world.check_nothing_left()


@pytest.mark.promise("sweep")
def test_a_file_that_was_written_and_not_yet_recorded_stays(world: World) -> None:
    saga = begin(world)
    name = stage(world, saga)
    world.sweep()
    commit_above(world.corpus.table, world.head, Change([]), mark(world.corpus, saga))
    assert name in world.corpus.table.all_files()


@pytest.mark.promise("sweep")
def test_a_saga_that_begins_during_the_sweep_keeps_its_file(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def begin_and_stage(look: Callable[[LanceTable], set[str]]) -> Callable[[LanceTable], set[str]]:
        def looked(table: LanceTable) -> set[str]:
            if not started:
                started.append(stage(world, begin(world)))
            return look(table)

        return looked

    monkeypatch.setattr(LanceTable, "all_files", begin_and_stage(LanceTable.all_files))
    assert world.sweep().files == []
    assert started[0] in world.corpus.table.all_files()


@dataclass
class NoRows:
    """A publication without a catalog side."""

    staged: StagedFragment

    def write(self, connection: Connection, base: int, version: int) -> Change:  # noqa: ARG002  of the protocol
        return Change([self.staged])

    def record_fragments(self, connection: Connection, version: int, fragments: dict[str, int]) -> None:
        pass


@pytest.mark.promise("sweep")
def test_a_saga_that_publishes_during_the_sweep_keeps_its_file(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    saga = begin(world)
    name = stage(world, saga)
    with world.database.transaction() as connection:
        sagas.mark_prepared(connection, saga)

    def publish_first(connection: Connection, corpus: str) -> set[UUID]:
        monkeypatch.undo()
        publish(world.corpus, saga, NoRows(StagedFragment(name.removeprefix("data/"), 3)))
        return sagas.live_sagas(connection, corpus)

    monkeypatch.setattr(sagas, "live_sagas", publish_first)
    assert orphans(world.corpus) == []
    assert name in world.corpus.table.all_files()


@pytest.mark.promise("sweep")
def test_a_half_written_file_stays_while_a_saga_is_live(world: World) -> None:
    saga = begin(world)
    rows = world.corpus.table.rows(world.head, ["text"])
    writer = LanceFileWriter(f"{world.settings.table_uri}/data/{saga}-0.lance", rows.schema)
    writer.write_batch(rows.to_batches()[0])
    world.sweep()
    writer.close()
    assert f"data/{saga}-0.lance" in world.corpus.table.all_files()


def test_a_half_written_file_of_a_dead_writer_is_swept(world: World) -> None:
    (Path(world.settings.table_uri) / "data" / ".tmpAbCdEf").write_text("half")
    assert world.sweep().files == ["data/.tmpAbCdEf"]


def test_a_segment_of_an_index_stays_as_long_as_its_saga_is_live(world: World) -> None:
    saga = begin(world)
    kind = IndexKind("text", "INVERTED", least=1, tail=1)
    numbers = [fragment.number for fragment in world.corpus.table.fragments(world.head)]
    world.corpus.table.build_segment(world.head, kind, numbers, saga)
    assert world.sweep().files == []
    assert f"_indices/{saga}/metadata.lance" in world.corpus.table.all_files()
    end(world, saga)
    assert f"_indices/{saga}/metadata.lance" in world.sweep().files
    world.check_nothing_left()


@pytest.mark.promise("columns")
@pytest.mark.parametrize("dies_at", ["create_index_uncommitted", "upload_file", "delete_file"])
def test_a_segment_whose_folder_lance_names_is_swept_if_its_build_dies(
    world: World, dies_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = World(world.database, world.settings.replace(columns={"tags": "list<string>"}), world.embeddings)
    listed.put("a.txt.metadata.json", '{"tags": ["x", "y"]}')
    listed.ingest()
    saga = begin(listed)
    numbers = [fragment.number for fragment in listed.corpus.table.fragments(listed.head)]
    owner: Any = lance.LanceDataset if hasattr(lance.LanceDataset, dies_at) else LanceFileSession
    work = getattr(owner, dies_at)

    def die(*arguments: Any, **options: Any) -> None:
        work(*arguments, **options)
        raise SystemExit

    monkeypatch.setattr(owner, dies_at, die)
    before = listed.corpus.table.all_files()
    with pytest.raises(SystemExit):
        listed.corpus.table.build_segment(listed.head, IndexKind("tags", "LABEL_LIST", 1, 1), numbers, saga)
    monkeypatch.undo()
    left = listed.corpus.table.all_files() - before
    assert left != set()
    assert {saga_of_file(name) for name in left} == {saga}
    assert listed.sweep().files == []
    end(listed, saga)
    report = listed.sweep()
    assert (set(report.files), report.unknown) == (left, [])
    listed.check_nothing_left()


def test_a_segment_of_another_program_is_not_swept(world: World) -> None:
    theirs = Path(world.settings.table_uri) / "_indices" / str(uuid4()) / "metadata.lance"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    world.sweep()
    assert theirs.exists()


@pytest.mark.promise("sweep")
def test_a_staged_file_of_another_program_is_not_swept(world: World) -> None:
    """A compaction that is still being written has no saga and no version yet."""
    theirs = Path(world.settings.table_uri) / "data" / f"{uuid4().hex}.lance"
    theirs.write_text("theirs")
    world.sweep()
    assert theirs.exists()


@pytest.mark.promise("sweep")
def test_tags_branches_and_files_of_the_user_are_not_swept(world: World) -> None:
    dataset = lance.dataset(world.settings.table_uri)
    dataset.tags.create("keep", world.head)
    dataset.create_branch("try", world.head)
    note = Path(world.settings.table_uri) / "NOTE.md"
    note.write_text("Ask before you delete this.")
    assert world.sweep().files == []
    assert note.exists()
    again = lance.dataset(world.settings.table_uri)
    assert list(again.tags.list()) == ["keep"]
    assert again.checkout_version(("try", None)).count_rows() == len(world.chunks("a.txt"))


def test_undone_versions_are_swept_and_published_ones_stay(world: World) -> None:
    old = world.head
    saga = begin(world)
    name = stage(world, saga)
    undone = commit_above(
        world.corpus.table, old, Change([StagedFragment(name.removeprefix("data/"), 3)]), mark(world.corpus, saga)
    )
    end(world, saga)
    report = world.sweep()
    assert report.versions == [undone]
    assert name not in world.corpus.table.all_files()
    assert world.text_at("a.txt", old) == world.text_at("a.txt")
    world.check_nothing_left()


def test_a_file_stays_while_its_saga_may_publish_again_after_a_version_that_was_not_committed(world: World) -> None:
    saga = begin(world)
    name = stage(world, saga)
    fragment = StagedFragment(name.removeprefix("data/"), 3)
    made = world.corpus.table.stage_version(world.head, Change([fragment]), mark(world.corpus, saga))
    with world.database.transaction() as connection:
        sagas.mark_prepared(connection, saga)
    assert f"_versions/{made.manifest}" in world.sweep().files
    publish(world.corpus, saga, NoRows(fragment))
    assert name in world.corpus.table.tracked_files()


def test_a_dry_run_names_the_files_and_removes_nothing(world: World) -> None:
    saga = begin(world)
    name = stage(world, saga)
    end(world, saga)
    before = world.corpus.table.all_files()
    assert sweep(world.corpus, dry_run=True).files == [name]
    assert world.corpus.table.all_files() == before


@pytest.mark.promise("sweep")
def test_nothing_is_swept_under_a_foreign_version(world: World) -> None:
    lance.dataset(world.settings.table_uri).delete("ordinal = 0")
    before = world.corpus.table.all_files()
    with pytest.raises(ForeignWriteError):
        world.sweep()
    assert world.corpus.table.all_files() == before
