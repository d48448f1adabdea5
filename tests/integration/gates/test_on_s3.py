"""The candidate of a table in S3: made, searched and removed in the store, and swept if its writer died."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ingest_pipeline.extensions import pool
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.saga.blocked import release_publication
from ingest_pipeline.sandbox.children import ChildPool
from ingest_pipeline.sources.object_store import ObjectSource
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.servers.s3 import S3Server
from tests.support.world import World

pytestmark = pytest.mark.promise("gates")


def test_a_publication_is_judged_in_the_store(
    world: World, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    # An idle child process of another file's test would have the environment of that test.
    monkeypatch.setattr(pool, "_children", ChildPool())
    file, folder = tmp_path / "golden.jsonl", s3.url("tables")
    file.write_text(json.dumps({"query": "beta words", "documents": ["beta.txt"]}))
    gates = {"golden_set": str(file), "golden_k": 1, "gate_min_recall": 1, "gate": "tests.support.gates.NoDrafts"}
    on_s3 = World(world.database, world.settings.replace(lancedb_uri=folder, **gates), world.embeddings)
    for name in ("alpha", "beta"):
        on_s3.put(f"{name}.txt", f"{name} words")
    assert len(on_s3.ingest().publications) == 1
    on_s3.put("beta.txt", "a draft of another text")
    made = Place(Boundary.CANDIDATE_MADE, "after")
    assert Child(crash_jobs.ingest, on_s3.address, kill_at=made).outcome().killed
    assert candidates(folder) != []
    on_s3.recover()
    on_s3.check_nothing_left()
    (blocked,) = on_s3.ingest().blocked
    assert candidates(folder) == []
    assert "recall 0 (limit 1): beta words" in str(blocked.error)
    assert "NoDrafts 2 (limit 0): beta.txt" in str(blocked.error)
    release_publication(on_s3.corpus, blocked.saga)
    assert on_s3.text_at("beta.txt") == "a draft of another text"
    on_s3.check_nothing_left()


def candidates(folder: str) -> list[str]:
    return [obj.key for obj in ObjectSource(folder).list() if "candidate" in obj.key]
