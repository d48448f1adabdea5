"""Sidecars in a listing."""

from __future__ import annotations

from datetime import UTC, datetime

from ingest_pipeline.sources.sidecars import paired
from ingest_pipeline.types import SourceObject

NOW = datetime.now(UTC)


def listing(*keys: str) -> list[SourceObject]:
    return [SourceObject(key, f"etag of {key}", 1, NOW) for key in sorted(keys)]


def pairs(*keys: str) -> dict[str, str | None]:
    found = list(paired(listing(*keys), lambda key: SourceObject(key, "looked up", 1, NOW) if key in keys else None))
    assert [obj.key for obj in found] == sorted(obj.key for obj in found)
    return {obj.key: obj.sidecar.etag if obj.sidecar else None for obj in found}


def test_a_document_finds_its_sidecar_past_names_that_begin_like_it() -> None:
    assert pairs("a", "a-b", "a.md", "a.metadata.json", "a/b", "c", "c.metadata.json.metadata.json") == {
        "a": "etag of a.metadata.json",
        "a-b": None,
        "a.md": None,
        "a/b": None,
        "c": None,
    }


def test_a_sidecar_without_its_document_is_no_document() -> None:
    assert pairs("b", "gone.pdf.metadata.json") == {"b": None}


def test_a_sidecar_that_is_far_behind_is_looked_up() -> None:
    between = [f"a-{number:05}" for number in range(2500)]
    found = pairs("a", *between, "a.metadata.json")
    assert found["a"] == "looked up"
    assert len(found) == 2501
