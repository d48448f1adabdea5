"""Judges a prepared publication, or a re-embedded generation before the switch, by the gates of the corpus.

Counts come from the ledger, which has the chunk rows of the saga. Whatever needs the table reads a candidate: a shallow
clone of head with the change, see `lance.candidate`. It is made only if a configured gate needs it, and costs the
change and some metadata, however large the table is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import pyarrow as pa

from ingest_pipeline.config.options.gates import GateSettings
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.errors import ConfigurationError, PublicationBlockedError
from ingest_pipeline.gates.evaluate import embed_questions
from ingest_pipeline.gates.expectations import (
    MAX_IDS,
    EmptyChunks,
    VectorSum,
    drift,
    sampled_positions,
    share,
)
from ingest_pipeline.gates.golden_set import read_golden_set
from ingest_pipeline.gates.scores import ScoredTable
from ingest_pipeline.gates.user_gate import load_gates
from ingest_pipeline.lance.candidate import Candidate
from ingest_pipeline.lance.changes import Change
from ingest_pipeline.postgres.catalog import documents, gates
from ingest_pipeline.postgres.catalog.documents import Superseded
from ingest_pipeline.preparation.batches import PreparedDocument
from ingest_pipeline.preparation.prepare import Prepared
from ingest_pipeline.saga.documents import DocumentRows, removal_of
from ingest_pipeline.saga.lifecycle import Saga
from ingest_pipeline.types import Finding, Vectors

if TYPE_CHECKING:
    import lance

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gates found."""

    head_version: int
    """Head when it was judged."""
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether readers may see the publication."""
        return all(finding.passed for finding in self.findings)

    def error(self, corpus: str, saga: UUID) -> PublicationBlockedError:
        """The error that says why a publication did not pass."""
        return PublicationBlockedError(
            f"Publication {saga} of corpus {corpus!r} did not pass its gates: {self.failed}. Readers see the version "
            "before, and what was prepared is kept"
        )

    @property
    def failed(self) -> str:
        """The figures that exceed their limits."""
        return "; ".join(map(_named, (finding for finding in self.findings if not finding.passed)))


def _named(finding: Finding) -> str:
    more = "" if len(finding.ids) <= 3 else " and more"  # noqa: PLR2004  names in one line
    return f"{finding}{': ' if finding.ids else ''}{', '.join(finding.ids[:3])}{more}"


class Gates:
    """The gates of a corpus in one process. The questions of the golden set are embedded once.

    Args:
        corpus: The generation that publications are judged for.
        settings: The gates.
        embedder: Embeds the questions.

    Raises:
        ConfigurationError: The golden set is missing or malformed, or a gate of the user cannot be loaded.
    """

    def __init__(self, corpus: Corpus, settings: GateSettings, embedder: EmbeddingClient) -> None:
        if settings.golden_set is None and (settings.min_recall, settings.max_recall_drop) != (None, None):
            raise ConfigurationError(
                f"Corpus {corpus.name!r} has a limit on the recall, and no golden set",
                "Set INGEST_GOLDEN_SET to a file.",
            )
        self._corpus = corpus
        self._settings = settings
        self._embedder = embedder
        self._questions = () if settings.golden_set is None else read_golden_set(settings.golden_set)
        self._own = load_gates(tuple(settings.own))
        self._vectors: Vectors | None = None

    def continue_with(self, corpus: Corpus, embedder: EmbeddingClient) -> bool:
        """Judge the publications of another ingestion too; False if it is of another generation."""
        if corpus.generation != self._corpus.generation:
            return False
        self._corpus, self._embedder = corpus, embedder
        return True

    async def judge(self, saga: Saga, prepared: Prepared, rows: DocumentRows) -> Judgement:
        """Judge a prepared publication.

        Raises:
            FencedError: Another process took this writer for dead.
            UnavailableError: A store or the embedding API does not answer. The publication was not judged.
        """
        await self._embed_questions()
        judgement = await asyncio.to_thread(self._judge, prepared, rows)
        saga.check_not_fenced()
        return judgement

    async def judge_switch(
        self, new: Corpus, create_embedder: Callable[[], EmbeddingClient] | None = None
    ) -> Judgement:
        """Judge a generation that readers are to be switched to, against the current one.

        Args:
            new: The generation. The embedder of these gates is the one of its model.
            create_embedder: Creates an embedder of the current model, for the recall at head.

        Raises:
            ConfigurationError: The recall is compared with head, and there is no embedder of the current model.
            UnavailableError: A store or an embedding API does not answer.
        """
        vectors = now = None
        if self._questions and self._settings.golden_mode != "text":
            vectors = await embed_questions(new, self._embedder, self._questions)
        if self._questions and self._settings.max_recall_drop is not None and self._settings.golden_mode != "text":
            if create_embedder is None:
                raise ConfigurationError(
                    "The recall of a re-embedding is compared with head, but no embedder of head's model was passed",
                    "Pass an embedder of the current model, or unset INGEST_GATE_MAX_RECALL_DROP.",
                )
            async with create_embedder() as current:
                now = await embed_questions(self._corpus, current, self._questions)
        return await asyncio.to_thread(self._judge_switch, new, vectors, now)

    def record(self, saga: UUID | None, judgement: Judgement, generation: str | None = None) -> None:
        """Record a judgement in the ledger."""
        with self._corpus.database.transaction() as connection:
            name = generation or self._corpus.generation
            gates.record_judgement(connection, name, saga, judgement.head_version, judgement.findings)

    async def _embed_questions(self) -> None:
        if self._questions and self._vectors is None and self._settings.golden_mode != "text":
            self._vectors = await embed_questions(self._corpus, self._embedder, self._questions)

    def _judge(self, prepared: Prepared, rows: DocumentRows) -> Judgement:
        head = self._corpus.head().head_version
        findings = [*self._counts(rows.saga, self._corpus.generation), *self._of_documents(prepared)]
        if self._needs_candidate:
            plans = [*(document.plan for document in prepared.documents.values()), *prepared.removed]
            before = [
                Superseded(plan.key, list(plan.latest.fragments), plan.latest.chunk_count)
                for plan in plans
                if plan.latest is not None and not plan.latest.removed
            ]
            change = Change(rows.staged, removal_of(before), schema=rows.schema)
            with self._corpus.table.candidate(head, change, rows.saga) as candidate:
                findings += self._of_candidate(candidate, rows, [one.key for one in before])
        return Judgement(head, tuple(findings))

    def _judge_switch(self, new: Corpus, vectors: Vectors | None, now: Vectors | None) -> Judgement:
        limits, old, head = self._settings, self._corpus, new.head().head_version
        findings = [*self._counts(None, new.generation)]
        with old.database.transaction() as connection:
            total = documents.count_documents(connection, old.generation)
            lost, removed = gates.lost_documents(connection, old.generation, new.generation)
        findings += self._lost(lost) + self._removed(removed, total)
        if limits.max_empty is not None:
            findings.append(_empty(new.table.batches(head, ["id", "text"]), limits.max_empty))
        at_head = old.head().head_version
        after, before = ScoredTable(partial(new.table.read, head)), ScoredTable(partial(old.table.read, at_head))
        findings += self._golden(after, before, vectors, now)
        locations = new.table.location(head), old.table.location(at_head)
        with new.database.transaction() as connection:
            found = documents.latest_documents(connection, new.generation) if self._own else []
        keys = [document.key for document in found if not document.removed]
        findings += [gate.judge(*locations, keys, removed) for gate in self._own]
        return Judgement(head, tuple(findings))

    @property
    def _needs_candidate(self) -> bool:
        limits = (self._settings.max_empty, self._settings.max_drift)
        return bool(self._questions or self._own) or any(limit is not None for limit in limits)

    def _counts(self, saga: UUID | None, generation: str) -> Iterator[Finding]:
        """Shares of the chunks of a saga, or of a generation at head."""
        limits = self._settings
        if limits.max_duplicates is None and limits.max_long is None:
            return
        of = gates.Counted(saga, generation, limits.long_characters)
        with self._corpus.database.transaction() as connection:
            chunks, duplicates, long = gates.chunk_counts(connection, of)
            if limits.max_duplicates is not None:
                ids = gates.duplicate_chunks(connection, of, MAX_IDS) if duplicates else []
                yield share("duplicates", duplicates, chunks, limits.max_duplicates, ids)
            if limits.max_long is not None:
                ids = gates.long_chunks(connection, of, MAX_IDS) if long else []
                yield share("long", long, chunks, limits.max_long, ids)

    def _of_documents(self, prepared: Prepared) -> list[Finding]:
        found = self._lost(sorted(key for key, document in prepared.documents.items() if _is_lost(document)))
        if self._settings.max_removed is not None:
            with self._corpus.database.transaction() as connection:
                latest = documents.count_documents(connection, self._corpus.generation)
            found += self._removed(sorted(plan.key for plan in prepared.removed), latest)
        return found

    def _lost(self, keys: Sequence[str]) -> list[Finding]:
        limit = self._settings.max_lost
        if limit is None:
            return []
        passed = len(keys) <= limit
        return [Finding("lost", len(keys), limit, passed, () if passed else tuple(keys[:MAX_IDS]))]

    def _removed(self, keys: Sequence[str], total: int) -> list[Finding]:
        limit = self._settings.max_removed
        return [] if limit is None else [share("removed", len(keys), total, limit, keys)]

    def _of_candidate(self, candidate: Candidate, rows: DocumentRows, replaced: Sequence[str]) -> Iterator[Finding]:
        limits = self._settings
        if limits.max_empty is not None:
            yield _empty(candidate.added(["id", "text"]), limits.max_empty)
        if limits.max_drift is not None:
            before = _mean_of(candidate.base)
            removed = VectorSum.of(candidate.replaced(["vector"], replaced))
            after = before.changed(removed, VectorSum.of(candidate.added(["vector"])))
            finding = drift(before, after, limits.max_drift)
            yield from [] if finding is None else [finding]
        after_change, at_head = ScoredTable(candidate.read), ScoredTable(candidate.read_base)
        yield from self._golden(after_change, at_head, self._vectors, self._vectors)
        for gate in self._own:
            yield gate.judge(candidate.location, candidate.base_location, list(rows.files), rows.removed)

    def _golden(
        self, after: ScoredTable, before: ScoredTable, vectors: Vectors | None, now: Vectors | None
    ) -> Iterator[Finding]:
        """Score the golden set. A question is not counted if nothing that it expects was ever in the corpus.

        Args:
            after: The prepared table.
            before: The table at head.
            vectors: The questions, as the model of the prepared table embeds them.
            now: The questions, as the model of head embeds them.
        """
        if not self._questions:
            return
        limits = self._settings
        present = after.present(self._questions) | before.present(self._questions)
        counted = [n for n, one in enumerate(self._questions) if one.texts or present & {*one.documents, *one.chunks}]
        if not counted:
            return
        k, mode = limits.golden_k, limits.golden_mode
        questions = [self._questions[n] for n in counted]
        scores = after.score(questions, None if vectors is None else vectors[counted], k=k, mode=mode)
        missed = [one.query for one in scores.missed]
        yield _limited("recall", scores.recall, limits.min_recall, scores.recall >= (limits.min_recall or 0), missed)
        yield from (Finding("ndcg", scores.ndcg), Finding("mrr", scores.mrr), Finding("questions", len(questions)))
        if limits.max_recall_drop is None:
            return
        head = before.score(questions, None if now is None else now[counted], k=k, mode=mode)
        lost = [two.query for one, two in scores.changed_since(head) if two.recall < one.recall]
        fall = head.recall - scores.recall
        yield Finding("recall_at_head", head.recall)
        yield _limited("recall_drop", fall, limits.max_recall_drop, fall <= limits.max_recall_drop + _ROUNDING, lost)


def _limited(figure: str, value: float, limit: float | None, passed: bool, ids: Sequence[str]) -> Finding:  # noqa: FBT001
    return Finding(figure, value, limit, passed, () if passed else tuple(ids[:MAX_IDS]))


def _empty(batches: Iterable[pa.RecordBatch], limit: float) -> Finding:
    """The finding for chunks without a letter or a digit."""
    found = EmptyChunks()
    for batch in batches:
        found.add(batch)
    return found.finding(limit)


def _is_lost(document: PreparedDocument) -> bool:
    """Whether a document had text at head and has none now."""
    latest = document.plan.latest
    return document.chunks == 0 and latest is not None and not latest.removed and latest.chunk_count > 0


def _mean_of(table: lance.LanceDataset) -> VectorSum:
    """The sum of the vectors of a table, estimated from a sample of it if it is large."""
    rows = table.count_rows()
    if not rows:
        return VectorSum()
    return VectorSum.of(table.take(sampled_positions(rows), columns=["vector"]).to_batches()).scaled_to(rows)
