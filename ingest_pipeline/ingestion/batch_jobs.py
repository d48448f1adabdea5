"""Bulk orders: missing vectors from the API's Batch endpoint, at a lower price and within a day.

    read, cut, look up ──texts that nobody has──> order (ledger) ──> file and batch (API)
    what has come ──> embedded_batch, like any answer; an ordinary run finds it there and publishes

An order is written down before the API hears of it, and the API carries its id as metadata. So a writer that dies
between the two is settled by asking the API: what it has is taken up, what never came there is forgotten. Vectors and
the end of their order are recorded in one transaction, and collecting again costs nothing. What fails, expires or comes
damaged is not there afterwards, and the next ordinary run buys it. What it was billed is recorded all the same.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from ingest_pipeline.embedding._response import Vectors, read_answer
from ingest_pipeline.embedding.openai import Client, OpenAIEmbedder
from ingest_pipeline.embedding.usage import billed_tokens
from ingest_pipeline.errors import DocumentError, StaleError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres import batch_jobs, embedding_cache, sagas
from ingest_pipeline.postgres.batch_jobs import BulkOrder
from ingest_pipeline.preparation.prepare import first_of
from ingest_pipeline.preparation.read import Reading
from ingest_pipeline.preparation.spending_guard import SpendingGuard
from ingest_pipeline.preparation.vectors import VectorResolver
from ingest_pipeline.processes import is_dead
from ingest_pipeline.saga.lifecycle import Saga
from ingest_pipeline.saga.reconcile import lock
from ingest_pipeline.types import Chunk, Usage

ORDER_KEY = "ingest_pipeline_order"
"""Under which the API carries an order's id."""
# Their vectors are held in memory once, when they are collected. The API takes 50,000.
_TEXTS = 10_000
_BYTES_A_CHARACTER = 4
_ENDED = ("completed", "expired", "failed", "cancelled")
# The API lists a batch a moment after it took it.
_LISTED_AFTER = timedelta(minutes=1)
_GIVEN_UP_AFTER = timedelta(minutes=15)
# So much may the API's clock and ours differ.
_CLOCKS = timedelta(hours=1)
_PAGE = 100


@dataclass(frozen=True, slots=True)
class Collected:
    """An order that ended."""

    saga: UUID
    texts: int
    collected: int
    error: str | None


@dataclass(slots=True)
class _Shipment:
    texts: dict[UUID, str] = field(default_factory=dict[UUID, str])
    keys: set[str] = field(default_factory=set[str])


@dataclass(slots=True)
class _Output:
    """What came of an order."""

    answers: dict[int, tuple[Vectors, int]] = field(default_factory=dict[int, tuple[Vectors, int]])
    """Vectors and tokens by the number of the request; requests that failed are left out."""
    unusable_texts: int = 0
    """Texts of answers that were billed and cannot be used."""
    unusable_tokens: int = 0
    unusable_requests: int = 0


async def submit(context: IngestContext, embedder: OpenAIEmbedder, plans: Sequence[DocumentPlan]) -> list[UUID]:
    """Order the vectors that documents need, and that neither stand anywhere nor are on order.

    Returns:
        The orders.

    Raises:
        SpendingLimitError: The limits of a run or a day allow no more. What was ordered until then stays ordered.
        UnavailableError: Something does not answer. What was ordered until then stays ordered.
    """
    placed: list[UUID] = []
    shipments = _shipments(context, plans)
    is_served = await asyncio.to_thread(_is_served, context, embedder)
    while (shipment := await asyncio.to_thread(next, shipments, None)) is not None:
        await asyncio.to_thread(_check_limits, context, shipment)
        if not is_served:
            await _probe(context, embedder, shipment)
            is_served = True
        saga = await _submit(context, embedder, shipment)
        if saga is not None:
            placed.append(saga)
    return placed


async def collect(context: IngestContext, embedder: OpenAIEmbedder) -> list[Collected]:
    """Record the vectors that have come, and settle orders whose writer died before it knew that the API has them.

    Raises:
        UnavailableError: Something does not answer; what is open stays open.
    """
    collected: list[Collected] = []
    for found in await asyncio.to_thread(_open, context):
        ended = await _collect_one(context, embedder, found)
        if ended is not None:
            collected.append(ended)
    return collected


def waiting_keys(context: IngestContext) -> set[str]:
    """Documents whose vectors are on order: buying them now would be buying them twice."""
    return {key for found in _open(context) for key in found.keys}


def _open(context: IngestContext) -> list[BulkOrder]:
    with context.corpus.database.transaction() as connection:
        return batch_jobs.open_orders(connection, context.corpus.generation)


