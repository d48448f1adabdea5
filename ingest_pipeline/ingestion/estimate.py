"""Estimates what a plan would cost, before anything is embedded.

`estimate` uses the sizes in the listing. The characters, chunks and tokens per byte are those of this corpus' published
documents, format by format, or the constants below if it has none. For Office and EPUB files it reads the ZIP
directory, because the size of the file is no bound for its text. For PDFs there is no bound. `count` reads and chunks
the documents and looks up their texts, as an ingest would. Only its tokens are estimated, because there is no tokenizer
for every model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from math import ceil

from ingest_pipeline.errors import DocumentError, DocumentTooLargeError, StaleError, UnreadableError
from ingest_pipeline.ingestion.columns.column_changes import is_columns_only
from ingest_pipeline.ingestion.unpacked_size import unpacked_size
from ingest_pipeline.parsing.built_in_parsers import is_compressed, is_zipped
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.catalog import reports
from ingest_pipeline.postgres.catalog.reports import DocumentRatio
from ingest_pipeline.postgres.ledger import embedding_cache
from ingest_pipeline.preparation.reading.document_reader import DocumentReader
from ingest_pipeline.preparation.reading.extension_calls import ExtensionCalls
from ingest_pipeline.preparation.seen_texts import CompactHashSet
from ingest_pipeline.preparation.spending_guard import CHARACTERS_PER_TOKEN, read_spent
from ingest_pipeline.preparation.vectors.published_vectors import PublishedVectors
from ingest_pipeline.preparation.vectors.recorded_texts import RecordedTexts
from ingest_pipeline.types import Chunk, SourceObject

# Chunks end at paragraph breaks, so they are not full. Measured on Python's documentation at 1,000 characters.
FILL = 0.74
_CHUNKS_PER_LOOK_UP = 1024
# ZIP directories that `estimate` reads at most: each takes one or two requests.
_MAX_DIRECTORIES = 200


@dataclass(frozen=True, slots=True)
class UnreadableDocument:
    """A document whose text cannot be extracted."""

    document: str
    reason: str
    """The reason in one or two words."""
    problem: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated work and cost of an ingest."""

    documents: int
    """Number of documents to read. Removals cost nothing."""
    removals: int
    columns_only: int
    """Number of documents of which only the columns change. Nothing is embedded for them."""
    chunks: int
    characters: int
    """Number of characters in the texts to embed."""
    to_embed: int
    """Number of chunks to embed. An estimate by bytes assumes that none has a vector: an upper bound for edits."""
    tokens: int
    cost: Decimal | None
    """Cost at the ordinary endpoint. None: no price is configured for the model."""
    cost_in_batch: Decimal | None
    """Cost at the Batch endpoint. None: that price is not configured."""
    currency: str | None
    exact: bool
    """Whether chunks, characters and embeddings were counted. Tokens are always estimated."""
    uncertain: int
    """Documents that may have more text than estimated, because they are compressed and were not read."""
    too_large: list[str]
    """Documents that have, or by bytes may have, too many chunks. The sums exclude those that are text."""
    over_limit: str | None
    """The limit on tokens that the ingest would exceed. None: it exceeds none."""
    measured: bool
    """Whether tokens are estimated from what this corpus was billed, and not from a constant."""
    unreadable: tuple[UnreadableDocument, ...] = ()
    """Documents that could not be read, if they were read."""


def reasons_of(unreadable: Iterable[UnreadableDocument]) -> dict[str, int]:
    """Number of unreadable documents by reason."""
    return dict(sorted(Counter(document.reason for document in unreadable).items()))


def estimate(context: IngestContext, plans: Iterable[DocumentPlan]) -> Estimate:
    """Estimate from the sizes in the listing, without reading documents."""
    with context.corpus.database.transaction() as connection:
        ratios = reports.document_ratios(connection, context.corpus.generation)
    forecast = _Forecast(context, ratios)
    counted = _Count()
    most = context.limits.chunks_per_document
    for source in _to_read(context, plans, counted):
        characters = forecast.characters(source)
        chunks = ceil(characters / forecast.chunk_characters)
        is_refused = most is not None and chunks > most
        if is_refused:
            counted.too_large.append(source.key)
        if not is_refused or is_compressed(source.key):  # the size in its directory is only an upper bound
            counted.add(chunks, ceil(characters * forecast.overlap))
    counted.uncertain = forecast.uncertain
    return _priced(context, counted, exact=False)


def _to_read(
    context: IngestContext, plans: Iterable[DocumentPlan], counted: _Count, *, for_columns: bool = False
) -> Iterator[SourceObject]:
    """The objects that an ingest reads, each counted, and not those that it reads for their columns alone."""
    for plan in plans:
        if plan.source is None:
            counted.removals += 1
        elif not for_columns and is_columns_only(context, plan):
            counted.columns_only += 1
        else:
            counted.documents += 1
            yield plan.source


def count(context: IngestContext, plans: Iterable[DocumentPlan], *, read_vectors: bool = False) -> Estimate:
    """Count exactly: read and chunk each document and look up which texts have a vector. Embeds and publishes nothing.

    Args:
        context: The ingest context of the corpus.
        plans: The plans of its documents.
        read_vectors: Whether to read published vectors too, because their rows may be gone or damaged.

    Raises:
        UnavailableError: The source or one of the stores does not answer.
    """
    counted = _Count()
    published = PublishedVectors(context.corpus, context.recipe.embedding_dimensions)
    recorded = RecordedTexts(context.corpus.generation, context.recipe.embedding)
    chunks = _chunks(context, _to_read(context, plans, counted, for_columns=read_vectors), counted)
    while some := list(islice(chunks, _CHUNKS_PER_LOOK_UP)):
        _count_new(context, some, counted, recorded, published if read_vectors else None)
    return _priced(context, counted, exact=True)


