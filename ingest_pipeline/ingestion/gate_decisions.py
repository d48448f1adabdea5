"""What waits for a decision because it did not pass its gates: publications, and a re-embedding before its switch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.postgres.catalog import gates
from ingest_pipeline.postgres.catalog.corpora import GenerationState
from ingest_pipeline.saga.blocked import blocked_publications, drop_publication, release_publication
from ingest_pipeline.saga.generations import abort, list_generations, opened
from ingest_pipeline.types import Finding

_LIST = "`ingest-pipeline gate status` lists what did not pass."


@dataclass(frozen=True, slots=True)
class Waiting:
    """A publication, or a generation before the switch, that did not pass its gates."""

    id: UUID | str
    """The saga of the publication, or the name of the generation."""
    judged_at: datetime
    findings: tuple[Finding, ...]
    documents: int = 0
    """Documents that the publication adds or replaces."""
    removed: int = 0
    """Documents that the publication removes."""
    run_id: str | None = None

    def __str__(self) -> str:
        return f"Publication {self.id}" if isinstance(self.id, UUID) else f"Generation {self.id}"


def waiting(corpus: Corpus) -> list[Waiting]:
    """Everything that waits for a decision, oldest first."""
    found = [
        Waiting(one.saga, one.judged_at, one.findings, one.documents, one.removed, one.run_id)
        for one in blocked_publications(corpus)
    ]
    for generation in list_generations(corpus.database, corpus.name):
        if generation.state != GenerationState.BUILDING:
            continue
        with corpus.database.transaction() as connection:
            last = gates.last_switch_judgement(connection, generation.name)
        if last is not None and not last.passed and last.released_at is None:
            found.append(Waiting(generation.name, last.judged_at, last.findings))
    return found


def waiting_for(corpus: Corpus, name: str | None) -> Waiting:
    """What waits for a decision under an id, or the only thing that does.

    Args:
        corpus: The corpus.
        name: The saga or its first characters, or a generation. None: the only one.

    Raises:
        ConfigurationError: There is none, or there are several.
    """
    found = [one for one in waiting(corpus) if name is None or str(one.id).startswith(name)]
    if not found:
        called = f" called {name!r}" if name else ""
        raise ConfigurationError(f"Corpus {corpus.name!r} has nothing{called} that did not pass its gates", _LIST)
    if len(found) > 1:
        raise ConfigurationError(
            f"{len(found)} publications of corpus {corpus.name!r} did not pass their gates", f"Name one. {_LIST}"
        )
    return found[0]


def release(corpus: Corpus, found: Waiting) -> int | None:
    """Publish a blocked publication, or let the next re-embedding switch readers.

    Returns:
        The published version; None for a re-embedding.

    Raises:
        ConfigurationError: It was released or dropped meanwhile.
        StaleError, UnavailableError: See `release_publication`.
    """
    if isinstance(found.id, UUID):
        return release_publication(corpus, found.id)
    with corpus.database.transaction() as connection:
        gates.release(connection, found.id, None)
    return None


def drop(corpus: Corpus, found: Waiting) -> None:
    """End a blocked publication, or abort a re-embedding.

    Raises:
        ConfigurationError: It was released or dropped meanwhile.
        GenerationRetiredError: The re-embedding has ended.
    """
    if isinstance(found.id, UUID):
        drop_publication(corpus, found.id)
        return
    for generation in list_generations(corpus.database, corpus.name):
        if generation.name == found.id:
            abort(opened(corpus.database, corpus.name, generation))