def _shipments(context: IngestContext, plans: Iterable[DocumentPlan]) -> Iterator[_Shipment]:
    ordered = {text_hash for found in _open(context) for text_hash in found.text_hashes}
    shipment = _Shipment()
    for plan in plans:
        for chunks in _stretches(context, plan):
            texts = {chunk.text_hash: chunk.text for chunk in chunks}
            missing = _missing(context, texts.keys() - ordered)
            if missing or texts.keys() & ordered:
                shipment.keys.add(plan.key)
            shipment.texts.update((text_hash, texts[text_hash]) for text_hash in missing)
            ordered |= missing
            if len(shipment.texts) >= _TEXTS:
                yield shipment
                shipment = _Shipment()
    if shipment.texts:
        yield shipment


def _stretches(context: IngestContext, plan: DocumentPlan) -> Iterator[list[Chunk]]:
    if plan.source is not None:
        # What is wrong with the document, its ingest will say.
        with suppress(DocumentError, StaleError):
            yield from Reading(plan.source, context.recipe).stretches(context.source, context.chunker, context.limits)


def _missing(context: IngestContext, text_hashes: set[UUID]) -> set[UUID]:
    name, recipe, wanted = context.corpus.generation, context.recipe, list(text_hashes)
    with context.corpus.database.transaction() as connection:
        staged = embedding_cache.staged_vectors(
            connection,
            name,
            embedding=recipe.embedding,
            dimensions=recipe.embedding_dimensions,
            text_hashes=wanted,
        )
        published = {place.text_hash for place in embedding_cache.published_texts(connection, name, wanted)}
    return text_hashes - staged.keys() - published


def _is_served(context: IngestContext, embedder: OpenAIEmbedder) -> bool:
    with context.corpus.database.transaction() as connection:
        return embedding_cache.is_served(connection, embedder.endpoint, context.recipe.embedding)


def _check_limits(context: IngestContext, shipment: _Shipment) -> None:
    """Refuse a shipment that would pass a limit, of a run or of the day, together with all that is on order."""
    on_order = sum(found.characters for found in _open(context))
    guard = SpendingGuard(context.corpus, context.limits)
    guard.reserve(on_order + sum(map(len, shipment.texts.values())))


async def _probe(context: IngestContext, embedder: OpenAIEmbedder, shipment: _Shipment) -> None:
    """Buy one text by an ordinary request, so that a wrong model or width is not paid for by the order.

    Raises:
        EmbeddingResponseError: The endpoint does not serve the model in this width. Nothing was ordered.
    """
    text_hash, text = next(iter(shipment.texts.items()))
    corpus = context.corpus
    base = corpus.head().head_version
    with Saga.begin(corpus, "batch", base_version=base, price=context.price) as saga:
        supply = VectorResolver(corpus, embedder, context.recipe, saga.id)
        try:
            async with asyncio.TaskGroup() as tasks:
                await supply.start(tasks)
                await supply.order([Chunk(0, 0, len(text), text)])
                await supply.flush()
        except ExceptionGroup as group:
            raise first_of(group) from group
        saga.fail("embedded one text to see what the endpoint serves")
    del shipment.texts[text_hash]


async def _submit(context: IngestContext, embedder: OpenAIEmbedder, shipment: _Shipment) -> UUID | None:
    """Order the shipment's texts, those left out that another process ordered meanwhile; None if none is left."""
    # A character has four bytes and a token one, at most: so no request is over the API's limit.
    by_tokens = embedder.settings.batch_tokens // (_BYTES_A_CHARACTER * context.chunker.size)
    texts_a_request = max(1, min(embedder.settings.batch_inputs, by_tokens))
    saga = await asyncio.to_thread(_write_down, context, shipment, texts_a_request)
    if saga is None:
        return None
    lines = _lines(embedder, list(shipment.texts.values()), texts_a_request)
    with boundary(Boundary.BATCH_JOB_SUBMITTED):
        uploaded = await embedder.call(
            lambda client: client.files.create(file=(f"{saga}.jsonl", lines), purpose="batch")
        )
        if not await asyncio.to_thread(_is_still_ours, context, saga):
            return None
        # Never sent again by the client: an answer may be lost, and the API would take a second one for another order.
        batch = await embedder.call(
            lambda client: client.with_options(max_retries=0).batches.create(
                input_file_id=uploaded.id,
                endpoint="/v1/embeddings",
                completion_window="24h",
                metadata={ORDER_KEY: str(saga)},
            )
        )
    await asyncio.to_thread(_mark_submitted, context, saga, batch.id)
    return saga


def _write_down(context: IngestContext, shipment: _Shipment, texts_a_request: int) -> UUID | None:
    """The order's rows. Its saga ends at once: it publishes nothing, and is what the vectors will be kept under."""
    corpus = context.corpus
    with boundary(Boundary.BATCH_JOB_RECORDED), corpus.database.transaction() as connection:
        # Under the lock, so that of two who read the same documents at once one sees what the other ordered.
        base = lock(connection, corpus).head_version
        for found in batch_jobs.open_orders(connection, corpus.generation):
            for text_hash in found.text_hashes:
                shipment.texts.pop(text_hash, None)
        if not shipment.texts:
            return None
        price = None if context.price is None else context.price.in_batch()
        saga = sagas.begin(connection, generation=corpus.generation, kind="batch", base_version=base, price=price)
        batch_jobs.place(
            connection,
            saga,
            generation=corpus.generation,
            embedding=context.recipe.embedding,
            keys=sorted(shipment.keys),
            text_hashes=list(shipment.texts),
            texts_a_request=texts_a_request,
            characters=sum(map(len, shipment.texts.values())),
        )
        sagas.mark_ended(connection, saga, "abandoned", "a bulk order publishes nothing")
    return saga


