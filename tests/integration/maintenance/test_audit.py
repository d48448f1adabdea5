"""An audit finds every way in which the stores can come apart, planted by hand."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from threading import Thread
from time import time
from uuid import UUID

import lance
import numpy as np
import pyarrow as pa
import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.lance.changes import Change, Removal
from ingest_pipeline.maintenance import audit as audit_module
from ingest_pipeline.maintenance.audit import Violation
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.saga.transaction import transaction
from ingest_pipeline.types import Retention
from tests.support.world import World, commit_above, mark, paragraphs

pytestmark = pytest.mark.promise("damage")


@pytest.fixture
def world(world: World) -> World:
    world.put("a.txt", paragraphs("alpha", 3))
    world.put("b.txt", paragraphs("beta", 2))
    world.ingest()
    assert world.audit().violations == []
    return world


def rows_of(world: World, key: str) -> pa.Table:
    columns = [field.name for field in world.corpus.table.schema]
    return world.corpus.table.rows(world.head, columns, f"document = '{key}'")


def publish(world: World, removed: str | None, rows: pa.Table | None) -> None:
    """A version with our mark and the catalog left as it was, as a fault of ours would make it."""
    with transaction(world.corpus) as change:
        if removed:
            change.delete(removed)
        if rows is not None:
            change.add(rows)


def execute(world: World, statement: str) -> None:
    with world.database.transaction() as connection:
        connection.execute(statement.encode())


def found(world: World) -> set[tuple[str, str | None]]:
    return {(violation.invariant, violation.document) for violation in world.audit().violations}


def changed(rows: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(column), rows.schema.field(column), values)


def test_a_lost_row(world: World) -> None:
    publish(world, "document = 'a.txt' AND ordinal = 1", None)
    assert found(world) == {("chunks match", "a.txt")}


def test_an_added_row(world: World) -> None:
    extra = changed(rows_of(world, "a.txt").slice(0, 1), "id", pa.array([str(UUID(int=7))]))
    publish(world, None, extra)
    assert found(world) == {("chunks match", "a.txt")}
    [violation] = world.audit().violations
    assert violation == Violation("chunks match", "a.txt", "1 vectors without a catalog row", [str(UUID(int=7))])


def test_a_row_that_occurs_twice(world: World) -> None:
    publish(world, None, rows_of(world, "a.txt").slice(0, 1))
    assert found(world) == {("unique chunk ids", "a.txt")}


def test_a_document_the_catalog_does_not_know(world: World) -> None:
    strange = changed(rows_of(world, "a.txt").slice(0, 1), "document", pa.array(["strange.txt"]))
    publish(world, None, strange)
    assert ("chunks match", "strange.txt") in found(world)


def test_a_vector_that_is_not_finite(world: World) -> None:
    rows = rows_of(world, "b.txt")
    flat = np.ones(rows.num_rows * 32, np.float32)
    flat[3] = np.nan
    publish(world, "document = 'b.txt'", changed(rows, "vector", pa.FixedSizeListArray.from_arrays(flat, 32)))
    assert found(world) == {("valid vectors", "b.txt")}


def test_a_text_that_is_not_the_one_hashed(world: World) -> None:
    rows = rows_of(world, "b.txt")
    texts = [text.replace("beta", "BETA") for text in rows["text"].to_pylist()]
    publish(world, "document = 'b.txt'", changed(rows, "text", pa.array(texts)))
    assert found(world) == {("texts match", "b.txt")}


def test_a_hash_that_is_not_the_catalogs(world: World) -> None:
    execute(world, "UPDATE ingest_pipeline.chunk SET text_hash = gen_random_uuid() WHERE document = 'b.txt'")
    assert found(world) == {("texts match", "b.txt")}


def test_offsets_that_are_not_the_catalogs(world: World) -> None:
    execute(world, "UPDATE ingest_pipeline.chunk SET end_offset = end_offset + 1 WHERE document = 'b.txt'")
    assert found(world) == {("texts match", "b.txt")}


def test_rows_of_another_saga(world: World) -> None:
    rows = rows_of(world, "b.txt")
    publish(world, "document = 'b.txt'", changed(rows, "saga", pa.array([str(UUID(int=1))] * rows.num_rows)))
    assert found(world) == {("single publication", "b.txt")}


def test_lost_catalog_rows(world: World) -> None:
    execute(world, "DELETE FROM ingest_pipeline.chunk WHERE document = 'a.txt' AND ordinal = 0")
    assert found(world) == {("chunks match", "a.txt")}
    assert len(world.audit().violations) == 2, "the missing row, and the count that the document promises"


def test_a_lost_document_row(world: World) -> None:
    execute(world, "DELETE FROM ingest_pipeline.document WHERE key = 'a.txt'")
    assert ("chunks match", "a.txt") in found(world)


def test_a_foreign_version_above_head(world: World) -> None:
    lance.dataset(world.settings.table_uri).delete("document = 'a.txt'")
    assert found(world) == {("latest is head", None)}


def test_a_head_of_another_saga(world: World) -> None:
    execute(world, "UPDATE ingest_pipeline.generation SET head_saga = gen_random_uuid()")
    assert found(world) == {("head opens", None)}


def test_a_head_that_does_not_exist(world: World) -> None:
    execute(world, "UPDATE ingest_pipeline.generation SET head_version = head_version + 5")
    assert ("head opens", None) in found(world)


def test_a_saga_in_doubt_for_long(world: World) -> None:
    execute(
        world,
        "INSERT INTO ingest_pipeline.saga (id, generation, kind, base_version, writer, seen_at) "
        "VALUES (gen_random_uuid(), 'docs', 'ingest', 1, 'gone', now() - interval '1 hour')",
    )
    assert found(world) == {("nothing in doubt", None)}


def test_an_orphan_file(world: World) -> None:
    execute(
        world,
        "INSERT INTO ingest_pipeline.saga (id, generation, kind, state, base_version, writer, ended_at) "
        "VALUES ('00000000-0000-0000-0000-000000000003', 'docs', 'ingest', 'failed', 1, 'gone', "
        "now() - interval '2 days')",
    )
    world.corpus.table.stage(f"{UUID(int=3)}-0.lance", rows_of(world, "a.txt"))
    assert found(world) == {("no orphan files", None)}


def test_a_file_of_a_saga_that_the_ledger_does_not_know_is_counted_and_no_violation(world: World) -> None:
    world.corpus.table.stage(f"{UUID(int=3)}-0.lance", rows_of(world, "a.txt"))
    report = world.audit()
    assert (report.violations, report.files, report.unknown_files) == ([], 0, 1)


@pytest.mark.promise("sweep")
def test_a_file_of_a_run_that_published_too_late_is_no_violation(world: World) -> None:
    """Two runs at once over the same document: one publishes, and the other plans again without its file."""
    forestalled: list[int] = []

    def forestall(boundary: Boundary, side: str) -> None:
        if (boundary, side) == (Boundary.LOCK_TAKEN, "before") and not forestalled:
            forestalled.append(world.head)
            thread = Thread(target=world.ingest)
            thread.start()
            thread.join()

    world.put("a.txt", paragraphs("again", 2))
    failpoints.install(forestall)
    try:
        world.ingest()
    finally:
        failpoints.install(None)
    report = world.audit()
    assert (report.files, report.violations) == (1, [])
    execute(world, "UPDATE ingest_pipeline.saga SET ended_at = ended_at - interval '2 days' WHERE state = 'failed'")
    assert found(world) == {("no orphan files", None)}
    world.check_nothing_left()


@pytest.mark.promise("sweep")
@pytest.mark.parametrize("name", ["data/.tmpAbCdEf", "_deletions/0-1-7.arrow", "_transactions/1-x.txn"])
def test_a_file_that_names_no_saga_is_a_violation_once_a_sweep_should_have_removed_it(world: World, name: str) -> None:
    file = Path(world.settings.table_uri) / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("left")
    assert (world.audit().files, found(world)) == (1, set())
    two_days_ago = time() - 2 * 86400
    os.utime(file, (two_days_ago, two_days_ago))
    assert found(world) == {("no orphan files", None)}
    world.check_nothing_left()


@pytest.mark.promise("sweep")
def test_tags_and_a_branch_with_own_rows_are_no_violation_and_survive_maintenance(world: World) -> None:
    dataset = lance.dataset(world.settings.table_uri)
    dataset.tags.create("keep", world.head)
    branch = dataset.create_branch("try", world.head)
    branch.insert(branch.to_table().slice(0, 1))
    branch.create_scalar_index("document", "BTREE")
    branch.delete("ordinal = 1")
    rows = branch.to_table()
    for file in Path(world.settings.table_uri).rglob("*"):
        os.utime(file, (0, 0))
    dataset.tags.delete("keep")
    for number in range(2):
        world.put("a.txt", paragraphs(f"edit{number}", 2))
        world.ingest()
        maintain(world.corpus, Retention(days=0, publications=1))
        assert world.audit().violations == []
    assert lance.dataset(world.settings.table_uri).checkout_version(("try", None)).to_table().equals(rows)
    assert world.audit().files == 0


def test_a_version_that_was_not_undone(world: World) -> None:
    commit_above(
        world.corpus.table, world.head, Change((), Removal("document = 'a.txt'")), mark(world.corpus, UUID(int=5))
    )
    assert found(world) == {("latest is head", None)}


@pytest.mark.parametrize("malformed", ["x", "\N{LATIN SMALL LETTER E WITH ACUTE}" * 18])
@pytest.mark.parametrize(
    ("column", "invariant"), [("id", "chunks match"), ("text_hash", "texts match"), ("saga", "single publication")]
)
def test_a_malformed_id(world: World, column: str, invariant: str, malformed: str) -> None:
    rows = rows_of(world, "b.txt")
    publish(world, "document = 'b.txt'", changed(rows, column, pa.array([malformed] * len(rows))))
    assert (invariant, "b.txt") in found(world)
    assert {document for _, document in found(world)} == {"b.txt"}


def test_a_clock_that_is_wrong_puts_no_saga_in_doubt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Later:
            return super().now(tz) + timedelta(hours=1)

    monkeypatch.setattr(audit_module, "datetime", Later)
    execute(
        world,
        "INSERT INTO ingest_pipeline.saga (id, generation, kind, base_version, writer) "
        "VALUES (gen_random_uuid(), 'docs', 'ingest', 1, 'elsewhere')",
    )
    assert found(world) == set()


def test_an_audit_of_no_documents_finds_nothing(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 1))
    world.ingest()
    report = audit_module.audit(world.corpus, [])
    assert (report.documents, report.violations) == (0, [])
