"""Moving a corpus to another embedding model: a second generation is filled beside the current one, then readers move.

Filling is ordinary ingestion into a table that nobody reads, so it may die, be repeated and go on where it was. Readers
move in one transaction, once the new generation holds what the current one does, or what the source holds instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.config import CorpusConfig
from ingest_pipeline.embedding.base import Embedder
from ingest_pipeline.embedding.pricing import price_of
from ingest_pipeline.errors import ConfigurationError, ConflictError, CorpusMismatchError, ReembeddingIncompleteError
from ingest_pipeline.ingestion.context import open_context, open_generation, plan_partitions
from ingest_pipeline.ingestion.estimate import Estimate, estimate
from ingest_pipeline.ingestion.ingest import Ingestion, Summary
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.removal_guard import check_removals
from ingest_pipeline.postgres import documents
from ingest_pipeline.postgres.corpora import Generation, GenerationDifference
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.holds import read_holds
from ingest_pipeline.postgres.recipes import put_in_force
from ingest_pipeline.saga.generations import differences, list_generations, resume, switch

log = logging.getLogger(__name__)

# A corpus that is published to between every two looks changes faster than it can be moved.
_ROUNDS = 10
_NAMED = 10


class Action(Enum):
    """What a migration run does."""

    SWITCH = "switch"
    """Fill the new generation, then let readers see it."""
    FILL = "fill"
    """Fill it only."""
    ABORT = "abort"
    """Stop filling it. It is kept for a week."""
    DROP = "drop"
    """Delete the generations that were left, now."""


def model_mismatch(current: IngestContext, settings: CorpusConfig) -> str | None:
    """What to tell a person whose settings name another model than the corpus has."""
    if settings.recipe.embedding == current.recipe.embedding:
        return None
    return (
        f"The settings say {settings.recipe.embedding}, and corpus {current.corpus.name} holds vectors of "
        f"{current.recipe.embedding}. It stays with them: `ingest-pipeline plan` shows what moving it takes, and "
        "`ingest-pipeline reembed` does it. If the new name means the same model, run `ingest-pipeline relocate "
        "--embedding-model`."
    )


def estimate_reembedding(current: IngestContext, settings: CorpusConfig) -> Estimate | None:
    """What moving a corpus to the model of the settings would take, by bytes; less what is filled already.

    Args:
        current: The corpus as it is.
        settings: With the model to move to.

    Returns:
        None if the corpus has that model.
    """
    if settings.recipe.embedding == current.recipe.embedding:
        return None
    found = _target(list_generations(current.corpus.database, settings.corpus), settings.recipe.embedding)
    if found is not None:
        target = open_generation(current.corpus.database, settings, found.name, found.state)
        return estimate(target, plan_partitions(target))
    # Nothing of it is there, so what the current generation came to is the best that is known.
    listed = [
        DocumentPlan(source.key, "", source, None)
        for source in current.objects()
        if current.selection.exclusion_reason(source) is None
    ]
    imagined = replace(
        current,
        chunker=Chunker(settings.chunk_size, settings.chunk_overlap),
        recipe=settings.recipe,
        price=price_of(settings.embedding_model, settings.prices),
    )
    return estimate(imagined, listed)


def begin(database: Database, settings: CorpusConfig) -> tuple[IngestContext, IngestContext]:
    """The current generation, and the one to fill: it is created, or taken up where it was left.

    Raises:
        ConfigurationError: There is no such corpus, or it has this model already.
        CorpusMismatchError: It is being moved to another model.
        ConflictError: Another process began at the same time.
    """
    found = list_generations(database, settings.corpus)
    if not any(generation.state == "current" for generation in found):
        raise ConfigurationError(f"There is no corpus {settings.corpus!r}", "Run `ingest-pipeline ingest` first.")
    old = open_context(database, settings, create=False)
    wanted = settings.recipe.embedding
    if old.recipe.embedding == wanted:
        raise ConfigurationError(
            f"Corpus {settings.corpus!r} holds vectors of {wanted} already",
            "Set INGEST_EMBEDDING_MODEL to the model to move to, then run again.",
        )
    filling = next((generation for generation in found if generation.state == "building"), None)
    if filling is not None and filling.embedding != wanted:
        raise CorpusMismatchError(
            f"Corpus {settings.corpus!r} is being moved to {filling.embedding}, and the settings say {wanted}",
            "Set the model back and finish, or run `ingest-pipeline reembed --abort` first.",
        )
    target = _target(found, wanted)
    # Generations are never forgotten, so their number names the next one.
    name = target.name if target else f"{settings.corpus}-{len(found) + 1}"
    new = open_generation(database, settings, name, "building")
    if target is not None and target.state == "retired":
        resume(new.corpus, old.corpus.generation)
    with database.transaction() as connection:
        put_in_force(connection, new.corpus.generation, new.recipe)
    return old, new


class Reembedding:
    """One run that fills a generation and moves readers to it.

    Args:
        old: The current generation.
        new: The one to fill.
        embedder: Of the new model. Nothing is embedded for the old generation here.
        run_id: The Dagster run that pays for it, if there is one.
    """

    def __init__(
        self,
        old: IngestContext,
        new: IngestContext,
        embedder: Embedder,
        *,
        run_id: str | None = None,
    ) -> None:
        self.taken_out: list[str] = []
        """Partitions of documents that readers saw and the source lacks."""
        self._old = old
        self._new = new
        self._embedder = embedder
        self._run_id = run_id

    async def fill(self, partitions: Sequence[str] | None = None) -> Summary:
        """Bring the new generation, or some partitions of it, to what the source holds now.

        Raises:
            IngestError: As `Ingestion.run`. What was published until then stays, and nobody sees it.
        """
        plans = await asyncio.to_thread(plan_partitions, self._new, partitions)
        return await Ingestion(self._new, self._embedder, run_id=self._run_id).run(plans)

    async def switch(self) -> None:
        """Move readers, once the new generation holds all that they see or what the source holds instead.

        Raises:
            ReembeddingIncompleteError: The new generation cannot take some documents, or some were rolled back.
            ConflictError: Documents are published faster than they can be compared.
            GenerationRetiredError: The migration was aborted, or is done already.
        """
        for _ in range(_ROUNDS):
            found = await asyncio.to_thread(differences, self._old.corpus, self._new.corpus)
            looked_at = await self._look_at(found)
            if len(looked_at) < len(found):
                continue
            if await asyncio.to_thread(switch, self._old.corpus, self._new.corpus, looked_at):
                return
        raise ConflictError(
            f"Documents of corpus {self._old.corpus.name!r} were published faster than its generations could be "
            "compared",
            "Readers stay where they are. Run again.",
        )

    async def _look_at(self, found: Sequence[GenerationDifference]) -> list[GenerationDifference]:
        """Ask the source about each difference, and mend those where the new generation lags behind it.

        Returns:
            Those where it does not.
        """
        listed = await asyncio.to_thread(self._new.listed, [difference.key for difference in found])
        there = {source.key: source.etag for source in listed}
        if found:
            await asyncio.to_thread(self._check_rolled_back, found, there)
        right = [one for one in found if one.key in there and one.new_etag == there[one.key]]
        behind = [one.partition for one in found if one.key in there and one.new_etag != there[one.key]]
        gone = [one.key for one in found if one.key not in there]
        if gone:
            await self._take_out(gone)
        if behind:
            summary = await self.fill(behind)
            self._check_complete(summary, found)
        return right

    def _check_rolled_back(self, found: Sequence[GenerationDifference], there: Mapping[str, str]) -> None:
        """Refuse to show readers what a person rolled back: the new generation has only what the source has."""
        corpus = self._old.corpus
        with corpus.database.transaction() as connection:
            holds = read_holds(connection, corpus.generation, [difference.key for difference in found])
        kept = [key for key, hold in holds.items() if hold.etag == there.get(key)]
        if kept:
            raise ReembeddingIncompleteError(
                f"{len(kept)} documents of corpus {corpus.name!r} were rolled back, and the source holds what they "
                f"were rolled back from: {', '.join(kept[:_NAMED])}",
                "Readers stay where they are. Put the right files there, or let in what is there with `ingest-pipeline "
                "retry KEY` and `ingest`; then run `ingest-pipeline reembed` again.",
            )

    async def _take_out(self, keys: Sequence[str]) -> None:
        """Take documents that the source lacks out of both generations. It costs nothing.

        Raises:
            RemovalsWithheldError: They are so many that a person has to confirm it first.
        """
        seen_now = await asyncio.to_thread(_removals, self._old, keys)
        withheld = await asyncio.to_thread(check_removals, self._old, seen_now)
        if withheld is not None:
            raise withheld
        await Ingestion(self._old, self._embedder, run_id=self._run_id).run(seen_now)
        self.taken_out += [document.partition for document in seen_now]
        beside = await asyncio.to_thread(_removals, self._new, keys)
        await Ingestion(self._new, self._embedder, run_id=self._run_id).run(beside)

    def _check_complete(self, summary: Summary, found: Sequence[GenerationDifference]) -> None:
        seen_now = {difference.key for difference in found if difference.old_saga is not None}
        problems = {**summary.failed, **summary.too_recent}
        failed = sorted(seen_now & problems.keys())
        if failed:
            _, first = problems[failed[0]]
            raise ReembeddingIncompleteError(
                f"{len(failed)} documents of corpus {self._old.corpus.name!r} could not be ingested with "
                f"{self._new.recipe.embedding}: {', '.join(failed[:_NAMED])}. The first: {first.message}"
            )


def _target(found: Sequence[Generation], embedding: str) -> Generation | None:
    """The generation to fill: the one that is being filled, or the last of this model that was left."""
    usable = [generation for generation in found if generation.embedding == embedding]
    filling = [generation for generation in usable if generation.state == "building"]
    return next(reversed(filling or [generation for generation in usable if generation.state == "retired"]), None)


def _removals(context: IngestContext, keys: Sequence[str]) -> list[DocumentPlan]:
    with context.corpus.database.transaction() as connection:
        latest = documents.latest_documents(connection, context.corpus.generation)
    wanted = set(keys)
    return [
        DocumentPlan(document.key, document.partition, None, document)
        for document in latest
        if document.key in wanted and not document.removed
    ]
