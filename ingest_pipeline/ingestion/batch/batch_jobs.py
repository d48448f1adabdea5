"""Batch jobs: missing vectors from the API's Batch endpoint, at a lower price and within a day.

    read, chunk, look up ──texts without a vector──> batch job (ledger) ──> file and batch (API)
    results ──> spool and embedded_batch, like any other answer; an ordinary run finds them there and publishes

A batch job is recorded before it is submitted, and the API keeps the id of its saga as metadata. If a writer dies
between the two, the API's list decides: a job in the list is continued, and a job that the API never received is marked
as failed. Vectors and the end of their job are recorded in one transaction, so collecting again costs nothing. Texts of
requests that fail, expire or return damaged are embedded by the next ordinary run. Their billed tokens are recorded in
any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from ingest_pipeline.embedding.batch_api import BatchApi, BatchOutput
from ingest_pipeline.errors import DocumentError, StaleError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.files.spool import spool_name
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.ledger import batch_jobs, embedding_cache, sagas
from ingest_pipeline.postgres.ledger.batch_jobs import BatchJob
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.preparation.prepare import root_cause
from ingest_pipeline.preparation.reading.document_reader import DocumentReader
from ingest_pipeline.preparation.reading.extension_calls import ExtensionCalls
from ingest_pipeline.preparation.spending_guard import SpendingGuard
from ingest_pipeline.preparation.vectors.recorded_texts import RecordedTexts
from ingest_pipeline.preparation.vectors.vector_resolver import VectorResolver
from ingest_pipeline.processes import is_dead
from ingest_pipeline.saga.lifecycle import Saga
from ingest_pipeline.saga.reconcile import lock
from ingest_pipeline.telemetry.batch_calls import batch_call
from ingest_pipeline.telemetry.metrics import count_usage
from ingest_pipeline.telemetry.scope import scope
from ingest_pipeline.types import Chunk, Usage, counted

if TYPE_CHECKING:
    from ingest_pipeline.embedding.openai import OpenAIEmbedder

# All vectors of a job are in memory while they are collected. The API accepts 50,000.
_MAX_TEXTS = 10_000
_CHUNKS_PER_LOOK_UP = 128
# The API lists a batch some time after it accepted it.
_LISTED_AFTER = timedelta(minutes=1)
_ABANDONED_AFTER = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Collected:
    """The outcome of a batch job that ended."""

    saga: UUID
    texts: int
    collected: int
    error: str | None


@dataclass(slots=True)
class _JobTexts:
    texts: dict[UUID, str] = field(default_factory=dict[UUID, str])
    keys: set[str] = field(default_factory=set[str])


async def submit(context: IngestContext, embedder: OpenAIEmbedder, plans: Iterable[DocumentPlan]) -> list[UUID]:
    """Submit batch jobs for the texts of documents that have no vector and are in no open job.

    Returns:
        The sagas of the jobs.

    Raises:
        SpendingLimitError: The limits of a run or a day allow no more. Jobs submitted until then continue.
        UnavailableError: A store or the API does not answer. Jobs submitted until then continue.
    """
    submitted: list[UUID] = []
    jobs = _jobs(context, plans)
    is_served = await asyncio.to_thread(_is_served, context, embedder)
    while (job := await asyncio.to_thread(next, jobs, None)) is not None:
        await asyncio.to_thread(_check_limits, context, job)
        if not is_served:
            await _probe(context, embedder, job)
            is_served = True
        with _observed(context, "send", len(job.texts)) as name_batch:
            saga = await _submit(context, embedder, job, name_batch)
        if saga is not None:
            submitted.append(saga)
    return submitted


async def collect(context: IngestContext, embedder: OpenAIEmbedder) -> list[Collected]:
    """Record the vectors of finished jobs, and resolve jobs whose writer died while it submitted them.

    Raises:
        UnavailableError: A store or the API does not answer. Open jobs stay open.
    """
    collected: list[Collected] = []
    for found in await asyncio.to_thread(_open, context):
        ended = await _collect_one(context, embedder, found)
        if ended is not None:
            collected.append(ended)
    return collected


def waiting_keys(context: IngestContext) -> set[str]:
    """Keys of documents that wait for a batch job. Embedding them now would be billed twice."""
    return {key for found in _open(context) for key in found.keys}


def _open(context: IngestContext) -> list[BatchJob]:
    with context.corpus.database.transaction() as connection:
        return batch_jobs.open_batch_jobs(connection, context.corpus.generation)


def _jobs(context: IngestContext, plans: Iterable[DocumentPlan]) -> Iterator[_JobTexts]:
    ordered = {text_hash for found in _open(context) for text_hash in found.text_hashes}
    recorded = RecordedTexts(context.corpus.generation, context.recipe.embedding)
    job = _JobTexts()
    for plan in plans:
        chunks_left = _chunks(context, plan)
        while chunks := list(islice(chunks_left, _CHUNKS_PER_LOOK_UP)):
            texts = {chunk.text_hash: chunk.embedded_text for chunk in chunks}
            missing = _missing(context, recorded, texts.keys() - ordered)
            if missing or texts.keys() & ordered:
                job.keys.add(plan.key)
            job.texts.update((text_hash, texts[text_hash]) for text_hash in missing)
            ordered |= missing
            if len(job.texts) >= _MAX_TEXTS:
                yield job
                job = _JobTexts()
    if job.texts:
        yield job


def _chunks(context: IngestContext, plan: DocumentPlan) -> Iterator[Chunk]:
    if plan.source is not None:
        # The ingest of the document will report the problem.
        with suppress(DocumentError, StaleError):
            reader = DocumentReader(plan.source, context.recipe, ExtensionCalls(context.extensions, context.corpus))
            yield from reader.chunks(context.source, context.chunker, context.limits)


def _missing(context: IngestContext, recorded: RecordedTexts, text_hashes: set[UUID]) -> set[UUID]:
    with context.corpus.database.transaction() as connection:
        recorded.refresh(connection)
        wanted = [text_hash for text_hash in text_hashes if text_hash not in recorded]
        published = embedding_cache.published_texts(connection, context.corpus.generation, wanted)
    return set(wanted) - {place.text_hash for place in published}


def _is_served(context: IngestContext, embedder: OpenAIEmbedder) -> bool:
    with context.corpus.database.transaction() as connection:
        return embedding_cache.is_served(connection, embedder.endpoint, context.recipe.embedding)


def _check_limits(context: IngestContext, job: _JobTexts) -> None:
    """Refuse a job that would exceed a limit of a run or the day, together with all open jobs."""
    in_open_jobs = sum(found.characters for found in _open(context))
    guard = SpendingGuard(context.corpus, context.limits)
    guard.reserve(in_open_jobs + sum(map(len, job.texts.values())))


async def _probe(context: IngestContext, embedder: OpenAIEmbedder, job: _JobTexts) -> None:
    """Embed one text by an ordinary request, so that a wrong model or width does not cost a whole job.

    Raises:
        EmbeddingResponseError: The endpoint does not serve the model in this width. No job was submitted.
    """
    text_hash, text = next(iter(job.texts.items()))
    corpus = context.corpus
    base = corpus.head().head_version
    with Saga.begin(corpus, SagaKind.BATCH, base_version=base, price=context.price) as saga:
        resolver = VectorResolver(corpus, embedder, context.recipe, saga.id)
        try:
            async with asyncio.TaskGroup() as tasks:
                await resolver.start(tasks)
                await resolver.resolve([Chunk(0, 0, len(text), text)])
                await resolver.flush()
        except ExceptionGroup as group:
            raise root_cause(group) from group
        saga.complete()
    del job.texts[text_hash]


def _observed(
    context: IngestContext, operation: Literal["send", "receive"], texts: int
) -> AbstractContextManager[Callable[[str], None]]:
    corpus = context.corpus
    return batch_call(operation, corpus=corpus.name, generation=corpus.generation, texts=texts)


async def _submit(
    context: IngestContext, embedder: OpenAIEmbedder, job: _JobTexts, name_batch: Callable[[str], None]
) -> UUID | None:
    """Submit a job, without texts that another process has submitted meanwhile. None if no text remains."""
    api = BatchApi(embedder)
    texts_a_request = api.texts_a_request(context.chunker.max_tokens)
    saga = await asyncio.to_thread(_record_job, context, job, texts_a_request)
    if saga is None:
        return None
    with boundary(Boundary.BATCH_JOB_SUBMITTED):
        file = await api.upload(saga, list(job.texts.values()), texts_a_request)
        if not await asyncio.to_thread(_is_still_ours, context, saga):
            return None
        api_batch = await api.create(saga, file)
        name_batch(api_batch)
    await asyncio.to_thread(_mark_submitted, context, saga, api_batch)
    return saga


def _record_job(context: IngestContext, job: _JobTexts, texts_a_request: int) -> UUID | None:
    """Record the job. Its saga completes at once, because it publishes nothing. The vectors are recorded under it."""
    corpus = context.corpus
    with boundary(Boundary.BATCH_JOB_RECORDED), corpus.database.transaction() as connection:
        # The lock makes a second process with the same documents see the job of the first.
        base = lock(connection, corpus).head_version
        for found in batch_jobs.open_batch_jobs(connection, corpus.generation):
            for text_hash in found.text_hashes:
                job.texts.pop(text_hash, None)
        if not job.texts:
            return None
        price = None if context.price is None else context.price.in_batch()
        saga = sagas.begin(
            connection, generation=corpus.generation, kind=SagaKind.BATCH, base_version=base, price=price
        )
        batch_jobs.insert_batch_job(
            connection,
            saga,
            generation=corpus.generation,
            embedding=context.recipe.embedding,
            keys=sorted(job.keys),
            text_hashes=list(job.texts),
            texts_a_request=texts_a_request,
            characters=sum(map(len, job.texts.values())),
        )
        sagas.mark_completed(connection, saga)
    return saga


def _is_still_ours(context: IngestContext, saga: UUID) -> bool:
    """Renew the writer's heartbeat, because the upload may have taken longer than its timeout."""
    with context.corpus.database.transaction() as connection:
        return batch_jobs.renew(connection, saga)


