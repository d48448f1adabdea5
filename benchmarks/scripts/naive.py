"""A child process that ingests a folder as a script of one page does: nothing is safe, nothing is checked.

Split, embed with 16 requests at once of as many texts as the engine sends, `table.add`, COPY.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import lancedb
import psycopg
from openai import AsyncOpenAI
from openai.types import Embedding
from semantic_text_splitter import TextSplitter

from benchmarks.support.endpoint import MODEL
from benchmarks.support.stage import Job, serve

Chunk = tuple[str, str, int, str]
"""Id, document, ordinal, text."""
T = TypeVar("T")

_CHUNK_SIZE = 1000
_CONCURRENCY = 16
_BATCH = 128


def split(folder: str) -> list[Chunk]:
    """The chunks of all files."""
    splitter = TextSplitter(_CHUNK_SIZE)
    return [
        (str(uuid4()), path.name, ordinal, text)
        for path in sorted(Path(folder).iterdir())
        for ordinal, text in enumerate(splitter.chunks(path.read_text()))
    ]


async def embed(endpoint: str, chunks: Sequence[Chunk], vectors_of: Callable[[list[Embedding]], T]) -> list[T]:
    """What is made of each batch's vectors, in order."""
    slots = asyncio.Semaphore(_CONCURRENCY)

    async def embed_batch(client: AsyncOpenAI, start: int) -> T:
        async with slots:
            texts = [text for *_, text in chunks[start : start + _BATCH]]
            answer = await client.embeddings.create(model=MODEL, input=texts)
        return vectors_of(answer.data)

    async with AsyncOpenAI(base_url=endpoint, api_key="none") as client:
        return await asyncio.gather(*(embed_batch(client, start) for start in range(0, len(chunks), _BATCH)))


def fill_catalog(database: str, chunks: Sequence[Chunk]) -> None:
    """A row for each chunk in a new table."""
    with psycopg.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE chunk (id text PRIMARY KEY, document text, ordinal int)")
        with cursor.copy("COPY chunk (id, document, ordinal) FROM STDIN") as copy:
            for number, document, ordinal, _ in chunks:
                copy.write_row((number, document, ordinal))


def work(job: Job) -> None:
    """Load the folder into a new table and a new database."""
    chunks = split(job.source)
    batches = asyncio.run(embed(job.endpoint, chunks, lambda data: [item.embedding for item in data]))
    vectors = (vector for batch in batches for vector in batch)
    rows = [
        {"id": number, "document": document, "ordinal": ordinal, "text": text, "vector": vector}
        for (number, document, ordinal, text), vector in zip(chunks, vectors, strict=True)
    ]
    lancedb.connect(job.lancedb).create_table("documents", rows[:1]).add(rows[1:])
    fill_catalog(job.database, chunks)


if __name__ == "__main__":
    serve(work)
