"""Evaluation: the scores of a golden set at head, or at any version that is retained."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from uuid import UUID

import numpy as np

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.embedding.base import EmbeddingClient, pack
from ingest_pipeline.embedding.create import create_embedder
from ingest_pipeline.embedding.user_embedder_client import UserEmbedderClient
from ingest_pipeline.errors import ConfigurationError, CorpusMismatchError
from ingest_pipeline.gates.golden_set import GoldenQuestion
from ingest_pipeline.gates.scores import ScoredTable, Scores
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.types import SearchMode, Vectors


async def evaluate(
    corpus: Corpus,
    embedder: EmbeddingClient | None,
    questions: Sequence[GoldenQuestion],
    versions: Sequence[int],
    *,
    k: int,
    mode: SearchMode,
) -> list[Scores]:
    """Score a golden set at some versions. The questions are embedded once.

    Args:
        corpus: The corpus.
        embedder: Embeds the questions; not used by mode ``text``.
        questions: The golden set.
        versions: Versions of the table.
        k: Chunks that count.
        mode: How to search.

    Raises:
        VersionGoneError: Retention or an erasure removed a version.
        CorpusMismatchError: The embedder's model is not the corpus'.
        UnavailableError: A store or the embedding API does not answer.
    """
    vectors = None if mode == "text" else await embed_questions(corpus, embedder, questions)
    scores: list[Scores] = []
    for version in versions:
        table = ScoredTable(partial(corpus.table.read, version))
        scores.append(await asyncio.to_thread(table.score, questions, vectors, k=k, mode=mode, version=version))
    return scores


async def evaluate_configured(
    config: CorpusConfig,
    corpus: Corpus,
    questions: Sequence[GoldenQuestion],
    versions: Sequence[int],
    *,
    k: int,
    mode: SearchMode,
) -> list[Scores]:
    """Score a golden set like `evaluate`, with the embedder of the settings."""
    if mode == "text":
        return await evaluate(corpus, None, questions, versions, k=k, mode=mode)
    async with create_embedder(config.embedder_settings, corpus.head().embedding) as embedder:
        return await evaluate(corpus, embedder, questions, versions, k=k, mode=mode)


async def embed_questions(
    corpus: Corpus, embedder: EmbeddingClient | None, questions: Sequence[GoldenQuestion]
) -> Vectors:
    """The vectors of the questions, shape (n, dimensions).

    Raises:
        ConfigurationError: There is no embedder.
        CorpusMismatchError: The embedder's model is not the corpus'.
        EmbeddingUnavailableError, EmbeddingAccessError: The questions could not be embedded.
    """
    if embedder is None:
        raise ConfigurationError("A search by vector needs an embedder", "Pass an embedder, or use the mode text.")
    expected, actual = corpus.head().embedding, embedder.settings.embedding
    if actual != expected:
        raise CorpusMismatchError(
            f"Corpus {corpus.name!r} was embedded with {expected}, but the questions would be embedded with {actual}",
            "Set INGEST_EMBEDDING_MODEL and INGEST_EMBEDDING_DIMENSIONS to those of the corpus.",
        )
    # An embedder of the user gets one question at a time.
    settings = (
        replace(embedder.settings, batch_inputs=1) if isinstance(embedder, UserEmbedderClient) else embedder.settings
    )
    queries = pack([question.query for question in questions], settings, lambda text: text)
    batches = [await embedder.embed(batch, purpose="query") for batch in queries]
    return np.concatenate([batch.vectors for batch in batches])


def published_version(corpus: Corpus, name: str | None) -> int:
    """The version that a user names: a number, the saga that published it, or None for head.

    Raises:
        ConfigurationError: Nothing was published under that name.
    """
    if name is None:
        return corpus.head().head_version
    if name.isdecimal():
        return int(name)
    try:
        saga = UUID(name)
    except ValueError:
        raise ConfigurationError(
            f"{name!r} is neither a version nor the id of a saga", "`ingest-pipeline history` lists both."
        ) from None
    with corpus.database.transaction() as connection:
        row = sagas.read(connection, saga)
    if row is None or row.generation != corpus.generation or row.published_version is None:
        raise ConfigurationError(
            f"Saga {saga} published no version of corpus {corpus.name!r}", "`ingest-pipeline history` lists those."
        )
    return row.published_version
