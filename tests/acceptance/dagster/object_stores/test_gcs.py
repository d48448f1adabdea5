"""The source on Google Cloud Storage: an emulator of it, through the sensor and runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest_pipeline.errors import DocumentChangedError
from ingest_pipeline.sources.object_store import ObjectSource
from tests.support.dagster.world import DagsterWorld
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.gcs import GcsServer
from tests.support.world import paragraphs

pytestmark = pytest.mark.promise("stores")


def test_objects_on_google_cloud_storage_are_added_changed_and_removed(
    tmp_path: Path, database_url: str, embeddings: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with GcsServer() as gcs:
        for name, value in gcs.env.items():
            monkeypatch.setenv(name, value)
        place = gcs.url("docs")
        with DagsterWorld.over(tmp_path, database_url, embeddings, monkeypatch, INGEST_SOURCE=place) as dagster:
            for key in ("a.txt", "b/c.txt", "b-.txt"):
                gcs.put(f"docs/{key}", paragraphs(key, 1).encode())
            assert all(run.success for run in dagster.follow())
            assert dagster.follow() == [], "the ETags of a listing and of a single object are the same"
            (listed, *_) = ObjectSource(place).list()
            gcs.put("docs/a.txt", paragraphs("other", 2).encode())
            with pytest.raises(DocumentChangedError):
                list(ObjectSource(place).read(listed))
            gcs.delete("docs/b/c.txt")
            assert all(run.success for run in dagster.follow())
            assert (dagster.audit().documents, dagster.audit().violations) == (2, [])
            assert dagster.follow() == []
