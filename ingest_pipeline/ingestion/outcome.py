"""The outcome of an ingest run: what it published, and which documents it skipped, withheld or could not ingest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ingest_pipeline.errors import IngestError
from ingest_pipeline.gates.judge import Judgement
from ingest_pipeline.types import counted


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a partition differs from the source."""

    partition: str
    document: str | None
    error: IngestError


@dataclass(frozen=True, slots=True)
class SkippedDocument:
    """A document that a run skipped although it differs from the source."""

    document: str
    reason: str
    """One or two words. Documents are counted by reason."""
    problem: str
    """What is wrong with the document, and what to do."""


@dataclass(slots=True)
class IngestOutcome:
    """What an ingest run did. Documents that failed or were skipped do not stop the others."""

    published: int = 0
    """Documents that were published."""
    removed: int = 0
    """Documents that were removed, because the source lacks them or the settings exclude them."""
    failed: list[Problem] = field(default_factory=list[Problem])
    """Documents that could not be ingested, and why."""
    skipped: list[SkippedDocument] = field(default_factory=list[SkippedDocument])
    """Documents that were skipped on purpose: they cannot be read, failed too often, or may still be written to."""
    others: list[Problem] = field(default_factory=list[Problem], repr=False)
    """Removals or a recipe change that need a confirmation, publications that did not pass their gates, and partitions
    that do not exist."""
    incomplete: set[str] = field(default_factory=set[str], repr=False)
    """Partitions that differ from the source."""
    unreadable: Counter[str] = field(default_factory=Counter[str], repr=False)
    """Number of documents that cannot be read, by partition."""
    tried_unreadable: set[str] = field(default_factory=set[str], repr=False)
    """Keys of the documents that this run tried to read and could not."""

    judgements: list[Judgement] = field(default_factory=list[Judgement], repr=False)
    """What the gates found in each prepared publication, in order."""

    @property
    def problems(self) -> list[Problem]:
        """All problems that fail a Dagster run."""
        return [*sorted(self.failed, key=lambda problem: problem.document or ""), *self.others]

    def __str__(self) -> str:
        counts = {"removed": self.removed, "failed": len(self.failed), "skipped": len(self.skipped)}
        others = "".join(f", {count} {what}" for what, count in counts.items() if count)
        return f"{counted(self.published, 'document')} published{others}"