def _is_still_ours(context: IngestContext, saga: UUID) -> bool:
    """Say that the order's writer lives: sending the texts may have taken longer than others wait for it."""
    with context.corpus.database.transaction() as connection:
        return batch_jobs.renew(connection, saga)


def _mark_submitted(context: IngestContext, saga: UUID, api_batch: str) -> None:
    with context.corpus.database.transaction() as connection:
        batch_jobs.mark_submitted(connection, saga, api_batch)


def _lines(embedder: OpenAIEmbedder, texts: Sequence[str], texts_a_request: int) -> bytes:
    """The requests as the Batch endpoint takes them: JSON Lines, numbered."""
    body: dict[str, object] = {"model": embedder.settings.model, "encoding_format": "base64"}
    if embedder.narrowed is not None:
        body["dimensions"] = embedder.narrowed
    requests = (texts[start : start + texts_a_request] for start in range(0, len(texts), texts_a_request))
    return b"".join(
        json.dumps(
            {"custom_id": str(number), "method": "POST", "url": "/v1/embeddings", "body": {**body, "input": request}}
        ).encode()
        + b"\n"
        for number, request in enumerate(requests)
    )


async def _collect_one(context: IngestContext, embedder: OpenAIEmbedder, found: BulkOrder) -> Collected | None:
    api_batch = found.api_batch or await _find(context, embedder, found)
    if api_batch is None:
        return None
    batch = await embedder.call(lambda client: client.batches.retrieve(api_batch))
    if batch.status not in _ENDED:
        return None
    output = _Output()
    if batch.output_file_id is not None:
        file = batch.output_file_id
        content = await embedder.call(lambda client: client.files.content(file))
        output = await asyncio.to_thread(_parse, found, content.content, embedder.settings.dimensions)
    return await asyncio.to_thread(_record, context, found, output, batch.status)


async def _find(context: IngestContext, embedder: OpenAIEmbedder, found: BulkOrder) -> str | None:
    """The batch of an order whose writer did not say that it was submitted, if the API has it."""
    if found.age < _LISTED_AFTER or not (is_dead(found.writer) or found.age > _GIVEN_UP_AFTER):
        return None
    oldest = (found.ordered_at - _CLOCKS).timestamp()

    async def find(client: Client) -> str | None:
        async for batch in client.batches.list(limit=_PAGE):
            if (batch.metadata or {}).get(ORDER_KEY) == str(found.saga):
                return batch.id
            if batch.created_at < oldest:
                break
        return None

    api_batch = await embedder.call(find)
    if api_batch is None:
        await asyncio.to_thread(_record, context, found, _Output(), "never received")
    else:
        await asyncio.to_thread(_mark_submitted, context, found.saga, api_batch)
    return api_batch


def _parse(found: BulkOrder, content: bytes, dimensions: int) -> _Output:
    """What the lines of an output file hold; those that are damaged are left out."""
    output = _Output()
    for line in content.splitlines():
        with suppress(ValueError, KeyError, TypeError):
            item = json.loads(line)
            number, body = int(item["custom_id"]), item["response"]["body"]
            if not (texts := found.request(number)):
                continue
            try:
                output.answers[number] = read_answer(body, len(texts), dimensions)
            except ValueError:
                if tokens := billed_tokens(body):
                    output.unusable_texts += len(texts)
                    output.unusable_tokens += tokens
                    output.unusable_requests += 1
    return output


def _record(context: IngestContext, found: BulkOrder, output: _Output, status: str) -> Collected | None:
    collected = sum(len(vectors) for vectors, _ in output.answers.values())
    total = len(found.text_hashes)
    error = None if collected == total else f"{total - collected} of {total} vectors did not come: {status}"
    with boundary(Boundary.BATCH_JOB_COLLECTED), context.corpus.database.transaction() as connection:
        if not batch_jobs.end(connection, found.saga, collected=collected, error=error):
            return None  # another process was as quick
        if output.unusable_requests:
            embedding_cache.record_unusable(
                connection,
                found.saga,
                characters=found.characters * output.unusable_texts // total,
                usage=Usage(tokens=output.unusable_tokens, requests=output.unusable_requests),
            )
        for number, (vectors, tokens) in output.answers.items():
            texts = found.request(number)
            embedding_cache.record_batch(
                connection,
                found.saga,
                ordinal=number,
                embedding=found.embedding,
                text_hashes=texts,
                vectors=vectors,
                characters=found.characters * len(texts) // total,
                usage=Usage(tokens=tokens, requests=1),
            )
    return Collected(found.saga, total, collected, error)
