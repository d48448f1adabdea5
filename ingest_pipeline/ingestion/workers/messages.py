"""What a run and its workers send each other, as pickles over a socket that no other process has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.ingestion.summary import Summary
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.telemetry.propagation import carried


@dataclass(frozen=True, slots=True)
class Assignment:
    """The corpus and the run that a worker works for. Sent once, at its start."""

    database_url: str = field(repr=False)
    config: CorpusConfig
    """The settings of the run, which the corpus has already."""
    embedder: OpenAISettings
    """Without the user's embedder, whose class cannot be sent."""
    user_embedder: str | None = None
    """Key of the user's embedder, if there is one."""
    run_id: str | None = None
    """The Dagster run that the usage is counted for, if there is one. It shows previews of the documents."""


@dataclass(frozen=True, slots=True)
class Part:
    """Documents for one worker."""

    plans: Sequence[DocumentPlan]
    attempt: int = 1
    """How many workers got the part. Greater than one if a worker died with it."""
    trace: Mapping[str, str] = field(default_factory=carried)
    """The span of the run, which those of the worker continue."""


@dataclass(frozen=True, slots=True)
class Peers:
    """All workers of the run, whose tokens count for its limit."""

    writers: Sequence[str]


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has opened the corpus."""

    writer: str
    """Its identity in the ledger."""
    is_served: bool
    """Whether its endpoint is known to serve the model."""


@dataclass(frozen=True, slots=True)
class Served:
    """The endpoint has answered with a vector of the model, so that several workers may use it."""


@dataclass(frozen=True, slots=True)
class PartDone:
    """A part was ingested."""

    summary: Summary
    """Without the publications, which were sent one by one."""


@dataclass(frozen=True, slots=True)
class PartFailed:
    """A failure that concerns all documents, and not only those of the part."""

    error: Exception
