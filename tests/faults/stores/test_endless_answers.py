"""Answers that arrive byte by byte, or interim answers without end: clients stop although they never see silence."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from datetime import UTC, datetime, timedelta

import pytest

from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.errors import EmbeddingUnavailableError, SourceUnavailableError, TableUnavailableError
from ingest_pipeline.lance import storage
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.sources import bucket as source_module
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.types import SourceObject
from tests.support.servers.endless_server import ENDLESS, endless_server

pytestmark = [pytest.mark.parametrize("kind", ENDLESS), pytest.mark.promise("waits")]


@pytest.fixture
def server(kind: str, monkeypatch: pytest.MonkeyPatch) -> Generator[str]:
    """The url of one, which is the environment's S3 too; and the limits are short."""
    with endless_server(kind) as url:
        for name, value in (("ENDPOINT_URL", url), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setattr(source_module, "_CLIENT", {"timeout": timedelta(seconds=0.4)})
        monkeypatch.setattr(source_module, "_RETRY", {"max_retries": 1, "retry_timeout": timedelta(seconds=0.1)})
        monkeypatch.setattr(source_module, "_LAST_ATTEMPT_SECONDS", 0.1)
        monkeypatch.setattr(storage, "_LIMITS", {"timeout": "50ms", "client_retry_timeout": "0"})
        yield url


def test_an_api_whose_answer_never_ends_times_out(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)  # seconds, which no setting shortens
    settings = OpenAISettings("text-embedding-3-small", 4, base_url=server, api_key="key", timeout=0.1, max_retries=1)

    async def embed() -> None:
        async with OpenAIEmbedder(settings) as embedder:
            await embedder.embed(["text"])

    with pytest.raises(EmbeddingUnavailableError, match="did not answer 2 requests"):
        asyncio.run(embed())


@pytest.mark.usefixtures("server")
def test_a_source_whose_answer_never_ends_times_out(kind: str) -> None:
    source = ObjectSource("s3://bucket/prefix")
    with pytest.raises(SourceUnavailableError):
        list(source.list())
    if kind != "body":  # which a look at one document does not have
        with pytest.raises(SourceUnavailableError):
            source.stat("key")
    with pytest.raises(SourceUnavailableError):
        list(source.read(SourceObject("key", '"1"', 10, datetime.now(UTC))))


@pytest.mark.usefixtures("server")
def test_a_table_whose_store_never_ends_its_answer_times_out() -> None:
    uri = "s3://bucket/docs.lance"
    with pytest.raises(TableUnavailableError):
        LanceTable(uri, storage.storage_options(uri)).latest_version()
