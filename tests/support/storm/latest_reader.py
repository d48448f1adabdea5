"""Readers of the latest version, which Lance and LanceDB open by default. They never ask Postgres for head."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from random import Random
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from ingest_pipeline.errors import UnavailableError
from ingest_pipeline.postgres.catalog import history
from ingest_pipeline.postgres.database import Database
from tests.support.storm.contents import Contents, fingerprint
from tests.support.storm.ledger import erased_keys, states_of
from tests.support.storm.readers import unpublished_rows, vector_of_text
from tests.support.storm.stage import CORPUS, Stage

_COLUMNS = ["document", "ordinal", "saga", "text", "vector"]
_PAUSE = 0.1


def read_latest(stage: Stage, name: str) -> None:
    """Read until the storm is over."""
    random, before = stage.random(name), 0
    while not stage.calm.wait(_PAUSE):
        began = datetime.now(UTC)
        try:
            version, rows = _read(stage, random, before)
        except (OSError, ValueError, RuntimeError):
            stage.figures.count("reads of latest: refused by a store that was down")
            continue
        if version < before:
            stage.figures.violation(f"the latest version went back from {before} to {version}")
        stage.figures.count("reads of latest")
        if rows is not None:
            for fault in faults_of(rows, stage.contents):
                stage.figures.violation(f"latest version {version}: {fault}")
            _check_ledger(stage, version, rows, began)
            stage.figures.count("reads of latest: of a new version")
        before = max(before, version)


def _read(stage: Stage, random: Random, before: int) -> tuple[int, pa.Table | None]:
    """The latest version by one of the two libraries, opened as a user would, and its rows if the version is new."""
    if random.random() < 0.5:
        dataset = lance.dataset(stage.settings.table_uri)
        return dataset.version, dataset.to_table(_COLUMNS) if dataset.version > before else None
    import lancedb  # noqa: PLC0415  most processes of the tests do not need it, and it takes two seconds

    table = lancedb.connect(stage.settings.lancedb_uri).open_table(CORPUS)
    version = table.version
    return version, table.to_arrow().select(_COLUMNS) if version > before else None


def faults_of(rows: pa.Table, contents: Contents) -> list[str]:
    """Everything in a version that no reader may see: a text that the file never had, or parts of two publications."""
    documents: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    vectors = np.asarray(rows["vector"].combine_chunks().flatten()).reshape(len(rows), -1) if len(rows) else []
    for row, vector in zip(rows.drop_columns("vector").to_pylist(), vectors, strict=True):
        documents[row["document"]].append({**row, "vector": vector})
    found: list[str] = []
    for key, chunks in sorted(documents.items()):
        chunks.sort(key=lambda row: row["ordinal"])
        text = "".join(row["text"] for row in chunks)
        if not contents.sequences(key, fingerprint(text)):
            found.append(f"{key} shows a content that the file never had: {text[:200]!r}")
        if len({row["saga"] for row in chunks}) > 1 or [row["ordinal"] for row in chunks] != list(range(len(chunks))):
            found.append(f"{key} has chunks of several publications")
        if any(not np.array_equal(row["vector"], vector_of_text(row["text"])) for row in chunks):
            found.append(f"{key} has a vector of another text")
    return found


def _check_ledger(stage: Stage, version: int, rows: pa.Table, began: datetime) -> None:
    """Check that a version that a reader has seen was committed before, with all its rows, and has nothing erased."""
    shown, sagas = set(rows["document"].to_pylist()), set(rows["saga"].to_pylist())
    try:
        with Database(stage.database_url) as database, database.transaction() as connection:
            if version not in history.published_versions(connection, CORPUS, [version]):
                stage.figures.violation(f"latest version {version} was visible and is not published")
            states = states_of(connection, sagas)
            erased = erased_keys(connection, shown, began).finished
        for fault in unpublished_rows(f"latest version {version}", sagas, states):
            stage.figures.violation(fault)
        if erased:
            stage.figures.violation(f"latest version {version} has {sorted(erased)}, which was erased")
    except UnavailableError:
        stage.figures.count("reads of latest: not compared with the ledger, which was down")
