"""The storm's own eyes: each thing that it calls a violation is seen, and bad luck is not taken for one."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pyarrow as pa
import pytest

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.postgres.catalog.documents import DocumentRow
from ingest_pipeline.types import ChunkRow, TextPiece, text_hash
from tests.support.servers.embedding_server import vector_of
from tests.support.storm.contents import Contents
from tests.support.storm.disruptions import Disruptions
from tests.support.storm.embeddings import BilledRequest, judge_billing
from tests.support.storm.figures import Figures
from tests.support.storm.latest_reader import faults_of
from tests.support.storm.readers import Reader, Reading

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
