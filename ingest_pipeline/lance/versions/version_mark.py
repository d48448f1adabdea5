"""The mark of a version: which saga of which database wrote the version, and where the table was.

A saga's id alone does not distinguish a database from its copy: a clone, or a database restored from a backup, has the
same rows. So the mark also names the database, and how much of its log was on disk. The mark is part of the Lance
transaction, so no version of this package exists without a mark, not even for a moment.
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
    """The properties that distinguish a database from its copies. A property that the server does not show is empty."""

    installation: str
    """Generated when the tables of this package were created. A dump includes it."""
    system: str
    """Identifies the server's data since ``initdb``. A copy of its files includes it, a dump does not."""
    timeline: str
    """Counts promotions and restores to a point in time."""
    number: str
    """Identifies the database in its server. A restored dump gets another number."""
    folder: str
    """For an embedded server, a digest of the path of its data."""
    name: str = field(compare=False)

    def __str__(self) -> str:
        """The identity as messages show it."""
        return (
            f"{self.name or '?'} (system {self.system or '?'}, timeline {self.timeline or '?'}, number {self.number})"
        )


@dataclass(frozen=True, slots=True)
class CorpusFacts:
    """The catalog's facts about a corpus besides its head, from which a lost catalog row can be recreated."""

    generation: str
    corpus: str
    source: str | None
    partition_by: str | None
    embedding: str | None


@dataclass(frozen=True, slots=True)
class VersionMark:
    """The saga and database that wrote a version, when and where."""

    saga: UUID
    database: DatabaseIdentity | None
    """The database's identity. None: the mark does not name one."""
    flushed: int | None = None
    """How many bytes of the database's log were on disk before the version was made. A database with less is older."""
    table: str = ""
    """The URI under which the table was written. If it differs from the present one, the table was moved or copied."""
    corpus: CorpusFacts | None = None

    def properties(self) -> dict[str, str]:
        """The properties that Lance stores with the transaction."""
        return {
            SAGA_PROPERTY: str(self.saga),
            _DATABASE: "" if self.database is None else json.dumps(asdict(self.database)),
            _FLUSHED: "" if self.flushed is None else str(self.flushed),
            _TABLE: self.table,
            _CORPUS: "" if self.corpus is None else json.dumps(asdict(self.corpus)),
        }

    @classmethod
    def read(cls, properties: Mapping[str, str]) -> VersionMark | None:
        """The mark in the properties of a transaction; None if another program wrote the version."""
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
