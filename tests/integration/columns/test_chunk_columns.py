"""Columns of chunks: an enricher computes them, they follow their chunk, and no recorded result is paid twice."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ingest_pipeline.errors import DocumentError
from ingest_pipeline.ingestion.context import find_corpus
from ingest_pipeline.ingestion.estimate import count, estimate
from ingest_pipeline.maintenance.audit import audit
from ingest_pipeline.maintenance.compaction import compact
from ingest_pipeline.maintenance.indexing import column_indices, update_indices
from ingest_pipeline.maintenance.retention import retain
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.restore.lost_corpus import open_for_rebuild
from ingest_pipeline.restore.rebuild import rebuild_catalog
from ingest_pipeline.search.search import Hit, filter_at_head, search
from ingest_pipeline.types import Retention, SearchMode
from tests.integration.columns.test_columns import sidecar
from tests.support.servers.databases import empty_database
from tests.support.user_code import WRONG_CHUNK_COLUMNS
from tests.support.world import World, paragraphs

MODULE = "tests.support.user_code"
COLUMNS = {"topic": "string", "length": "int"}


def declare(world: World, calls: Path, chunk_columns: dict[str, str] | None = None, **options: Any) -> World:
    """The same corpus with an enricher of chunks that is billed for each chunk."""
    arguments = {"calls": str(calls)} | {
        name: options.pop(name) for name in ("fingerprint", "prefix", "tokens") if name in options
    }
    settings = world.settings.replace(
        chunk_columns=COLUMNS if chunk_columns is None else chunk_columns,
        enricher={"class": f"{MODULE}.Topics", "arguments": arguments},
        chunker=f"{MODULE}.ObedientChunker",
        **options,
    )
    return World(world.database, settings, world.embeddings, confirm_columns=True)


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def library(world: World, calls: Path) -> World:
    """A corpus in which each line is a chunk, and its first word the topic."""
    return declare(world, calls)


def billed(calls: Path) -> list[str]:
    """The topics that were billed, in the order of the calls."""
    return calls.read_text().split() if calls.exists() else []


def values(world: World, key: str) -> list[dict[str, object]]:
    """The values of the chunks of a document, in their order. They are the same in both stores."""
    names = list(world.settings.chunk_columns)
    rows = world.corpus.table.rows(world.head, ["document", "ordinal", *names]).to_pylist()
    rows = {row["ordinal"]: row for row in rows if row["document"] == key}
    found = [{name: one for name in names if (one := rows[number][name]) is not None} for number in sorted(rows)]
    recorded = [{name: one for name, one in chunk.columns.items() if name in names} for chunk in world.chunks(key)]
    assert found == recorded
    return found


def rows(world: World) -> tuple[list[dict[str, object]], list[int]]:
    """The vectors at head in the order of the rows, and the fragments."""
    found = world.corpus.table.rows(world.head, ["id", "vector"]).to_pylist()
    return found, [state.number for state in world.corpus.table.fragments(world.head)]


def topics(world: World, key: str) -> list[object]:
    return [one.get("topic") for one in values(world, key)]


def find(world: World, question: str, *where: str, mode: SearchMode = "text") -> list[Hit]:
    corpus = find_corpus(world.database, world.settings)
    conditions = filter_at_head(corpus, where)
    return asyncio.run(search(corpus, None, question, 50, mode=mode, where=conditions))


def test_each_chunk_has_its_own_values_which_a_search_filters_by(library: World) -> None:
    library.put("a.txt", "apples are red\nberries are red too\n")
    library.put("b.txt", "berries again are red\n")
    library.ingest()
    assert values(library, "a.txt") == [{"topic": "apples", "length": 15}, {"topic": "berries", "length": 20}]
    hits = find(library, "red", "topic=berries")
    assert sorted((hit.document, hit.ordinal, hit.columns["topic"]) for hit in hits) == [
        ("a.txt", 1, "berries"),
        ("b.txt", 0, "berries"),
    ]
    assert [hit.ordinal for hit in find(library, "red", "length<16", "key=a*")] == [0]
    library.check_nothing_left()
    assert Planner(library.context).plans() == []


@pytest.mark.promise("chunk-columns")
def test_values_follow_a_chunk_that_an_edit_moves_and_only_a_new_chunk_is_billed(library: World, calls: Path) -> None:
    library.put("a.txt", "one is first\ntwo is second\nthree is third\n")
    library.ingest()
    embedded = library.embeddings.embedded
    library.put("a.txt", "zero is new\none is first\nthree is third\ntwo is second\n")
    library.ingest()
    assert topics(library, "a.txt") == ["zero", "one", "three", "two"]
    assert billed(calls) == ["one", "two", "three", "zero"]
    assert library.embeddings.embedded == embedded + 1
    library.check_nothing_left()


@pytest.mark.promise("chunk-columns")
def test_equal_chunks_are_billed_once_in_all_documents(library: World, calls: Path) -> None:
    library.put("a.txt", "same words\nother words\nsame words\n")
    library.ingest()
    library.put("b.txt", "same words\n")
    library.ingest()
    assert topics(library, "a.txt") == ["same", "other", "same"]
    assert topics(library, "b.txt") == ["same"]
    assert billed(calls) == ["same", "other"]
    library.check()


def test_many_chunks_are_enriched_in_batches(library: World, calls: Path) -> None:
    library.put("a.txt", "".join(f"w{number} is a line\n" for number in range(150)))
    library.ingest()
    assert topics(library, "a.txt") == [f"w{number}" for number in range(150)] == billed(calls)
    with library.database.transaction() as connection:
        row = connection.execute(
            "SELECT sum(extension_tokens)::int AS tokens, sum(extension_requests)::int AS requests "
            "FROM ingest_pipeline.saga"
        ).fetchone()
    assert row == {"tokens": 1500, "requests": 3}
    library.check()


def test_a_change_of_the_sidecar_pays_for_no_chunk(world: World, calls: Path) -> None:
    library = declare(world, calls, columns={"year": "int"})
    library.put("a.txt", "one is first\ntwo is second\n")
    sidecar(library, "a.txt", year=2019, topic="not from here")
    library.ingest()
    sidecar(library, "a.txt", year=2020)
    library.ingest()
    assert [hit.columns["year"] for hit in find(library, "second", "topic=two")] == [2020]
    assert topics(library, "a.txt") == ["one", "two"] == billed(calls)
    library.check_nothing_left()


@pytest.mark.promise("chunk-columns")
def test_another_fingerprint_embeds_nothing_and_a_rollback_brings_the_values_back(
    library: World, calls: Path, world: World
) -> None:
    library.put("a.txt", "one is first\ntwo is second\n")
    library.ingest()
    before, embedded = library.head, library.embeddings.embedded
    vectors = rows(library)
    other = declare(world, calls, fingerprint="topics-2", prefix="new ")
    plans = Planner(other.context).plans()
    assert [estimate(other.context, plans).columns_only, count(other.context, plans).columns_only] == [1, 1]
    other.ingest()
    assert topics(other, "a.txt") == ["new one", "new two"]
    assert rows(other) == vectors
    assert other.embeddings.embedded == embedded
    assert Planner(other.context).plans() == []
    other.roll_back(before)
    assert topics(other, "a.txt") == ["one", "two"]
    other.check_nothing_left()


@pytest.mark.promise("chunk-columns")
def test_another_fingerprint_changes_the_values_of_the_documents_that_are_read_again_alone(
    library: World, calls: Path, world: World
) -> None:
    library.put("a.txt", "one is first\ntwo is second\n")
    library.put("b.txt", "three is third\nfour is fourth\n")
    library.ingest()
    vectors = rows(library)
    other = declare(world, calls, fingerprint="topics-2", prefix="new ")
    other.ingest(["b.txt"])
    assert (topics(other, "a.txt"), topics(other, "b.txt")) == (["one", "two"], ["new three", "new four"])
    other.check()
    none = World(world.database, other.settings.replace(enricher=None), world.embeddings)
    none.ingest(["a.txt"])
    assert (topics(none, "a.txt"), topics(none, "b.txt")) == ([None, None], ["new three", "new four"])
    assert rows(none) == vectors
    none.check_nothing_left()


def test_a_document_that_an_enricher_fails_for_keeps_its_values(world: World, calls: Path) -> None:
    library = declare(world, calls)
    library.put("a.txt", "one is first\n")
    library.put("b.txt", "two is second\n")
    library.put("c.txt", "three does die\n")
    library.ingest()
    settings = library.settings.replace(enricher=f"{MODULE}.ObedientChunkEnricher")
    other = World(world.database, settings, world.embeddings)
    assert set(other.ingest().failed) == {"c.txt"}
    assert [topics(other, key) for key in ("a.txt", "b.txt", "c.txt")] == [["one"], ["two"], ["three"]]
    other.check()


@pytest.mark.promise("chunk-columns")
@pytest.mark.parametrize("what", [*WRONG_CHUNK_COLUMNS, "raise", "die"])
def test_a_wrong_result_fails_its_document_alone(world: World, what: str) -> None:
    settings = world.settings.replace(
        columns={"title": "string"}, chunk_columns={"topic": "string"}, enricher=f"{MODULE}.ObedientChunkEnricher"
    )
    library = World(world.database, settings, world.embeddings)
    library.put("a.md", "# Heading\n\nsome words\n")
    library.put("b.md", f"# Heading\n\nwords and {what}\n")
    library.put("c.md", "# Other\n\nsome words\n")
    summary = library.ingest()
    assert set(summary.failed) == {"b.md"}
    _, error = summary.failed["b.md"]
    assert isinstance(error, DocumentError)
    assert error.reason == ("with a wrong column value" if what == "type" else "not enriched")
    assert {hit.document: hit.columns for hit in find(library, "words")} == {
        "a.md": {"title": "# Heading", "topic": "Heading"},
        "c.md": {"title": "# Other", "topic": "Other"},
    }
    library.check()


@pytest.mark.promise("chunk-columns")
def test_chunk_columns_are_added_widened_dropped_and_added_again(library: World, world: World, calls: Path) -> None:
    first = declare(world, calls, {"topic": "string"})
    first.put("a.txt", "one is first\ntwo is second\n")
    first.put("b.txt", paragraphs("b", 3))
    first.ingest()
    embedded = first.embeddings.embedded
    library.ingest()
    assert values(library, "a.txt") == [{"topic": "one", "length": 13}, {"topic": "two", "length": 14}]
    wider = declare(world, calls, {"topic": "string", "length": "float"})
    assert wider.corpus
    assert values(wider, "a.txt") == [{"topic": "one", "length": 13.0}, {"topic": "two", "length": 14.0}]
    wider.check()
    wider.ingest()
    dropped = declare(world, calls, {})
    assert dropped.corpus
    dropped.check()
    again = declare(world, calls, {"topic": "string"})
    assert again.corpus
    assert topics(again, "a.txt") == ["one", "two"]
    again.check()
    again.ingest()
    assert again.embeddings.embedded == embedded
    assert billed(calls).count("one") == 1
    again.check_nothing_left()


def test_a_column_that_moves_from_documents_to_chunks_takes_no_value_along(world: World, calls: Path) -> None:
    of_documents = World(
        world.database, world.settings.replace(columns={"topic": "string"}), world.embeddings, confirm_columns=True
    )
    of_documents.put("a.txt", "one is first\n")
    sidecar(of_documents, "a.txt", topic="of the document")
    of_documents.ingest()
    of_chunks = declare(world, calls, {"topic": "string"})
    assert of_chunks.corpus
    of_chunks.check()
    of_chunks.ingest()
    assert topics(of_chunks, "a.txt") == ["one"]
    back = World(of_documents.database, of_documents.settings, world.embeddings, confirm_columns=True)
    assert back.corpus
    back.check()
    back.ingest()
    assert [hit.columns for hit in find(back, "first")] == [{"topic": "of the document"}]
    back.check()


@pytest.mark.promise("chunk-columns")
@pytest.mark.parametrize("changed", ['{"topic": "three", "length": 13}', "{}"])
def test_an_audit_finds_other_values_in_the_catalog(library: World, changed: str) -> None:
    library.put("a.txt", "one is first\ntwo is second\n")
    library.put("b.txt", "one is first\n")
    library.ingest()
    with library.database.transaction() as connection:
        connection.execute(
            "UPDATE ingest_pipeline.chunk SET columns = %s WHERE document = 'a.txt' AND ordinal = 0", (changed,)
        )
    for report in (audit(library.corpus), audit(library.corpus, ["a.txt", "b.txt"])):
        assert [(one.invariant, one.document, len(one.ids)) for one in report.violations] == [
            ("columns match", "a.txt", 1)
        ]


def test_values_that_are_exchanged_between_two_chunks_are_found(library: World) -> None:
    library.put("a.txt", "one is first\ntwo is other\n")
    library.ingest()
    with library.database.transaction() as connection:
        connection.execute(
            "UPDATE ingest_pipeline.chunk c SET columns = o.columns FROM ingest_pipeline.chunk o "
            "WHERE c.document = o.document AND c.saga = o.saga AND c.ordinal = 1 - o.ordinal"
        )
    assert [one.invariant for one in audit(library.corpus).violations] == ["columns match"]


def test_an_index_over_a_chunk_column_finds_the_same_rows(library: World) -> None:
    for number in range(4):
        library.put(f"{number}.txt", "".join(f"t{line} line of {number}\n" for line in range(8)))
        library.ingest()
    conditions = (["topic=t3"], ["length>=5", "topic=t1"])
    before = [sorted((hit.document, hit.ordinal) for hit in find(library, "line", *where)) for where in conditions]
    (kinds,) = [column_indices(library.context.columns)]
    assert [kind.kind for kind in kinds] == ["BTREE", "BTREE"]
    update_indices(library.corpus, [type(kind)(kind.column, kind.kind, 1, 1) for kind in kinds])
    after = [sorted((hit.document, hit.ordinal) for hit in find(library, "line", *where)) for where in conditions]
    assert before == after
    assert [len(one) for one in before] == [4, 4]
    library.check()


def test_a_compaction_and_a_rebuild_keep_the_values(
    library: World, world: World, calls: Path, postgres: str, entrance: str
) -> None:
    for key in ("a.txt", "b.txt"):
        library.put(key, f"one is in {key}\ntwo is in {key}\n")
        library.ingest()
    compact(library.corpus)
    assert topics(library, "a.txt") == ["one", "two"]
    library.check()
    paid = billed(calls)
    with closing(Database(empty_database(postgres, entrance)).open()) as database:
        assert rebuild_catalog(open_for_rebuild(database, library.settings)) is not None
        again = World(database, library.settings, world.embeddings)
        assert topics(again, "a.txt") == ["one", "two"]
        assert audit(again.corpus).violations == []
    assert billed(calls) == paid


@pytest.mark.promise("chunk-columns")
def test_retention_keeps_results_of_the_chunks_that_an_edit_left(library: World, calls: Path) -> None:
    library.put("a.txt", "one is first\ntwo is second\n")
    library.ingest()
    library.put("a.txt", "one is first\nthree is new\n")
    library.ingest()
    with library.database.transaction() as connection:
        connection.execute("UPDATE ingest_pipeline.extension_result SET used_at = now() - interval '90 days'")
        connection.execute("UPDATE ingest_pipeline.saga SET ended_at = now() - interval '90 days'")
    retain(library.corpus, Retention(days=0, publications=1))
    library.put("a.txt", "zero is newer\none is first\nthree is new\n")
    library.ingest()
    assert billed(calls) == ["one", "two", "three", "zero"]
    library.check()
