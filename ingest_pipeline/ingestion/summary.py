"""What an ingestion did with its plans: publications, documents that failed or wait, and what the gates found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from ingest_pipeline.errors import IngestError, PublicationBlockedError
from ingest_pipeline.gates.judge import Judgement
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.preparation.batches import PreparedDocument
from ingest_pipeline.types import Price, Usage


@dataclass(frozen=True, slots=True)
class Publication:
    """One published saga and what it did."""

    saga: UUID
    base_version: int
    version: int
    documents: Sequence[PreparedDocument]
    removed: Sequence[DocumentPlan]
    usage: Usage
    price: Price | None
    seconds: float


@dataclass(frozen=True, slots=True)
class BlockedDocuments:
    """Documents of one prepared publication that did not pass its gates."""

    saga: UUID
    plans: Sequence[DocumentPlan]
    error: PublicationBlockedError


@dataclass(slots=True)
class Summary:
    """The outcome of the plans of a run."""

    publications: list[Publication] = field(default_factory=list[Publication])
    unchanged: list[DocumentPlan] = field(default_factory=list[DocumentPlan])
    on_hold: list[DocumentPlan] = field(default_factory=list[DocumentPlan])
    """Documents that were not ingested, because a rollback put them on hold."""
    too_recent: dict[str, tuple[DocumentPlan, IngestError]] = field(
        default_factory=dict[str, tuple[DocumentPlan, IngestError]]
    )
    """Empty files that may still be written to, and are deferred to a later run."""
    failed: dict[str, tuple[DocumentPlan, IngestError]] = field(
        default_factory=dict[str, tuple[DocumentPlan, IngestError]]
    )
    blocked: list[BlockedDocuments] = field(default_factory=list[BlockedDocuments])
    judgements: list[Judgement] = field(default_factory=list[Judgement])
    """What the gates found, in order."""
