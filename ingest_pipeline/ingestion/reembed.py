"""Re-embedding: a second generation is filled with vectors of another model, then readers switch to it.

Filling is ordinary ingestion into a table without readers, so it may die, be repeated and continue. Readers switch in
one transaction, once the new generation has every document of the current one, or the source's newer bytes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.config.prices import price_of
from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.embedding.create import embeds_for_free
from ingest_pipeline.errors import (
    ConfigurationError,
    ConflictError,
    CorpusMismatchError,
    PublicationBlockedError,
    ReembeddingIncompleteError,
)
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.gates.judge import Gates, Judgement
from ingest_pipeline.ingestion.context import open_context, open_generation
from ingest_pipeline.ingestion.estimate import Estimate, estimate
from ingest_pipeline.ingestion.ingest import Ingestion
from ingest_pipeline.ingestion.summary import Summary
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.removal_guard import check_removals
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.postgres.catalog.corpora import Generation, GenerationDifference, GenerationState
from ingest_pipeline.postgres.catalog.gates import last_switch_judgement
from ingest_pipeline.postgres.catalog.holds import read_holds
from ingest_pipeline.postgres.catalog.recipes import put_in_force
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.preparation.spending_guard import SpendingGuard
from ingest_pipeline.saga.generations import differences, list_generations, resume, switch
from ingest_pipeline.telemetry.logs import get_logger
from ingest_pipeline.types import counted

log = get_logger(__name__)

# A corpus that changes during this many comparisons in a row changes faster than generations can be compared.
_MAX_ROUNDS = 10
_MAX_NAMES = 10


class Action(Enum):
    """What a re-embedding run does."""

    SWITCH = "switch"
    """Fill the new generation, then switch readers to it."""
    FILL = "fill"
    """Only fill it."""
    ABORT = "abort"
    """Stop filling it. The generation is kept for a week."""
    DROP = "drop"
    """Delete retired generations now."""


def model_mismatch(current: IngestContext, settings: CorpusConfig) -> str | None:
    """The message for settings that name another model than the corpus has; None if they name the same one."""
    if settings.recipe.embedding == current.recipe.embedding:
        return None
    return (
        f"The settings name {settings.recipe.embedding}, but corpus {current.corpus.name} has vectors of "
        f"{current.recipe.embedding} and keeps that model. `ingest-pipeline plan` estimates a re-embedding, and "
        "`ingest-pipeline reembed` does it. If the new name means the same model, run `ingest-pipeline relocate "
        "--embedding-model`."
    )


def estimate_reembedding(current: IngestContext, settings: CorpusConfig) -> Estimate | None:
    """Estimate, from the sizes of the files, the remaining work and cost of re-embedding a corpus.

    Args:
        current: The corpus with its current model.
        settings: Settings with the new model.

    Returns:
        None if the corpus has that model.
    """
    if settings.recipe.embedding == current.recipe.embedding:
        return None
    found = _target(list_generations(current.corpus.database, settings.corpus), settings.recipe.embedding)
    if found is not None:
        target = open_generation(current.corpus.database, settings, found.name, found.state)
        return estimate(target, (plan for page in Planner(target).one_pass() for plan in page.plans))
    # The new generation does not exist yet, so the estimate uses the ratios of the current one.
    listed = (
        DocumentPlan(source.key, "", source, None)
        for source in current.objects()
        if current.selection.exclusion_reason(source) is None
    )
    imagined = replace(
        current,
        chunker=settings.create_chunker(),
        recipe=settings.recipe,
        price=price_of(settings.embedding_model, settings.prices),
        embeds_for_free=embeds_for_free(settings.embedder_settings),
    )
    return estimate(imagined, listed)


def begin(database: Database, settings: CorpusConfig) -> tuple[IngestContext, IngestContext]:
    """Open the current generation and the one to fill, which is created if it does not exist.

    Raises:
        ConfigurationError: The corpus does not exist, or it has this model already.
        CorpusMismatchError: The corpus is being re-embedded with another model.
        ConflictError: Another process began a re-embedding at the same time.
    """
    found = list_generations(database, settings.corpus)
    if not any(generation.state == GenerationState.CURRENT for generation in found):
        raise ConfigurationError(f"There is no corpus {settings.corpus!r}", "Run `ingest-pipeline ingest` first.")
    old = open_context(database, settings, create=False)
    wanted = settings.recipe.embedding
    if old.recipe.embedding == wanted:
        raise ConfigurationError(
            f"Corpus {settings.corpus!r} already has vectors of {wanted}",
            "Set INGEST_EMBEDDING_MODEL to the new model, then run again.",
        )
    filling = next((generation for generation in found if generation.state == GenerationState.BUILDING), None)
    if filling is not None and filling.embedding != wanted:
        raise CorpusMismatchError(
            f"Corpus {settings.corpus!r} is being re-embedded with {filling.embedding}, but the settings name {wanted}",
            "Set the model back and run `ingest-pipeline reembed` to finish, or run `ingest-pipeline reembed --abort`.",
        )
    target = _target(found, wanted)
    # Rows of generations are never deleted, so their number gives the next name.
    name = target.name if target else f"{settings.corpus}-{len(found) + 1}"
    new = open_generation(database, settings, name, GenerationState.BUILDING)
    if target is not None and target.state == GenerationState.RETIRED:
        resume(new.corpus, old.corpus.generation)
    with database.transaction() as connection:
        put_in_force(connection, new.corpus.generation, new.recipe)
    return old, new


class Reembedding:
    """A run that fills a generation and switches readers to it.

    Args:
        old: The current generation.
        new: The one to fill.
        embedder: Embeds with the new model. Nothing is embedded for the old generation.
        run_id: The Dagster run that the usage is counted for, if there is one.
        create_old_embedder: Creates an embedder of the current model, for gates that compare the recall with head.
    """

    def __init__(
        self,
        old: IngestContext,
        new: IngestContext,
        embedder: EmbeddingClient,
        *,
        run_id: str | None = None,
        create_old_embedder: Callable[[], EmbeddingClient] | None = None,
    ) -> None:
        self.removed_partitions: list[str] = []
        """Partitions of documents that were removed because the source lacks them."""
        self._old = old
        self._new = new
        self._embedder = embedder
        self._run_id = run_id
        self._spending: SpendingGuard | None = None
        self._create_old_embedder = create_old_embedder
        self.judgement: Judgement | None = None
        """What the gates found before the switch. None: nothing is configured, or the switch was released."""

    async def fill(self, partitions: Sequence[str] | None = None) -> Summary:
        """Ingest the source, or some partitions of it, into the new generation, page by page.

        Returns:
            The documents that were not ingested. The publications are in the ledger alone, since they may be many.

        Raises:
            IngestError: As `Ingestion.run`. What was published before stays, and readers do not see it.
        """
        planner, filled = Planner(self._new), Summary()
        if partitions is None:
            pages = planner.pages()
        else:
            pages = iter([await asyncio.to_thread(planner.partitions, partitions)])
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            ingestion = Ingestion(self._new, self._embedder, run_id=self._run_id, spending=self._spending)
            self._spending = ingestion.spending
            found = await ingestion.run(page.plans)
            filled.failed |= found.failed
            filled.too_recent |= found.too_recent
        return filled

    async def switch(self) -> None:
        """Switch readers, once the new generation has all documents that they see, or newer bytes of them.

        Raises:
            ReembeddingIncompleteError: Some documents cannot be ingested into the new generation, or were rolled back.
            ConflictError: Documents are published faster than they can be compared.
            GenerationRetiredError: The re-embedding was aborted, or is done already.
            PublicationBlockedError: The new generation did not pass the gates.
        """
        for _ in range(_MAX_ROUNDS):
            found = await asyncio.to_thread(differences, self._old.corpus, self._new.corpus)
            confirmed = await self._compare_with_source(found)
            if len(confirmed) < len(found):
                continue
            await self._check_gates()
            if await asyncio.to_thread(switch, self._old.corpus, self._new.corpus, confirmed):
                return
        raise ConflictError(
            f"Documents of corpus {self._old.corpus.name!r} were published faster than its generations could be "
            "compared. Readers were not switched",
            "Run again when fewer documents change.",
        )

    async def _check_gates(self) -> None:
        """Judge the new generation once, unless the user released it after an earlier judgement."""
        settings = self._old.gates
        if settings is None or self.judgement is not None:
            return
        with self._new.corpus.database.transaction() as connection:
            last = last_switch_judgement(connection, self._new.corpus.generation)
        if last is not None and last.released_at is not None:
            return
        gates = Gates(self._old.corpus, settings, self._embedder)
        with boundary(Boundary.JUDGED):
            judgement = await gates.judge_switch(self._new.corpus, self._create_old_embedder)
        await asyncio.to_thread(gates.record, None, judgement, self._new.corpus.generation)
        self.judgement = judgement
        if not judgement.passed:
            raise PublicationBlockedError(
                f"Generation {self._new.corpus.generation} of corpus {self._old.corpus.name!r} did not pass the gates: "
                f"{judgement.failed}. Readers were not switched, and the generation is kept",
                "`ingest-pipeline gate status` shows what did not pass. To switch readers nevertheless, run "
                "`ingest-pipeline gate release` and `ingest-pipeline reembed`. To abort the re-embedding, run "
                "`ingest-pipeline gate drop`.",
            )

    async def _compare_with_source(self, found: Sequence[GenerationDifference]) -> list[GenerationDifference]:
        """Compare each difference with the source, and update the new generation where it differs from the source.

        Returns:
            The differences where the new generation equals the source.
        """
        listed = await asyncio.to_thread(self._new.listed, [difference.key for difference in found])
        there = {source.key: source.document_etag for source in listed}
        if found:
            await asyncio.to_thread(self._check_rolled_back, found, there)
        right = [one for one in found if one.key in there and one.new_etag == there[one.key]]
        behind = [one.partition for one in found if one.key in there and one.new_etag != there[one.key]]
        gone = [one.key for one in found if one.key not in there]
        if gone:
            await self._remove(gone)
        if behind:
            summary = await self.fill(behind)
            self._check_complete(summary, found)
        return right

    def _check_rolled_back(self, found: Sequence[GenerationDifference], there: Mapping[str, str]) -> None:
        """Refuse to show readers documents that were rolled back: the new generation has the source's bytes of them."""
        corpus = self._old.corpus
        with corpus.database.transaction() as connection:
            holds = read_holds(connection, corpus.generation, [difference.key for difference in found])
        kept = [key for key, hold in holds.items() if hold.etag == there.get(key)]
        if kept:
            raise ReembeddingIncompleteError(
                f"{counted(len(kept), 'document was', 'documents were')} rolled back in corpus {corpus.name!r}, and "
                f"the source still has the bytes from before: {', '.join(kept[:_MAX_NAMES])}",
                "Readers were not switched. Correct the files, or accept them with `ingest-pipeline retry KEY` and "
                "`ingest`; then run `ingest-pipeline reembed` again.",
            )

    async def _remove(self, keys: Sequence[str]) -> None:
        """Remove documents that the source lacks from both generations. This costs nothing.

        Raises:
            RemovalsWithheldError: The removal needs a confirmation, because it covers most documents.
        """
        seen_now = await asyncio.to_thread(_removals, self._old, keys)
        withheld = await asyncio.to_thread(check_removals, self._old, len(seen_now))
        if withheld is not None:
            raise withheld
        # The source was checked for them, and the embedder is that of another model than the gates need.
        await Ingestion(replace(self._old, gates=None), self._embedder, run_id=self._run_id).run(seen_now)
        self.removed_partitions += [document.partition for document in seen_now]
        from_new = await asyncio.to_thread(_removals, self._new, keys)
        await Ingestion(self._new, self._embedder, run_id=self._run_id).run(from_new)

    def _check_complete(self, summary: Summary, found: Sequence[GenerationDifference]) -> None:
        seen_now = {difference.key for difference in found if difference.old_saga is not None}
        problems = {**summary.failed, **summary.too_recent}
        failed = sorted(seen_now & problems.keys())
        if failed:
            _, first = problems[failed[0]]
            raise ReembeddingIncompleteError(
                f"{counted(len(failed), 'document')} of corpus {self._old.corpus.name!r} could not be ingested with "
                f"{self._new.recipe.embedding}: {', '.join(failed[:_MAX_NAMES])}. The first: {first.message}"
            )


def _target(found: Sequence[Generation], embedding: str) -> Generation | None:
    """The generation to fill: the one being filled, or the last retired one of this model."""
    usable = [generation for generation in found if generation.embedding == embedding]
    filling = [generation for generation in usable if generation.state == GenerationState.BUILDING]
    return next(
        reversed(filling or [generation for generation in usable if generation.state == GenerationState.RETIRED]), None
    )


def _removals(context: IngestContext, keys: Sequence[str]) -> list[DocumentPlan]:
    with context.corpus.database.transaction() as connection:
        latest = documents.latest_documents(connection, context.corpus.generation)
    wanted = set(keys)
    return [
        DocumentPlan(document.key, document.partition, None, document)
        for document in latest
        if document.key in wanted and not document.removed
    ]
