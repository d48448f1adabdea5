"""A child process that ingests a folder as a script of one page does: nothing is safe, nothing is checked.

Split, embed with 16 requests at once of as many texts as the engine sends, `table.add`, COPY.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import lancedb
import psycopg
from openai import AsyncOpenAI
from semantic_text_splitter import TextSplitter

from benchmarks.endpoint import MODEL
from benchmarks.stage import Job, serve

_CHUNK_SIZE = 1000
_CONCURRENCY = 16
_BATCH = 128


async def _embed(endpoint: str, texts: list[str]) -> list[list[float]]:
    slots = asyncio.Semaphore(_CONCURRENCY)

    async with AsyncOpenAI(base_url=endpoint, api_key="none") as client:

        async def embed(batch: list[str]) -> list[list[float]]:
            async with slots:
                answer = await client.embeddings.create(model=MODEL, input=batch)
            return [item.embedding for item in answer.data]

        batches = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
        return [vector for vectors in await asyncio.gather(*map(embed, batches)) for vector in vectors]


def work(job: Job) -> None:
    """Load the folder into a new table and a new database."""
    splitter = TextSplitter(_CHUNK_SIZE)
    chunks = [
        (str(uuid4()), path.name, ordinal, text)
        for path in sorted(Path(job.source).iterdir())
        for ordinal, text in enumerate(splitter.chunks(path.read_text()))
    ]
    vectors = asyncio.run(_embed(job.endpoint, [text for *_, text in chunks]))
    rows = [
        {"id": number, "document": document, "ordinal": ordinal, "text": text, "vector": vector}
        for (number, document, ordinal, text), vector in zip(chunks, vectors, strict=True)
    ]
    database = lancedb.connect(job.lancedb)
    database.create_table("documents", rows[:1]).add(rows[1:])
    with psycopg.connect(job.database) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE chunk (id text PRIMARY KEY, document text, ordinal int)")
        with cursor.copy("COPY chunk (id, document, ordinal) FROM STDIN") as copy:
            for number, document, ordinal, _ in chunks:
                copy.write_row((number, document, ordinal))


if __name__ == "__main__":
    serve(work)
