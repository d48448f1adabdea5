"""Re-embeds a test's corpus with another embedding model, and reads the corpus meanwhile as readers do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.ingestion.reembed import Reembedding, begin
from ingest_pipeline.lance.storage import open_lancedb
from ingest_pipeline.postgres.database import Database
from tests.support.servers.embedding_server import NARROWING_MODEL
from tests.support.world import Address, World

WIDTH = 16
EMBEDDING = f"{NARROWING_MODEL}/{WIDTH}"


def moved(settings: CorpusConfig) -> CorpusConfig:
    """The settings with another model, of another width."""
    return settings.replace(embedding_model=NARROWING_MODEL, embedding_dimensions=WIDTH)


def world_after(world: World, settings: CorpusConfig | None = None) -> World:
    """The same corpus with the settings that name the other model."""
    return World(world.database, settings or moved(world.settings), world.embeddings)


def address_after(world: World) -> Address:
    return world_after(world).address


def migrate(database: Database, address: Address, *, then_switch: bool = True) -> dict[str, str]:
    """Fill a generation with the model of the address' settings and switch readers to it; returns failed documents."""
    old, new = begin(database, address.settings)

    async def run() -> dict[str, str]:
        async with OpenAIEmbedder(address.embedding_settings) as embedder:
            migration = Reembedding(old, new, embedder)
            summary = await migration.fill()
            if then_switch:
                await migration.switch()
            return {key: str(error) for key, (_, error) in summary.failed.items()}

    return asyncio.run(run())


@dataclass(frozen=True, slots=True)
class Sight:
    """The content of both stores as one reader sees it."""

    table_name: str
    embedding: str
    width: int
    documents: tuple[tuple[str, int], ...]
    """Number of chunks in the catalog, by key."""
    rows: tuple[tuple[str, int], ...]
    """Number of rows in the table, by key."""


def look(database: Database, corpus: str, lancedb_uri: str) -> Sight:
    """Read as in docs/how-to/read_at_head.md: head and catalog in one transaction, then the table at that version."""
    with database.transaction() as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        head = connection.execute(
            "SELECT table_name, version, embedding FROM ingest_pipeline.head WHERE corpus = %s", (corpus,)
        ).fetchone()
        assert head is not None
        documents = connection.execute(
            "SELECT key, chunk_count FROM ingest_pipeline.current_document WHERE corpus = %s ORDER BY key", (corpus,)
        ).fetchall()
    table: Any = open_lancedb(lancedb_uri, head["table_name"], head["version"])
    found: dict[str, int] = {}
    for key in table.to_lance().to_table(columns=["document"])["document"].to_pylist():
        found[key] = found.get(key, 0) + 1
    return Sight(
        head["table_name"],
        head["embedding"],
        table.schema.field("vector").type.list_size,
        tuple((row["key"], row["chunk_count"]) for row in documents),
        tuple(sorted(found.items())),
    )
