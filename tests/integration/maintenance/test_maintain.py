"""Compaction and indices through the one door: the same rows before and after, beside whatever else is going on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lance.fragment import LanceFragment

from ingest_pipeline.lance.changes import FragmentState
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.lance.indices import Indexing, IndexKind, Segment
from ingest_pipeline.lance.search import nearest as nearest_rows
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.maintenance.compaction import MAX_FULL_ROWS, MIN_FULL_ROWS, compact, groups
from ingest_pipeline.maintenance.indexing import due, update_indices
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from tests.support.world import World, paragraphs

WORDS = IndexKind("text", "INVERTED", least=1, tail=1)
NAMES = IndexKind("document", "BLOOMFILTER", least=1, tail=1)
VECTORS = IndexKind("vector", "IVF", least=300, tail=300)


@pytest.fixture
def world(world: World) -> World:
    """Ten documents, each in a fragment of its own."""
    for number in range(10):
        world.put(f"{number}.txt", paragraphs(f"topic{number}", 3))
        world.ingest([f"{number}.txt"])
    return world


def places(world: World) -> dict[str, list[int]]:
    with world.database.transaction() as connection:
        latest = documents.latest_documents(connection, world.corpus.generation)
    return {document.key: document.fragments for document in latest if not document.removed}


def really(world: World) -> dict[str, list[int]]:
    """Where the documents' rows lie, as the table says."""
    rows = world.corpus.table.at(world.head).scanner(columns=["document"], with_row_address=True).to_table()
    found: dict[str, set[int]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["document"], set()).add(row["_rowaddr"] >> 32)
    return {key: sorted(numbers) for key, numbers in found.items()}


def edit_all(world: World) -> None:
    """Every document in another way: some changed, one removed, one new."""
    for number in range(0, 6, 2):
        world.put(f"{number}.txt", paragraphs(f"changed{number}", 4))
    world.remove("1.txt")
    world.put("new.txt", paragraphs("new", 2))
    world.ingest()


@pytest.mark.promise("maintenance")
def test_a_compaction_changes_no_row_and_records_the_new_fragments(world: World) -> None:
    before, old = world.texts(), world.head
    report = compact(world.corpus)
    assert (report.groups, report.fragments, report.rows, report.skipped) == (1, 10, 30, 0)
    assert world.texts() == world.texts(old) == before
    assert len(world.corpus.table.fragments(world.head)) == 1
    assert places(world) == really(world)
    world.check_nothing_left()
    assert compact(world.corpus).groups == 0, "nothing is due any more"