def _mark_submitted(context: IngestContext, saga: UUID, api_batch: str) -> None:
    with context.corpus.database.transaction() as connection:
        batch_jobs.mark_submitted(connection, saga, api_batch)


async def _collect_one(context: IngestContext, embedder: OpenAIEmbedder, found: BatchJob) -> Collected | None:
    api = BatchApi(embedder)
    api_batch = found.api_batch or await _find(context, api, found)
    ended = None if api_batch is None else await api.ended(api_batch)
    if api_batch is None or ended is None:
        return None
    with _observed(context, "receive", len(found.text_hashes)) as name_batch:
        name_batch(api_batch)
        output = await asyncio.to_thread(api.parse, ended.output, lambda number: len(found.request(number)))
        return await asyncio.to_thread(_record, context, found, output, ended.status)


async def _find(context: IngestContext, api: BatchApi, found: BatchJob) -> str | None:
    """The API's batch of a job that its writer did not mark as submitted, None if the API has none."""
    if found.age < _LISTED_AFTER or not (is_dead(found.writer) or found.age > _ABANDONED_AFTER):
        return None
    api_batch = await api.find(found.saga, found.created_at)
    if api_batch is None:
        await asyncio.to_thread(_record, context, found, BatchOutput(), "never received")
    else:
        await asyncio.to_thread(_mark_submitted, context, found.saga, api_batch)
    return api_batch


