"""An erasure leaves nothing of a document in either store, as the product and as other programs see it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.erasure.erase import Receipt, erase
from ingest_pipeline.errors import ConfigurationError, RollbackRefusedError, UnknownDocumentError, VersionGoneError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.ingestion.named_documents import check_keys
from ingest_pipeline.lance.erasing import read_notes
from ingest_pipeline.lance.indices import IndexKind
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.ledger import erasures
from ingest_pipeline.saga.rollback import plan_rollback
from ingest_pipeline.types import Retention
from tests.support.world import World, ended_saga, paragraphs

pytestmark = pytest.mark.promise("erasure")

PERSON = "Wilhelmina Zanzibarova lives at 12 Quince Street"
WORDS = IndexKind("text", "INVERTED", least=1, tail=1)


def fill(world: World) -> int:
    """Two versions of the document to erase and another one in the same fragment; returns the first version."""
    world.put("a.txt", f"{paragraphs('alpha', 3)}\n\n{PERSON}")
    world.put("b.txt", paragraphs("beta", 2))
    world.ingest()
    first = world.head
    maintain(world.corpus, Retention(7, 20), [WORDS])
    world.put("a.txt", f"{paragraphs('alpha', 2)}\n\n{PERSON}, as ever")
    world.ingest()
    maintain(world.corpus, Retention(7, 20), [WORDS])
    return first


def do_erase(world: World, *keys: str) -> Receipt:
    return erase(world.corpus, keys or ["a.txt"], reason="a request")


def test_nothing_of_the_document_is_left_and_the_receipt_says_so(world: World) -> None:
    fill(world)
    before = world.texts()["b.txt"]
    receipt = do_erase(world)
    assert (receipt.found, receipt.places) == (0, [])
    assert receipt.fingerprints > 20
    assert receipt.files > 5
    assert receipt.tables > 10
    assert str(receipt) == f"0 of {receipt.fingerprints} found in {receipt.files} files, {receipt.tables} tables"
    assert receipt.removed["document"] == 2
    assert world.texts() == {"b.txt": before}
    world.check()
    world.check_nothing_left()


def test_the_search_finds_what_was_left_in_a_file_or_a_table(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a receipt of nothing found would prove nothing."""
    fill(world)
    rewrite = type(world.database).rewrite_tables

    def leave_something(database: object, names: list[str]) -> list[str]:
        Path(world.corpus.table.uri, "_spool").mkdir(exist_ok=True)
        Path(world.corpus.table.uri, "_spool/left.bin").write_bytes(b"\0\1" + PERSON.encode())
        with world.database.transaction() as connection:
            connection.execute("UPDATE ingest_pipeline.generation SET source = source || %s", (PERSON,))
        return rewrite(world.database, names)

    monkeypatch.setattr(type(world.database), "rewrite_tables", leave_something)
    receipt = do_erase(world)
    assert receipt.found >= 1
    assert receipt.places == ["_spool/left.bin", "table generation"]


def test_the_ledger_has_a_row_without_content_and_knows_the_key(world: World) -> None:
    fill(world)
    receipt = do_erase(world)
    with world.database.transaction() as connection:
        [row] = erasures.read(connection, world.corpus.name)
        assert "a.txt" in erasures.erased_keys(connection, world.corpus.name)
        assert "b.txt" not in erasures.erased_keys(connection, world.corpus.name)
    assert (row.id, row.reason, row.keys, row.fingerprints) == (receipt.erasure, "a request", None, None)
    assert row.erased_at is not None
    assert (row.fingerprint_count, row.found, row.files, row.tables) == (
        receipt.fingerprints,
        0,
        receipt.files,
        receipt.tables,
    )
    assert "a.txt" not in str(dataclasses.astuple(row))
    [note] = read_notes(world.corpus.table).values()
    assert "a.txt" not in json.dumps(note)


def test_the_object_is_not_ingested_again_until_the_user_allows_it(world: World) -> None:
    fill(world)
    do_erase(world)
    assert world.ingest().publications == []
    world.put("a.txt", paragraphs("changed", 1))
    assert world.ingest().publications == []
    assert Planner(world.context).page().erased == 1
    with pytest.raises(UnknownDocumentError, match=r"was erased.*"):
        check_keys(world.context, ["a.txt"])
    with world.database.transaction() as connection:
        assert erasures.allow(connection, world.corpus.name, ["a.txt", "b.txt"]) == ["a.txt"]
    world.ingest()
    assert set(world.texts()) == {"a.txt", "b.txt"}
    world.check()


def test_no_version_that_had_the_document_is_retained(world: World) -> None:
    first = fill(world)
    assert first in world.corpus.table.versions()
    do_erase(world)
    with pytest.raises(RollbackRefusedError, match="because an erasure removed it"):
        plan_rollback(world.corpus, first)
    with pytest.raises(VersionGoneError):
        world.texts(first)


def test_the_ledger_says_which_versions_the_erasure_removed(world: World) -> None:
    fill(world)
    gone = set(range(2, world.head + 1))
    do_erase(world)
    with world.database.transaction() as connection:
        rows = connection.execute(
            "SELECT published_version, retired_by FROM ingest_pipeline.saga_row WHERE published_version IS NOT NULL"
        ).fetchall()
    removed = {row["published_version"] for row in rows if row["retired_by"] == "erasure"}
    assert gone <= removed == {row["published_version"] for row in rows} - set(world.corpus.table.versions())
    assert {row["retired_by"] for row in rows if row["published_version"] not in removed} == {None}


