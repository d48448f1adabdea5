"""Readers of the latest version, which Lance and LanceDB open by default. They never ask Postgres for head."""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa

from ingest_pipeline.errors import UnavailableError
from ingest_pipeline.postgres import history
from ingest_pipeline.postgres.database import Database
from tests.support.storm.contents import Contents, fingerprint
from tests.support.storm.readers import vector_of_text
from tests.support.storm.stage import CORPUS, Stage

_COLUMNS = ["document", "ordinal", "saga", "text", "vector"]
_PAUSE = 0.2


def read_latest(stage: Stage, name: str) -> None:
    """Read until the storm is over."""
    random, before = stage.random(name), 0
    while not stage.calm.wait(_PAUSE):
        try:
            version, rows = _read(stage, random)
        except (OSError, ValueError, RuntimeError):
            stage.figures.count("reads of latest: refused by a store that was down")
            continue
        if version < before:
            stage.figures.violation(f"the latest version went back from {before} to {version}")
        if version > before:
            for fault in faults_of(rows, stage.contents):
                stage.figures.violation(f"latest version {version}: {fault}")
            _check_published(stage, version)
            stage.figures.count("reads of latest: of a new version")
        before = max(before, version)


def _read(stage: Stage, random: Random) -> tuple[int, pa.Table]:
    """The latest version and its rows, by one of the two libraries, without any option that a user would not give."""
    if random.random() < 0.5:
        dataset = lance.dataset(stage.settings.table_uri)
        return dataset.version, dataset.to_table(_COLUMNS)
    table = lancedb.connect(stage.settings.lancedb_uri).open_table(CORPUS)
    return table.version, table.to_arrow().select(_COLUMNS)


def faults_of(rows: pa.Table, contents: Contents) -> list[str]:
    """Everything in a version that no reader may see: a text that the file never had, or parts of two publications."""
    documents: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows.to_pylist():
        documents[row["document"]].append(row)
    found: list[str] = []
    for key, chunks in sorted(documents.items()):
        chunks.sort(key=lambda row: row["ordinal"])
        text = "".join(row["text"] for row in chunks)
        if not contents.sequences(key, fingerprint(text)):
            found.append(f"{key} shows a content that the file never had: {text[:200]!r}")
        if len({row["saga"] for row in chunks}) > 1 or [row["ordinal"] for row in chunks] != list(range(len(chunks))):
            found.append(f"{key} has chunks of several publications")
        if any(
            not np.array_equal(np.asarray(row["vector"], np.float32), vector_of_text(row["text"])) for row in chunks
        ):
            found.append(f"{key} has a vector of another text")
    return found


def _check_published(stage: Stage, version: int) -> None:
    """Check that a version that a reader has seen was committed before."""
    try:
        with Database(stage.database_url) as database, database.transaction() as connection:
            if version not in history.published_versions(connection, CORPUS, [version]):
                stage.figures.violation(f"latest version {version} was visible and is not published")
    except UnavailableError:
        stage.figures.count("reads of latest: not compared with the ledger, which was down")
