"""Columns of the user's: filled from all sources, stored in both stores, changed without embedding anything."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from obstore.store import S3Store

from ingest_pipeline.cli._output import estimate_line
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.errors import ColumnValueError, SourceUnavailableError
from ingest_pipeline.ingestion.estimate import count, estimate
from ingest_pipeline.ingestion.summary import Summary
from ingest_pipeline.maintenance.compaction import compact
from ingest_pipeline.maintenance.indexing import column_indices, update_indices
from ingest_pipeline.maintenance.repair import repair
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.sources import bucket
from tests.support.servers.s3 import S3Server
from tests.support.world import World, paragraphs

COLUMNS = {"department": "string", "year": "int", "tags": "list<string>", "rate": "float", "day": "date"}


def declare(world: World, columns: dict[str, str], *, confirmed: bool = False, **options: Any) -> World:
    """The same corpus with other columns."""
    settings = world.settings.replace(columns=columns, **options)
    return World(world.database, settings, world.embeddings, confirm_columns=confirmed)


def sidecar(world: World, key: str, **values: object) -> Path:
    return world.put(f"{key}.metadata.json", json.dumps(values))


def values(world: World, key: str) -> dict[str, object]:
    """The values of a document in the catalog, which are those of all of its rows."""
    with world.database.transaction() as connection:
        row = connection.execute(
            "SELECT columns FROM ingest_pipeline.current_document WHERE key = %s", (key,)
        ).fetchone()
    assert row is not None
    names = [name for name in world.settings.columns if name in world.corpus.table.columns(world.head)]
    for found in world.corpus.table.rows(world.head, ["document", *names]).to_pylist():
        if found["document"] == key:
            shown = {name: value for name in names if (value := found[name]) is not None}
            assert json.loads(json.dumps(shown, default=str)) == row["columns"]
    return dict(row["columns"])


@pytest.fixture
def library(world: World) -> World:
    return declare(world, COLUMNS, columns_from_key="{department}/{year}/**")


def test_a_later_source_wins(library: World) -> None:
    library.put("legal/2019/a.md", "---\nyear: 2020\ntags: [x, y]\nother: 1\n---\n\nText of a.")
    sidecar(library, "legal/2019/a.md", tags=["z"], day="2026-01-31", rate=1)
    library.put("legal/2019/b.txt", "Text of b.")
    library.put("c.txt", "Text of c.")
    library.ingest()
    assert values(library, "legal/2019/a.md") == {
        "department": "legal", "year": 2020, "tags": ["z"], "day": "2026-01-31", "rate": 1.0,
    }  # fmt: skip
    assert values(library, "legal/2019/b.txt") == {"department": "legal", "year": 2019}
    assert values(library, "c.txt") == {}
    assert sorted(library.texts()) == ["c.txt", "legal/2019/a.md", "legal/2019/b.txt"]
    library.check_nothing_left()
    assert Planner(library.context).plans() == []


def test_plain_lancedb_filters_by_a_column(library: World) -> None:
    library.put("legal/2019/a.txt", "Text of a.")
    library.put("legal/2021/b.txt", "Text of b.")
    library.ingest()
    import lancedb  # noqa: PLC0415  most processes of the tests do not need it, and it takes two seconds

    table = lancedb.connect(str(Path(library.settings.lancedb_uri))).open_table(library.settings.corpus)
    found = table.search().where("year >= 2020 AND department = 'legal'").to_list()
    assert [row["document"] for row in found] == ["legal/2021/b.txt"]


@pytest.mark.promise("columns")
def test_a_change_of_the_sidecar_alone_embeds_nothing_and_moves_no_row(library: World) -> None:
    for name in "abc":
        library.put(f"legal/2019/{name}.txt", paragraphs(name, 4))
    library.ingest()
    before = library.embeddings.requests
    vectors = library.corpus.table.rows(library.head, ["id", "vector"]).to_pylist()
    fragments = [state.number for state in library.corpus.table.fragments(library.head)]
    sidecar(library, "legal/2019/a.txt", tags=["new"])
    sidecar(library, "legal/2019/b.txt", year=2000, tags=[])
    summary = library.ingest()
    assert [len(publication.documents) for publication in summary.publications] == [1 + 1]
    assert summary.publications[0].usage.embedded == 0
    assert library.embeddings.requests == before
    assert library.corpus.table.rows(library.head, ["id", "vector"]).to_pylist() == vectors
    assert [state.number for state in library.corpus.table.fragments(library.head)] == fragments
    assert values(library, "legal/2019/a.txt") == {"department": "legal", "year": 2019, "tags": ["new"]}
    assert values(library, "legal/2019/b.txt") == {"department": "legal", "year": 2000, "tags": []}
    assert values(library, "legal/2019/c.txt") == {"department": "legal", "year": 2019}
    library.check_nothing_left()
    assert Planner(library.context).plans() == []
    (Path(library.settings.source) / "legal/2019/a.txt.metadata.json").unlink()
    library.ingest()
    assert values(library, "legal/2019/a.txt") == {"department": "legal", "year": 2019}
    assert library.embeddings.requests == before
    library.check_nothing_left()


@pytest.mark.promise("columns")
def test_a_plan_of_a_change_of_columns_alone_costs_nothing(library: World) -> None:
    for name in "abc":
        library.put(f"legal/2019/{name}.txt", paragraphs(name, 4))
    library.ingest()
    sidecar(library, "legal/2019/a.txt", tags=["new"])
    sidecar(library, "legal/2019/b.txt", tags=["new"])
    plans = Planner(library.context).plans()
    for estimated in (estimate(library.context, plans), count(library.context, plans)):
        assert (estimated.columns_only, estimated.documents, estimated.removals) == (2, 0, 0)
        assert (estimated.to_embed, estimated.chunks, estimated.tokens) == (0, 0, 0)
        assert "2 more documents change columns only" in estimate_line(estimated, 1)
    library.put("legal/2019/b.txt", paragraphs("other", 4))
    plans = Planner(library.context).plans()
    for estimated in (estimate(library.context, plans), count(library.context, plans)):
        assert (estimated.columns_only, estimated.documents) == (1, 1)
        assert estimated.to_embed > 0
    other = declare(library, COLUMNS, columns_from_key="{department}/{year}/**", chunk_size=500)
    everything = estimate(other.context, Planner(other.context).plans())
    assert (everything.columns_only, everything.documents) == (0, 3)


def test_a_sidecar_that_says_the_same_publishes_nothing(library: World) -> None:
    library.put("a.txt", "Text of a.")
    path = sidecar(library, "a.txt", tags=["x"])
    library.ingest()
    head = library.head
    path.write_text(json.dumps({"tags": ["x"], "unknown": 1}))
    assert [plan.key for plan in library.ingest().unchanged] == ["a.txt"]
    assert library.head == head
    assert Planner(library.context).plans() == []


def test_a_wrong_value_fails_its_document_and_keeps_what_was_published(library: World) -> None:
    library.put("a.txt", "Text of a.")
    library.put("b.txt", "Text of b.")
    path = sidecar(library, "a.txt", year=2020)
    library.ingest()
    path.write_text(json.dumps({"year": "late"}))
    library.put("b.txt", "Other text of b.")
    summary = library.ingest()
    assert str(summary.failed["a.txt"][1]) == (
        "Document 'a.txt' has the value 'late' of column 'year' in its sidecar, which is not of type int. Its "
        "published version, if any, was not changed. Correct the value, or the type of the column."
    )
    assert isinstance(summary.failed["a.txt"][1], ColumnValueError)
    assert values(library, "a.txt") == {"year": 2020}
    assert library.text_at("b.txt") == "Other text of b."
    library.put("n.txt", "Text of n.")
    library.put("n.txt.metadata.json", "{")
    assert "malformed sidecar" in str(library.ingest().failed["n.txt"][1])
    path.write_text(json.dumps({"year": 2021}))
    library.ingest()
    assert values(library, "a.txt") == {"year": 2021}


@pytest.mark.promise("columns")
def test_columns_are_added_dropped_and_widened_without_embedding(world: World) -> None:
    plain = declare(world, {})
    plain.put("legal/2019/a.txt", paragraphs("a", 3))
    plain.put("sales/2020/b.txt", paragraphs("b", 3))
    plain.ingest()
    requests = world.embeddings.requests
    first = declare(world, {"department": "string", "year": "int"}, columns_from_key="{department}/{year}/**")
    first.ingest()
    assert values(first, "legal/2019/a.txt") == {"department": "legal", "year": 2019}
    first.check()
    wider = declare(world, {"department": "string", "year": "float"}, columns_from_key="{department}/{year}/**")
    assert values(wider, "legal/2019/a.txt") == {"department": "legal", "year": 2019}
    assert [plan.key for plan in wider.ingest().unchanged] == ["legal/2019/a.txt", "sales/2020/b.txt"]
    assert wider.corpus.table.rows(wider.head, ["year"], "department = 'sales'")["year"].to_pylist()[0] == 2020.0
    wider.check()
    fewer = declare(world, {"year": "float"}, columns_from_key="*/{year}/**", confirmed=True)
    assert len(fewer.ingest().unchanged) == 2
    assert "department" not in fewer.corpus.table.columns(fewer.head)
    fewer.check()
    again = declare(
        world, {"year": "float", "department": "string"}, columns_from_key="{department}/{year}/**", confirmed=True
    )
    again.ingest()
    assert values(again, "sales/2020/b.txt")["department"] == "sales"
    none = declare(world, {}, confirmed=True)
    none.ingest()
    none.check_nothing_left()
    assert world.embeddings.requests == requests


@pytest.mark.promise("columns")
def test_a_rollback_brings_the_columns_back(library: World) -> None:
    library.put("a.txt", paragraphs("a", 3))
    sidecar(library, "a.txt", tags=["x"], year=2000)
    version = library.ingest().publications[0].version
    sidecar(library, "a.txt", tags=["y"])
    library.ingest()
    assert values(library, "a.txt") == {"tags": ["y"]}
    requests = library.embeddings.requests
    library.roll_back(version)
    assert values(library, "a.txt") == {"tags": ["x"], "year": 2000}
    assert library.embeddings.requests == requests
    library.check_nothing_left()
    assert Planner(library.context).plans() == []
    sidecar(library, "a.txt", tags=["z"])
    library.ingest()
    assert values(library, "a.txt") == {"tags": ["z"]}


@pytest.mark.promise("columns")
def test_indices_over_columns_find_the_same_rows_before_and_after_a_change(library: World) -> None:
    for number in range(6):
        library.put(f"legal/{2000 + number}/{number}.txt", paragraphs(f"t{number}", 3))
        sidecar(library, f"legal/{2000 + number}/{number}.txt", tags=["all", f"t{number % 2}"])
    library.ingest()
    kinds = [replace(kind, least=1, tail=1) for kind in column_indices(library.settings.declared_columns)]

    def found(predicate: str) -> set[str]:
        rows = library.corpus.table.rows(library.head, ["document"], predicate)["document"].to_pylist()
        return {key[-5] for key in rows}

    for report in update_indices(library.corpus, kinds):
        assert (report.unindexed, report.segments) == (0, 1)
    assert found("year >= 2003") == set("345")
    assert found("array_has_any(tags, ['t0'])") == set("024")
    library.check_nothing_left()
    sidecar(library, "legal/2000/0.txt", tags=["t1"], year=2009)
    library.ingest()
    for _ in range(2):
        assert found("year >= 2003") == set("0345")
        assert found("year = 2000") == set()
        assert found("array_has_any(tags, ['t0'])") == set("24")
        assert found("array_has_any(tags, ['all'])") == set("12345")
        assert [report.unindexed for report in update_indices(library.corpus, kinds)] == [0] * len(kinds)
    library.check_nothing_left()


def test_a_compaction_and_a_rebuild_keep_the_columns(library: World) -> None:
    for name in "abcdefghij":
        library.put(f"legal/2019/{name}.txt", paragraphs(name, 2))
        sidecar(library, f"legal/2019/{name}.txt", tags=[name])
        library.ingest()
    sidecar(library, "legal/2019/a.txt", tags=["new"])
    library.ingest()
    assert compact(library.corpus).groups == 1
    assert values(library, "legal/2019/a.txt")["tags"] == ["new"]
    library.check()
    with library.database.transaction() as connection:
        connection.execute(
            "UPDATE ingest_pipeline.document SET columns = %s WHERE key = 'legal/2019/b.txt'", ('{"tags": ["bad"]}',)
        )
    assert {violation.invariant for violation in library.audit().violations} == {"columns match"}
    requests = library.embeddings.requests
    assert not repair_all(library).failed
    library.check()
    assert library.embeddings.requests == requests
    assert values(library, "legal/2019/b.txt")["tags"] == ["b"]
    assert values(library, "legal/2019/a.txt")["tags"] == ["new"]


def repair_all(world: World) -> Summary:
    report = world.audit()

    async def run() -> Summary:
        async with OpenAIEmbedder(world.embedding_settings) as embedder:
            return await repair(world.context, embedder, report)

    return asyncio.run(run())


@pytest.fixture
def store(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return S3Store(s3.bucket, client_options={"allow_http": True})


def wait_for_another_second() -> None:
    """The store says in whole seconds when an object was modified."""
    time.sleep(1.01 - time.time() % 1)


def test_metadata_of_an_object_is_read_for_changed_objects(world: World, s3: S3Server, store: S3Store) -> None:
    library = declare(world, COLUMNS, source=s3.url("docs"))
    store.put("docs/a.txt", b"Text of a.", attributes={"department": "legal", "tags": "x,y"})
    library.ingest()
    assert values(library, "a.txt") == {"department": "legal", "tags": ["x", "y"]}
    requests = library.embeddings.requests
    wait_for_another_second()
    store.put("docs/a.txt", b"Text of a.", attributes={"department": "sales"})
    library.ingest()
    assert values(library, "a.txt") == {"department": "sales"}
    assert library.embeddings.requests == requests
    assert Planner(library.context).plans() == []


@pytest.mark.promise("columns")
def test_tags_of_an_object_are_read_when_the_object_changes(
    world: World, s3: S3Server, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, trusted = httpx2.get, list[object]()

    def note(*arguments: Any, verify: object = None, **options: Any) -> httpx2.Response:
        trusted.append(verify)
        return get(*arguments, verify=verify, **options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(httpx2, "get", note)
    library = declare(world, COLUMNS, source=s3.url("docs"), columns_from_tags=["department", "tags"])
    store.put("docs/a b+ü.txt", b"Text of a.", attributes={"department": "of the metadata", "year": "2000"})
    s3.tag("docs/a b+ü.txt", department="legal/tax @x", tags="x y", year="1999")
    store.put("docs/b.txt", b"Text of b.", attributes={"department": "sales"})
    library.ingest()
    assert values(library, "a b+ü.txt") == {"department": "legal/tax @x", "tags": ["x", "y"], "year": 2000}
    assert values(library, "b.txt") == {"department": "sales"}
    requests = library.embeddings.requests
    s3.tag("docs/a b+ü.txt", department="sales")
    assert Planner(library.context).plans() == []
    wait_for_another_second()
    store.put("docs/a b+ü.txt", b"Text of a.")
    s3.tag("docs/a b+ü.txt", department="sales")
    library.ingest()
    assert values(library, "a b+ü.txt") == {"department": "sales"}
    assert library.embeddings.requests == requests
    assert Planner(library.context).plans() == []
    assert trusted[-1] in trusted[:-1], "no request loads the certificates again"
    assert None not in trusted


@pytest.mark.promise("columns")
@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("503", "S3 answered 503 SlowDown to a request for the tags of 'a.txt'"),
        ("reset", "no answer to a request for tags"),
        ("403", "permission s3:GetObjectTagging"),
    ],
)
def test_tags_that_cannot_be_read_publish_nothing(  # noqa: PLR0917  pytest's fixtures come as arguments
    world: World, s3: S3Server, store: S3Store, fault: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(bucket, "time", SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic))
    library = declare(world, COLUMNS, source=s3.url(fault), columns_from_tags=["department"])
    store.put(f"{fault}/a.txt", b"Text of a.")
    s3.tag(f"{fault}/a.txt", department="legal")
    with s3.failing("tagging", fault) as failed, pytest.raises(SourceUnavailableError, match=problem):
        library.ingest()
    attempts = 1 if fault == "403" else 4
    assert failed == [attempts]
    assert pauses == [0.2, 0.4, 0.8][: attempts - 1], "twice as long each time, and none after the last attempt"
    with s3.failing("tagging", fault, times=attempts - 1):
        library.ingest()
    assert values(library, "a.txt") == {"department": "legal"}
