"""A whole pipeline in miniature: a source folder, a corpus over it, and what tests do to both, without Dagster."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from ingest_pipeline import catalog
from ingest_pipeline.audit import AuditReport, audit
from ingest_pipeline.catalog import ChunkRow
from ingest_pipeline.corpus import Corpus
from ingest_pipeline.database import Database
from ingest_pipeline.embedding import Embedder, EmbeddingSettings
from ingest_pipeline.ingestion import Ingestion, Summary
from ingest_pipeline.pipeline import PipelineSettings, open_workshop, plan_partitions
from ingest_pipeline.preparation import Workshop
from tests.support.embedding_server import EmbeddingServer


def paragraphs(topic: str, count: int) -> str:
    """Text of some paragraphs, each about as long as a chunk and unlike all others."""
    return "\n\n".join(f"{topic} {number}. " + f"{topic}-{number} words " * 50 for number in range(count))


@dataclass(slots=True)
class World:
    database: Database
    settings: PipelineSettings
    embeddings: EmbeddingServer

    _workshop: Workshop | None = None

    @property
    def workshop(self) -> Workshop:
        if self._workshop is None:
            self._workshop = open_workshop(self.database, self.settings)
        return self._workshop

    @property
    def corpus(self) -> Corpus:
        return self.workshop.corpus

    @property
    def head(self) -> int:
        return self.corpus.head().head_version

    @property
    def embedding_settings(self) -> EmbeddingSettings:
        return EmbeddingSettings(
            self.settings.embedding_model,
            self.settings.embedding_dimensions,
            base_url=self.embeddings.base_url,
            batch_inputs=8,
            max_retries=2,
        )

    def put(self, key: str, text: str) -> Path:
        path = Path(self.settings.source) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def remove(self, key: str) -> None:
        (Path(self.settings.source) / key).unlink()

    def ingest(self, partitions: list[str] | None = None) -> Summary:
        """Bring the corpus, or some partitions, to what the source holds now."""
        plans = plan_partitions(self.workshop, partitions)

        async def run() -> Summary:
            async with Embedder(self.embedding_settings) as embedder:
                return await Ingestion(self.workshop, embedder).run(plans)

        return asyncio.run(run())

    def audit(self) -> AuditReport:
        return audit(self.corpus)

    def chunks(self, key: str, version: int | None = None) -> list[ChunkRow]:
        with self.database.transaction() as connection:
            return catalog.chunks_at(connection, self.corpus.name, version or self.head, [key])

    def text_at(self, key: str, version: int | None = None) -> str:
        """A document as a reader of the table sees it: its chunks' texts in their order."""
        rows = self.corpus.table.rows(version or self.head, ["document", "ordinal", "text"])
        mine = sorted((row for row in rows.to_pylist() if row["document"] == key), key=lambda row: row["ordinal"])
        return "".join(row["text"] for row in mine)
