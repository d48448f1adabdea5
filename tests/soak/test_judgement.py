"""The storm's own eyes: each thing that it calls a violation is seen, and bad luck is not taken for one."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pyarrow as pa
import pytest

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.erasure.erase import erase
from ingest_pipeline.postgres.catalog.documents import DocumentRow
from ingest_pipeline.postgres.ledger.erasures import allow
from ingest_pipeline.types import ChunkRow, TextPiece, text_hash
from tests.support.servers.embedding_server import vector_of
from tests.support.storm.contents import Contents, mark_of
from tests.support.storm.disruptions import Disruptions
from tests.support.storm.embeddings import BilledRequest, judge_billing
from tests.support.storm.figures import Figures
from tests.support.storm.latest_reader import faults_of
from tests.support.storm.ledger import ErasedKeys, Forgotten, blocked_since, erased_keys, erased_since, record_blocks
from tests.support.storm.readers import Reader, Reading
from tests.support.storm.users.erasures import Stores, remains_in
from tests.support.storm.users.notices import fate_of_a_message
from tests.support.world import World

KEY = "a.txt"
OLD, NEW = "old one. " * 20, "new one. " * 20


@pytest.fixture
def figures() -> Figures:
    return Figures(0)


@pytest.fixture
def contents() -> Contents:
    found = Contents(Chunker(1000, 0))
    for text in (OLD, NEW):
        found.done(found.begin(KEY, text))
    return found


def reading(
    version: int,
    *texts: str,
    sagas: list[UUID] | None = None,
    chunks: int | None = None,
    vector: np.ndarray[Any, Any] | None = None,
) -> Reading:
    """What a reader finds: one row a text, and as many chunks in the catalog unless told otherwise."""
    sagas = sagas or [UUID(int=version)] * len(texts)
    ids = [uuid4() for _ in texts]
    rows = [
        {
            "id": str(i),
            "document": KEY,
            "ordinal": n,
            "saga": str(s),
            "text": t,
            "vector": (vector_of(t, 32) if vector is None else vector).tolist(),
        }
        for n, (i, s, t) in enumerate(zip(ids, sagas, texts, strict=True))
    ]
    listed = [
        ChunkRow(i, KEY, n, 0, 1, text_hash(t), sagas[n]) for n, (i, t) in enumerate(zip(ids, texts, strict=True))
    ]
    row = DocumentRow(KEY, KEY, sagas[0], "", 1, datetime.now(UTC), "", 1, len(texts), 0, 0, [0], version)
    return Reading(version, {KEY: row}, {KEY: listed[: len(texts) if chunks is None else chunks]}, {KEY: rows})


def test_a_whole_published_content_is_no_fault(contents: Contents) -> None:
    assert reading(2, NEW).faults(contents) == []


def test_a_mixture_of_two_contents_is_seen(contents: Contents) -> None:
    (fault,) = reading(2, OLD, NEW).faults(contents)
    assert "never had" in fault


def test_a_chunk_that_one_store_lacks_is_seen(contents: Contents) -> None:
    assert any("are not the" in fault for fault in reading(2, NEW, chunks=0).faults(contents))


def test_chunks_of_two_sagas_are_seen(contents: Contents) -> None:
    half = len(NEW) // 2
    faults = reading(2, NEW[:half], NEW[half:], sagas=[uuid4(), uuid4()]).faults(contents)
    assert any("its chunks are of" in fault for fault in faults)


def test_a_vector_of_another_text_is_seen(contents: Contents) -> None:
    found = reading(2, NEW)
    found.rows[KEY][0]["vector"] = vector_of(OLD, 32).tolist()
    assert any("vector" in fault for fault in found.faults(contents))


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (reading(2, NEW), None),
        (reading(2, OLD, NEW), "never had"),
        (reading(2, NEW[:90], NEW[90:], sagas=[UUID(int=1), UUID(int=2)]), "several publications"),
        (reading(2, NEW, vector=vector_of(OLD, 32)), "vector of another text"),
    ],
    ids=["published", "mixed", "two sagas", "other vector"],
)
def test_what_a_reader_of_latest_must_not_see_is_seen(contents: Contents, rows: Reading, fault: str | None) -> None:
    vectors = pa.array([row["vector"] for row in rows.rows[KEY]], pa.list_(pa.float32(), 32))
    table = pa.Table.from_pylist(rows.rows[KEY]).drop_columns("vector").append_column("vector", vectors)
    found = faults_of(table, contents)
    assert [fault in one for one in found] == [True] if fault else found == []


def test_a_document_that_goes_back_is_seen(contents: Contents, figures: Figures) -> None:
    reader = Reader(contents, figures, Random(0))
    for found in (reading(2, OLD), reading(3, NEW)):
        reader.check_progress(found)
    assert figures.violations == []
    reader.check_progress(reading(4, OLD))
    assert "went back" in figures.violations[0]


@pytest.mark.parametrize(
    ("lost", "later", "disrupted", "broken"),
    [(False, 60.0, False, True), (True, 60.0, False, False), (False, 1.0, False, False), (False, 60.0, True, False)],
    ids=["without a reason", "answer lost", "two writers at once", "in flight at a disruption"],
)
def test_a_text_embedded_twice_needs_a_reason(  # noqa: PLR0917  pytest's parameters come as arguments
    contents: Contents, figures: Figures, lost: bool, later: float, disrupted: bool, broken: bool
) -> None:
    disruptions = Disruptions()
    moment = time.monotonic() if disrupted else 0.0
    disruptions.moment()
    (text,) = (chunk.text for chunk in Chunker(1000, 0).chunks([TextPiece(NEW)], markdown=False))
    embedded = [
        BilledRequest(moment, moment, [text], lost),
        BilledRequest(moment + later, moment + later, [text], lost=False),
    ]
    judge_billing(embedded, contents, disruptions, figures)
    assert bool(figures.violations) == broken


def test_a_text_that_entered_the_corpus_twice_may_be_embedded_twice(contents: Contents, figures: Figures) -> None:
    contents.done(contents.begin(KEY, None))
    contents.done(contents.begin(KEY, NEW))
    (text,) = (chunk.text for chunk in Chunker(1000, 0).chunks([TextPiece(NEW)], markdown=False))
    judge_billing([BilledRequest(n, n, [text], lost=False) for n in (0.0, 60.0)], contents, Disruptions(), figures)
    assert figures.violations == []


def test_an_erased_document_that_a_reader_sees_is_seen(contents: Contents) -> None:
    found = reading(2, NEW)
    states = dict.fromkeys(found.sagas(), "published")
    assert found.forbidden(states, set()) == []
    (fault,) = found.forbidden(states, {KEY})
    assert "was erased, and is there" in fault
    only_in_the_catalog = Reading(2, found.documents, {}, {})
    assert only_in_the_catalog.forbidden({}, {KEY}), "an empty document has no rows"
    assert found.faults(contents, besides=[KEY]) == []


@pytest.mark.parametrize("state", ["blocked", "prepared", "failed", None])
def test_rows_that_are_not_published_are_seen(state: str | None) -> None:
    found = reading(2, NEW)
    (fault,) = found.forbidden(dict.fromkeys(found.sagas(), state) if state else {}, set())
    assert fault.endswith(f"which is {state or 'unknown'}")


def test_an_erased_document_may_be_absent_and_comes_back_no_older(contents: Contents, figures: Figures) -> None:
    reader = Reader(contents, figures, Random(0))
    reader.check_progress(reading(2, NEW))
    reader.check_progress(Reading(3, {}, {}, {}), {KEY})
    assert figures.violations == []
    reader.check_progress(reading(4, OLD), {KEY})
    assert "went back" in figures.violations[0]


def test_a_document_that_vanishes_without_an_erasure_is_seen(contents: Contents, figures: Figures) -> None:
    reader = Reader(contents, figures, Random(0))
    reader.check_progress(reading(2, NEW))
    reader.check_progress(Reading(3, {}, {}, {}), {"another.txt"})
    assert "went back" in figures.violations[0]


@pytest.mark.parametrize(
    ("published", "broken"), [({}, False), ({NEW: 5.0}, True), ({NEW: 45.0}, False)], ids=["never", "before", "after"]
)
def test_only_vectors_that_an_erasure_deleted_may_be_embedded_again(
    contents: Contents, figures: Figures, published: dict[str, float], broken: bool
) -> None:
    """Those of a document that is published, and not erased, are kept."""
    (text,) = (chunk.text for chunk in Chunker(1000, 0).chunks([TextPiece(NEW)], markdown=False))
    forgotten = Forgotten(((30.0, 31.0),), {text_hash(text): moment for moment in published.values()})
    twice = [BilledRequest(moment, moment, [text], lost=False) for moment in (1.0, 60.0)]
    judge_billing(twice, contents, Disruptions(), figures, forgotten.has)
    assert bool(figures.violations) == broken
    assert not forgotten.has(text, 50.0, 60.0), "the erasure was over"


def test_what_is_left_of_an_erased_document_is_seen(world: World) -> None:
    """In a file as it is, in a compressed file of Lance, and in a row of Postgres."""
    text = f"{mark_of(KEY)}1 of 7 words " * 40
    world.put(KEY, text)
    world.ingest()
    stores = Stores(world.database.url, world.settings.table_uri, None)
    folder = Path(world.settings.table_uri)
    found = remains_in(stores, [KEY])
    assert any("/data/" in place for place in found), found
    assert remains_in(stores, ["b.txt"]) == []
    erase(world.corpus, [KEY], reason="a request")
    world.check_nothing_left()
    assert remains_in(stores, [KEY]) == []
    (folder / "_spool").mkdir(exist_ok=True)
    (folder / "_spool" / "left.f32").write_bytes(text.encode())
    assert len(remains_in(stores, [KEY])) == 1
    with world.database.transaction() as connection:
        connection.execute("UPDATE ingest_pipeline.saga SET error = %s WHERE state = 'published'", (text,))
    assert any("table ingest_pipeline.saga" in place for place in remains_in(stores, [KEY]))


def test_the_ledger_says_what_was_blocked_and_erased_since(world: World) -> None:
    """Runs leave such documents alone, so the storm must not ask for them."""
    began = datetime.now(UTC)
    for key in (KEY, "b.txt"):
        world.put(key, NEW + key)
    world.ingest()
    record_blocks(world.database.url)
    world.put("b.txt", "")
    gated = World(world.database, world.settings.replace(gate_max_lost=0), world.embeddings)
    assert len(gated.ingest().blocked) == 1
    erase(world.corpus, [KEY], reason="a request")
    later = datetime.now(UTC) + timedelta(minutes=10)
    with world.database.transaction() as connection:
        assert blocked_since(connection, began) == {"b.txt"}, "also after the erasure has ended it"
        assert blocked_since(connection, later) == set()
        assert erased_since(connection, [KEY, "b.txt"], later) == {KEY}
        assert erased_keys(connection, [KEY, "b.txt"], began) == ErasedKeys(frozenset(), frozenset({KEY}))
        assert erased_keys(connection, [KEY, "b.txt"], later).finished == {KEY}
        allow(connection, world.corpus.name, [KEY])
        assert erased_since(connection, [KEY], began) == {KEY}
        assert erased_since(connection, [KEY], later) == set()
        assert erased_keys(connection, [KEY], later) == ErasedKeys(frozenset(), frozenset({KEY}))


def test_messages_get_lost_doubled_and_delivered() -> None:
    random = Random(0)
    assert {fate_of_a_message(random) for _ in range(100)} == {0, 1, 2}
