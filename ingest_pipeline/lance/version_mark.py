"""What every version of a table says about itself: which saga of which database made it, and where the table was.

A saga's id alone does not tell a database from its copy: a clone, or a database restored from a backup, has the same
rows. So the mark names the database too, and how far its log was on disk. It is part of the Lance transaction: there is
no version of ours without it, and no moment between the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from uuid import UUID

SAGA_PROPERTY = "ingest_pipeline.saga"
_DATABASE = "ingest_pipeline.database"
_FLUSHED = "ingest_pipeline.flushed"
_TABLE = "ingest_pipeline.table"
_CORPUS = "ingest_pipeline.corpus"


@dataclass(frozen=True, slots=True)
class DatabaseIdentity:
    """What tells a database from its copies. A part that the server does not show is empty."""

    installation: str
    """Made up when the tables of this package were created. A dump carries it along."""
    system: str
    """Of the server's data, since ``initdb``. A copy of its files carries it along, a dump does not."""
    timeline: str
    """Counts promotions and restores to a point in time."""
    number: str
    """Of the database in its server. A dump that is restored gets another."""
    folder: str
    """Of an embedded server, a digest of where its data are."""
    name: str = field(compare=False)

    def __str__(self) -> str:
        """For a message."""
        return (
            f"{self.name or '?'} (system {self.system or '?'}, timeline {self.timeline or '?'}, number {self.number})"
        )


@dataclass(frozen=True, slots=True)
class CorpusFacts:
    """What the catalog knows of a corpus besides its head, so that a table without a catalog can be read again."""

    generation: str
    corpus: str
    source: str | None
    partition_by: str | None
    embedding: str | None


@dataclass(frozen=True, slots=True)
class VersionMark:
    """Who made a version, when and where."""

    saga: UUID
    database: DatabaseIdentity | None
    """None: it does not say."""
    flushed: int | None = None
    """How many bytes of the database's log were on disk before the version was made. What has less is older."""
    table: str = ""
    """Uri under which the table was written. Another than it has now: the table was moved or copied."""
    corpus: CorpusFacts | None = None

    def properties(self) -> dict[str, str]:
        """As Lance keeps them with the transaction."""
        return {
            SAGA_PROPERTY: str(self.saga),
            _DATABASE: "" if self.database is None else json.dumps(asdict(self.database)),
            _FLUSHED: "" if self.flushed is None else str(self.flushed),
            _TABLE: self.table,
            _CORPUS: "" if self.corpus is None else json.dumps(asdict(self.corpus)),
        }

    @classmethod
    def read(cls, properties: Mapping[str, str]) -> VersionMark | None:
        """The mark in the properties of a transaction, None if something else than this package made the version."""
        saga = properties.get(SAGA_PROPERTY)
        if saga is None:
            return None
        database, corpus = properties.get(_DATABASE), properties.get(_CORPUS)
        flushed = properties.get(_FLUSHED)
        return cls(
            UUID(saga),
            DatabaseIdentity(**json.loads(database)) if database else None,
            int(flushed) if flushed else None,
            properties.get(_TABLE, ""),
            CorpusFacts(**json.loads(corpus)) if corpus else None,
        )