def test_documents_are_edited_after_a_compaction_without_a_scan(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    compact(world.corpus)

    def scan(*_: object) -> set[int]:
        raise AssertionError("the table was scanned")

    monkeypatch.setattr("ingest_pipeline.lance.changes._fragments_containing", scan)
    edit_all(world)
    assert places(world) == really(world)
    world.check_nothing_left()


def test_in_each_fragment_only_its_own_documents_are_looked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before, asked = places(world), dict[int, str]()
    delete = LanceFragment.delete

    def deleted(fragment: LanceFragment, predicate: str) -> object:
        asked[fragment.fragment_id] = predicate
        return delete(fragment, predicate)

    monkeypatch.setattr(LanceFragment, "delete", deleted)
    edit_all(world)
    edited = [f"{number}.txt" for number in (0, 1, 2, 4)]
    assert asked == {before[key][0]: one_of("document", [key]) for key in edited}
    assert places(world) == really(world)


@pytest.mark.promise("pay-once")
def test_a_text_that_was_compacted_before_it_left_head_is_not_embedded_again(world: World) -> None:
    compact(world.corpus)
    text = Path(world.settings.source, "3.txt").read_text()
    world.remove("3.txt")
    world.ingest()
    embedded = world.embeddings.embedded
    world.put("3.txt", text)
    world.ingest()
    assert world.embeddings.embedded == embedded
    assert world.text_at("3.txt")


def test_a_fragment_with_many_deleted_rows_is_rewritten_without_them(world: World) -> None:
    compact(world.corpus)
    edit_all(world)
    before = world.texts()
    assert any(fragment.deleted for fragment in world.corpus.table.fragments(world.head))
    compact(world.corpus)
    assert not any(fragment.deleted for fragment in world.corpus.table.fragments(world.head))
    assert world.texts() == before
    assert places(world) == really(world)


@pytest.mark.promise("maintenance")
def test_a_group_that_changed_meanwhile_is_skipped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def edited_meanwhile(table: LanceTable, *arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        batches = list(table.batches(*arguments, **options))
        world.put("3.txt", paragraphs("meanwhile", 1))
        world.ingest()
        return iter(batches)

    monkeypatch.setattr(LanceTable, "batches", edited_meanwhile)
    report = compact(world.corpus)
    assert (report.groups, report.skipped) == (0, 1)
    assert "meanwhile" in world.text_at("3.txt")
    world.check_nothing_left()
    assert compact(world.corpus).groups == 1
    assert "meanwhile" in world.text_at("3.txt")
    world.check_nothing_left()


def test_a_compaction_may_be_undone_like_any_publication(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = world.texts(), places(world)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(documents, "move_rows", fail)
    with pytest.raises(RuntimeError):
        compact(world.corpus)
    monkeypatch.undo()
    assert (world.texts(), places(world)) == before
    assert world.corpus.table.latest_version() == world.head
    world.check_nothing_left()


def state(number: int, rows: int, deleted: int = 0) -> FragmentState:
    return FragmentState(number, rows, deleted, "")


def numbers(found: Sequence[Sequence[FragmentState]]) -> list[set[int]]:
    return [{fragment.number for fragment in group} for group in found]


def test_few_small_fragments_are_kept_and_many_are_merged() -> None:
    assert groups([state(number, 10) for number in range(7)]) == []
    assert numbers(groups([state(number, 10) for number in range(8)])) == [set(range(8))]


def test_a_fragment_that_is_much_larger_is_not_rewritten_for_a_few_small_ones() -> None:
    small = [state(number, 10) for number in range(8)]
    assert numbers(groups([*small, state(8, 240)])) == [set(range(8))]
    assert numbers(groups([*small, state(8, 100)])) == [set(range(9))]


def test_a_full_fragment_is_kept_until_many_of_its_rows_are_deleted() -> None:
    full = MAX_FULL_ROWS
    assert groups([state(0, full)]) == []
    assert numbers(groups([state(0, full, full // 2)])) == [{0}]


def test_no_group_grows_over_a_full_fragment() -> None:
    found = groups([state(number, MIN_FULL_ROWS // 3) for number in range(20)])
    assert all(sum(fragment.rows for fragment in group) <= 2 * MIN_FULL_ROWS for group in found)


def test_one_maintenance_rewrites_a_quarter_of_a_large_table_at_most() -> None:
    fragments = [state(number, 50_000, 20_000) for number in range(40)]
    found = groups(fragments)
    assert 0 < sum(fragment.rows for group in found for fragment in group) <= 500_000


def matches(world: World, word: str, *, index: bool) -> set[str]:
    """Ids of the chunks with a word, through the index or by reading all."""
    dataset = world.corpus.table.at(world.head)
    if index:
        found = dataset.scanner(columns=["id", "_score"], full_text_query=word, limit=1000).to_table()
        return set(found["id"].to_pylist())
    rows = dataset.scanner(columns=["id", "text"]).to_table().to_pylist()
    return {row["id"] for row in rows if word in row["text"].lower().replace("-", " ").replace(".", " ").split()}


def check_same_answers(world: World, word: str) -> None:
    assert matches(world, word, index=True) == matches(world, word, index=False)
    dataset = world.corpus.table.at(world.head)
    for key in ["0.txt", "1.txt", "new.txt"]:
        found, scanned = (
            dataset.scanner(columns=["id"], filter=f"document = '{key}'", use_scalar_index=use).to_table()["id"]
            for use in (True, False)
        )
        assert sorted(found.to_pylist()) == sorted(scanned.to_pylist())


@pytest.mark.promise("maintenance")
def test_indices_give_the_same_rows_as_a_scan_through_edits_and_compactions(world: World) -> None:
    update_indices(world.corpus, [WORDS, NAMES])
    check_same_answers(world, "words")
    edit_all(world)
    check_same_answers(world, "words")
    check_same_answers(world, "changed2")
    compact(world.corpus)
    check_same_answers(world, "words")
    reports = update_indices(world.corpus, [WORDS, NAMES])
    assert [(report.unindexed, report.rows) for report in reports] == [(0, 32), (0, 32)]
    check_same_answers(world, "words")
    assert matches(world, "topic1", index=True) == set(), "the document was removed"
    world.check_nothing_left()


def test_an_index_is_not_rebuilt_without_need(world: World) -> None:
    update_indices(world.corpus, [WORDS])
    head = world.head
    assert [report.built for report in update_indices(world.corpus, [WORDS])] == [0]
    assert world.head == head


def test_a_segment_for_fragments_that_changed_meanwhile_hides_no_row(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = LanceTable.build_segment

    def compacted_meanwhile(table: LanceTable, *arguments: Any) -> Any:
        monkeypatch.undo()
        built = build(table, *arguments)
        compact(world.corpus)
        edit_all(world)
        return built

    monkeypatch.setattr(LanceTable, "build_segment", compacted_meanwhile)
    update_indices(world.corpus, [WORDS])
    check_same_answers(world, "words")
    world.check_nothing_left()


@pytest.mark.promise("maintenance")
def test_two_concurrent_index_updates_do_not_cover_a_row_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    build = LanceTable.build_segment

    def indexed_meanwhile(table: LanceTable, *arguments: Any) -> Any:
        monkeypatch.undo()
        built = build(table, *arguments)
        assert update_indices(world.corpus, [WORDS])[0].built
        return built

    monkeypatch.setattr(LanceTable, "build_segment", indexed_meanwhile)
    [report] = update_indices(world.corpus, [WORDS])
    assert (report.built, report.segments, report.unindexed) == (0, 1, 0)
    check_same_answers(world, "words")
    world.check_nothing_left()


def test_a_fragment_of_the_same_number_with_other_rows_is_not_covered(world: World) -> None:
    """After a rollback numbers are given again."""
    table, head = world.corpus.table, world.head
    [first, *_] = table.fragments(head)
    with world.database.transaction() as connection:
        saga = sagas.begin(connection, generation=world.corpus.generation, kind=SagaKind.MAINTENANCE, base_version=head)
    change = Indexing(table.build_segment(head, WORDS, [first.number], saga), frozenset())
    assert table.fits(head, change)
    change.built.files[first.number].append("other.lance")  # type: ignore[attr-defined]
    assert not table.fits(head, change)


def nearest(world: World, question: np.ndarray[Any, Any]) -> list[str]:
    return nearest_rows(world.corpus.table.at(world.head), question, 10, ["id"])["id"].to_pylist()


def test_nine_of_ten_nearest_vectors_are_found_with_an_index_through_edits(world: World) -> None:
    for number in range(4):
        world.put(f"large{number}.txt", paragraphs(f"large{number}", 150))
    world.ingest()
    random = np.random.default_rng(7)
    questions = [random.standard_normal(32).astype(np.float32) for _ in range(20)]

    def recall() -> float:
        exact = [_exactly_nearest(world, question) for question in questions]
        return sum(len(set(nearest(world, q)) & one) for q, one in zip(questions, exact, strict=True)) / 200

    [report] = update_indices(world.corpus, [VECTORS])
    assert report.built == report.rows == 630
    assert recall() >= 0.9
    world.put("large0.txt", paragraphs("again0", 150))
    world.remove("large1.txt")
    world.ingest()
    assert recall() >= 0.9
    compact(world.corpus)
    update_indices(world.corpus, [VECTORS])
    assert recall() >= 0.9
    world.check_nothing_left()


def _exactly_nearest(world: World, question: np.ndarray[Any, Any]) -> set[str]:
    rows = world.corpus.table.rows(world.head, ["id", "vector"])
    vectors = rows["vector"].combine_chunks().values.to_numpy().reshape(-1, 32)
    scores = vectors @ question / np.linalg.norm(vectors, axis=1)
    ids = rows["id"].to_pylist()
    return {ids[place] for place in np.argsort(-scores)[:10]}


KIND = IndexKind("text", "INVERTED", least=5, tail=3)


def segment(name: str, *covered: int) -> Segment:
    return Segment(name, frozenset(covered))


def test_a_small_table_is_not_indexed() -> None:
    assert due(KIND, {0: 4}, []) is None
    assert due(KIND, {0: 5}, []) is not None
    assert due(KIND, {0: 5, 1: 2}, [segment("a", 0)]) is None


def test_a_segment_merges_smaller_ones_but_not_larger_ones() -> None:
    rows = {0: 100, 1: 3, 2: 4}
    work = due(KIND, rows, [segment("large", 0), segment("small", 1)])
    assert work is not None
    assert (set(work.fragments), work.replaced, work.rows) == ({1, 2}, {"small"}, 7)


def test_a_segment_with_few_remaining_fragments_is_replaced() -> None:
    work = due(KIND, {3: 100}, [segment("fragmented", 1, 2, 3)])
    assert work is not None
    assert (set(work.fragments), work.replaced) == ({3}, {"fragmented"})
