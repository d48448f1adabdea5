"""What differs, and what does not."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from ingest_pipeline.planning.plan import DocumentPlan, merge_join
from ingest_pipeline.postgres.catalog.documents import LatestDocument
from ingest_pipeline.types import SourceObject

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def listed(key: str, etag: str = "1", size: int = 10) -> SourceObject:
    return SourceObject(key, etag, size, _NOW)


def latest(key: str, etag: str = "1", *, removed: bool = False, recipe: str = "r") -> LatestDocument:
    return LatestDocument(key, key, uuid4(), removed, etag, 10, "hash", recipe, 1, [0])


def plan(objects: list[SourceObject], stands: list[LatestDocument], recipe: str = "r") -> list[DocumentPlan]:
    found = [pair.plan(recipe, str) for pair in merge_join(objects, stands)]
    return [document for document in found if document is not None]


def changes(*objects: SourceObject, stands: list[LatestDocument], recipe: str = "r") -> dict[str, str]:
    plans = plan(list(objects), stands, recipe)
    return {document.key: "remove" if document.source is None else "put" for document in plans}


def test_a_new_document_is_ingested() -> None:
    assert changes(listed("a"), stands=[]) == {"a": "put"}


def test_a_document_with_the_same_etag_and_recipe_is_not_planned() -> None:
    assert changes(listed("a"), stands=[latest("a")]) == {}


def test_a_document_with_another_etag_or_recipe_is_ingested() -> None:
    assert changes(listed("a", "2"), stands=[latest("a")]) == {"a": "put"}
    assert changes(listed("a"), stands=[latest("a")], recipe="other") == {"a": "put"}


def test_a_missing_document_is_removed_once() -> None:
    assert changes(stands=[latest("a")]) == {"a": "remove"}
    assert changes(stands=[latest("a", removed=True)]) == {}


def test_a_document_that_comes_back_after_a_removal_is_ingested() -> None:
    assert changes(listed("a"), stands=[latest("a", removed=True)]) == {"a": "put"}


def test_a_plan_knows_what_it_replaces() -> None:
    stands = latest("a")
    (document,) = plan([listed("a", "2")], [stands])
    assert document.replaces == stands.saga
    assert document.maybe_same_bytes
    (document,) = plan([listed("a", "2", size=11)], [stands])
    assert not document.maybe_same_bytes


_KEYS = st.sets(st.text(alphabet="a\u00e9\U0001f600/-.~", min_size=1, max_size=4))


@given(_KEYS, _KEYS)
def test_both_sides_are_joined_by_key_in_one_pass(there: set[str], known: set[str]) -> None:
    joined = list(merge_join(map(listed, sorted(there)), map(latest, sorted(known))))
    assert [pair.key for pair in joined] == sorted(there | known)
    assert {pair.key for pair in joined if pair.source} == there
    assert {pair.key for pair in joined if pair.latest} == known


@given(_KEYS)
def test_the_order_of_strings_is_the_order_of_their_bytes(keys: set[str]) -> None:
    assert sorted(keys) == sorted(keys, key=str.encode)