@dataclass(slots=True)
class _Count:
    documents: int = 0
    removals: int = 0
    columns_only: int = 0
    chunks: int = 0
    to_embed: int = 0
    characters: int = 0
    uncertain: int = 0
    too_large: list[str] = field(default_factory=list[str])
    seen: CompactHashSet = field(default_factory=CompactHashSet)
    unreadable: list[UnreadableError] = field(default_factory=list[UnreadableError])

    def add(self, chunks: int, characters: int) -> None:
        self.chunks += chunks
        self.to_embed += chunks
        self.characters += characters


class _Forecast:
    """Predicts characters and chunks from bytes, using the documents at head if there are any."""

    def __init__(self, context: IngestContext, ratios: Iterable[DocumentRatio]) -> None:
        self._by_format: dict[str, list[int]] = {}
        characters = chunks = 0
        for ratio in ratios:
            held = self._by_format.setdefault(ratio.format, [0, 0])
            held[0] += ratio.bytes
            held[1] += ratio.characters
            if ratio.recipe in context.recipe.fingerprints:
                characters += ratio.characters
                chunks += ratio.chunks
        self._source = context.source
        self._directories = 0
        self.uncertain = 0
        """Documents whose size does not bound their text and whose unpacked size is unknown."""
        chunker = context.chunker
        self.overlap = chunker.size / (chunker.size - chunker.overlap)
        """Embedded characters per character of text, because chunks overlap."""
        self.chunk_characters = characters / chunks if chunks else max(1.0, FILL * chunker.characters / self.overlap)

    def characters(self, document: SourceObject) -> int:
        key, size = document.key, document.size
        if is_zipped(key):
            unpacked = self._unpacked(document)
            if unpacked is not None:
                return unpacked
        if is_compressed(key):
            self.uncertain += 1
        _, dot, suffix = key.rpartition("/")[2].rpartition(".")
        held = self._by_format.get(suffix.lower() if dot else "")
        if held is not None and held[0]:
            return ceil(size * held[1] / held[0])
        return size  # right for text, too many for HTML

    def _unpacked(self, document: SourceObject) -> int | None:
        self._directories += 1
        if self._directories > _MAX_DIRECTORIES:
            return None
        return unpacked_size(self._source, document)


def _chunks(context: IngestContext, sources: Iterable[SourceObject], counted: _Count) -> Iterator[Chunk]:
    calls = ExtensionCalls(context.extensions, context.corpus)
    for source in sources:
        try:
            yield from DocumentReader(source, context.recipe, calls).chunks(
                context.source, context.chunker, context.limits
            )
        except UnreadableError as error:
            counted.unreadable.append(error)
            if isinstance(error, DocumentTooLargeError):
                counted.too_large.append(source.key)
        except (DocumentError, StaleError):
            # The ingest will report the problem. The chunks before it are embedded in any case.
            continue


def _count_new(
    context: IngestContext,
    chunks: Sequence[Chunk],
    counted: _Count,
    recorded: RecordedTexts,
    published: PublishedVectors | None,
) -> None:
    texts = {chunk.text_hash: len(chunk.embedded_text) for chunk in chunks}
    new = {text_hash for text_hash in texts if not counted.seen.add(text_hash)}
    with context.corpus.database.transaction() as connection:
        recorded.refresh(connection)
        places = embedding_cache.published_texts(connection, context.corpus.generation, list(new))
    found = {text_hash for text_hash in new if text_hash in recorded}
    there = {place.text_hash for place in places} if published is None else published.read(places).keys()
    to_embed = new - found - there
    counted.chunks += len(chunks)
    counted.to_embed += len(to_embed)
    counted.characters += sum(texts[text_hash] for text_hash in to_embed)


def _priced(context: IngestContext, counted: _Count, *, exact: bool) -> Estimate:
    with context.corpus.database.transaction() as connection:
        billed, characters = embedding_cache.token_ratio(connection, context.corpus.generation)
    tokens = ceil(counted.characters * billed / characters if billed else counted.characters / CHARACTERS_PER_TOKEN)
    price = context.price
    in_batch = None if price is None else price.in_batch()
    return Estimate(
        counted.documents,
        counted.removals,
        counted.columns_only,
        counted.chunks,
        counted.characters,
        counted.to_embed,
        tokens,
        None if price is None else price.cost(tokens),
        None if in_batch is None else in_batch.cost(tokens),
        None if price is None else price.currency,
        exact,
        counted.uncertain,
        counted.too_large,
        _over_limit(context, tokens),
        bool(billed),
        tuple(UnreadableDocument(error.document, error.reason, str(error)) for error in counted.unreadable),
    )


def _over_limit(context: IngestContext, tokens: int) -> str | None:
    """Describe the limit that this number of tokens would exceed; None if there is none or nothing is billed."""
    limits = context.limits
    if context.embeds_for_free:
        return None
    if limits.tokens_per_run is not None and tokens > limits.tokens_per_run:
        return f"more than the {limits.tokens_per_run} tokens that INGEST_MAX_TOKENS_PER_RUN allows a run"
    with context.corpus.database.transaction() as connection:
        today = read_spent(connection, context.corpus.name).today
    if limits.tokens_per_day is not None and today + tokens > limits.tokens_per_day:
        return (
            f"with today's {today} tokens more than the {limits.tokens_per_day} that INGEST_MAX_TOKENS_PER_DAY "
            "allows a day"
        )
    return None