def _record(context: IngestContext, found: BatchJob, output: BatchOutput, status: str) -> Collected | None:
    collected = sum(len(vectors) for vectors, _ in output.answers.values())
    total = len(found.text_hashes)
    lost = total - collected
    returned = f"{lost} of {counted(total, 'vector')} {'was' if lost == 1 else 'were'} not returned"
    error = f"{returned}: {status}" if lost else None
    with boundary(Boundary.BATCH_JOB_COLLECTED), context.corpus.database.transaction() as connection:
        if not batch_jobs.end(connection, found.saga, collected=collected, error=error):
            return None  # another process has recorded it
        if output.unusable_requests:
            embedding_cache.record_unusable(
                connection,
                found.saga,
                characters=found.characters * output.unusable_texts // total,
                usage=Usage(tokens=output.unusable_tokens, requests=output.unusable_requests),
            )
        # No sweep removes the files while this transaction has not recorded them.
        embedding_cache.lock_batches(connection, found.saga)
        for number, (vectors, tokens) in output.answers.items():
            texts = found.request(number)
            checksum = context.corpus.table.spool.write(spool_name(found.saga, number), [vectors])
            embedding_cache.record_batch(
                connection,
                found.saga,
                ordinal=number,
                embedding=found.embedding,
                text_hashes=texts,
                checksum=checksum,
                characters=found.characters * len(texts) // total,
                usage=Usage(tokens=tokens, requests=1),
            )
    tokens = output.unusable_tokens + sum(tokens for _, tokens in output.answers.values())
    price = None if context.price is None else context.price.in_batch()
    with scope(corpus=context.corpus.name, price=price):
        count_usage(Usage(tokens=tokens, requests=len(output.answers) + output.unusable_requests))
    return Collected(found.saga, total, collected, error)