def test_versions_from_before_the_document_stay(world: World) -> None:
    world.put("b.txt", paragraphs("beta", 2))
    world.ingest()
    before = world.head
    world.put("a.txt", PERSON)
    world.ingest()
    do_erase(world)
    assert before in world.corpus.table.versions()
    assert plan_rollback(world.corpus, before) == []
    assert set(world.texts(before)) == {"b.txt"}


def test_words_of_the_document_are_in_no_index(world: World) -> None:
    fill(world)
    segments = {segment.uuid for segment in world.corpus.table.segments(world.head, WORDS)}
    do_erase(world)
    after = world.corpus.table.segments(world.head, WORDS)
    assert after
    assert segments.isdisjoint(segment.uuid for segment in after)
    files = [path for path in Path(world.corpus.table.uri, "_indices").rglob("*") if path.is_file()]
    folders = {path.parent.name for path in files}
    assert folders == {segment.uuid for segment in after}


def test_an_index_without_any_rows_is_removed(world: World) -> None:
    world.put("a.txt", PERSON)
    world.ingest()
    maintain(world.corpus, Retention(7, 20), [WORDS])
    assert do_erase(world).found == 0
    assert world.corpus.table.segments(world.head, WORDS) == []
    assert world.texts() == {}
    world.put("c.txt", paragraphs("gamma", 1))
    world.ingest()
    world.check_nothing_left()


def test_a_document_that_was_removed_before_is_erased_from_the_files_that_still_have_it(world: World) -> None:
    fill(world)
    world.remove("a.txt")
    world.ingest()
    assert any(PERSON.encode() in path.read_bytes() for path in Path(world.corpus.table.uri, "data").iterdir())
    assert do_erase(world).found == 0
    assert not any(PERSON.encode() in path.read_bytes() for path in Path(world.corpus.table.uri, "data").iterdir())
    world.check_nothing_left()


def test_a_text_that_other_documents_have_is_set_aside(world: World) -> None:
    world.put("a.txt", f"{PERSON}\n\n{paragraphs('alpha', 2)}")
    world.put("b.txt", paragraphs("alpha", 2))
    world.ingest()
    receipt = do_erase(world)
    assert receipt.found == 0
    assert receipt.shared > 0
    assert receipt.shared_with == ["b.txt"]
    assert set(world.texts()) == {"b.txt"}


def test_recorded_vectors_failures_and_orphan_files_leave_too(world: World) -> None:
    world.put("b.txt", paragraphs("beta", 2))
    world.ingest()
    world.put("a.txt", PERSON)

    def stop(name: Boundary, side: str) -> None:
        if (name, side) == (Boundary.PREPARED, "before"):
            raise RuntimeError(f"cannot embed {PERSON}")

    failpoints.install(stop)
    try:
        with pytest.raises(RuntimeError):
            world.ingest()
    finally:
        failpoints.install(None)
    with world.database.transaction() as connection:
        values = (world.corpus.generation, "a.txt", "a.txt", "e", "r", 1, "x", False, False, PERSON)
        connection.execute(
            "INSERT INTO ingest_pipeline.failure (generation, key, partition, etag, recipe, attempts, reason, "
            "unreadable, final, error) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            values,
        )
        connection.execute("UPDATE ingest_pipeline.saga SET error = 'a.txt: ' || %s WHERE state = 'failed'", (PERSON,))
    assert world.recorded_vectors == 1
    receipt = do_erase(world)
    assert (receipt.found, receipt.places) == (0, [])
    assert receipt.removed["failure"] == receipt.removed["embedded_batch"] == receipt.removed["saga"] == 1
    assert world.recorded_vectors == 0
    assert not list(Path(world.corpus.table.uri, "_spool").iterdir())
    world.check_nothing_left()


def test_an_unknown_document_is_refused(world: World) -> None:
    fill(world)
    with pytest.raises(UnknownDocumentError, match=r"Nothing was erased"):
        do_erase(world, "a.txt", "nothing.txt")
    assert set(world.texts()) == {"a.txt", "b.txt"}


def test_a_tag_on_a_version_with_the_document_is_refused(world: World) -> None:
    first = fill(world)
    world.corpus.table.at(first).tags.create("kept", first)
    with pytest.raises(ConfigurationError, match=f"Version {first} .* has a tag"):
        do_erase(world)
    assert set(world.texts()) == {"a.txt", "b.txt"}


def test_a_file_of_a_saga_that_this_database_does_not_know_is_removed_if_it_has_the_document(world: World) -> None:
    fill(world)
    rows = world.corpus.table.rows(world.head, world.corpus.table.schema.names, "document = 'a.txt'")
    world.corpus.table.stage("11111111-1111-1111-1111-111111111111-0.lance", rows)
    world.corpus.table.stage(f"{ended_saga(world)}-0.lance", rows)
    assert do_erase(world).found == 0
    world.check_nothing_left()


def test_a_document_of_many_fragments_and_odd_names_is_erased(world: World) -> None:
    key = 'folder/o\'brien "x".txt'
    world.put(key, f"{PERSON} with a name in quotes")
    world.put("b.txt", paragraphs("beta", 1))
    world.ingest()
    assert do_erase(world, key).found == 0
    assert set(world.texts()) == {"b.txt"}
    world.check_nothing_left()
