"""Worker processes that share a run: what they publish together, and what is kept when one of them or the run dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.ingestion.run import IngestRun, RunOptions
from ingest_pipeline.ingestion.workers import parts as parts_module
from ingest_pipeline.ingestion.workers import pool as pool_module
from ingest_pipeline.ingestion.workers.pool import WorkerSettings
from tests.support.world import World, mark_served, paragraphs


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of about three documents."""
    monkeypatch.setattr(parts_module, "SMALLEST_PART", 20_000)
    monkeypatch.setattr(pool_module, "SMALLEST_PART", 20_000)


def run_of(world: World, workers: int = 2, options: RunOptions | None = None) -> IngestRun:
    def create_embedder() -> EmbeddingClient:
        return OpenAIEmbedder(world.embedding_settings)

    address = world.address
    settings = WorkerSettings.of(workers, address.database_url, address.settings, address.embedding_settings)
    return IngestRun(world.context, create_embedder, options or RunOptions(), workers=settings)


def write(world: World, count: int) -> None:
    for number in range(count):
        world.put(f"{number:03}.txt", paragraphs(f"topic{number}", 8))


@pytest.mark.usefixtures("small_parts")
def test_two_workers(world: World) -> None:
    write(world, 24)
    outcome = run_of(world).run()
    assert outcome.published == 24, outcome
    assert max(world.embeddings.texts.values()) == 1
    world.check()
    world.check_nothing_left()
