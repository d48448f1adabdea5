"""The table, source, partition scheme and embedding to which the first publication binds a corpus."""

from __future__ import annotations

from dataclasses import dataclass

from ingest_pipeline.errors import CorpusMismatchError
from ingest_pipeline.postgres.catalog.corpora import GenerationRow
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query


@dataclass(frozen=True, slots=True)
class Binding:
    """Values that must be equal in the settings and in the catalog."""

    table_uri: str
    source: str | None
    partition_by: str | None
    embedding: str | None


def binding_of(row: GenerationRow) -> Binding:
    """Return the binding that the catalog records for a generation."""
    return Binding(row.table_uri, row.source, row.partition_by, row.embedding)


def mismatch(row: GenerationRow, wanted: Binding) -> CorpusMismatchError | None:
    """Return an error for the first value that differs between settings and catalog, None if all are equal."""
    recorded = binding_of(row)
    for what, there, here, remedy in (
        ("table", recorded.table_uri, wanted.table_uri, _TABLE),
        ("source", recorded.source, wanted.source, _SOURCE),
        ("partition scheme", recorded.partition_by, wanted.partition_by, _SCHEME),
        ("embedding", recorded.embedding, wanted.embedding, _EMBEDDING),
    ):
        if there != here:
            return _contradiction(row.corpus, what, there, here, remedy)
    return None


def rebind(connection: Connection, name: str, binding: Binding) -> None:
    """Record another binding of a generation. The caller holds its lock."""
    values = {
        "name": name,
        "table_uri": binding.table_uri,
        "source": binding.source,
        "partition_by": binding.partition_by,
        "embedding": binding.embedding,
    }
    connection.execute(query("rebind"), values)


def table_mismatch(corpus: str, recorded: str, wanted: str) -> CorpusMismatchError | None:
    """Compare the tables only, which is all that a reader needs; otherwise like `mismatch`."""
    return None if recorded == wanted else _contradiction(corpus, "table", recorded, wanted, _TABLE)


def _contradiction(
    corpus: str, what: str, recorded: str | None, wanted: str | None, remedy: str
) -> CorpusMismatchError:
    return CorpusMismatchError(
        f"Corpus {corpus!r} has {what} {recorded!r}, and the settings say {wanted!r}. Nothing was changed", remedy
    )


_TABLE = (
    "Set INGEST_LANCEDB_URI (of a component: lancedb_uri) back. If the table was moved to the new folder, run "
    "`ingest-pipeline relocate --table`."
)
_SOURCE = (
    "Set INGEST_SOURCE (of a component: source) back. If the same documents are at the new place, run "
    "`ingest-pipeline relocate --source`."
)
_SCHEME = (
    "Set INGEST_PARTITION_BY (of a component: partition_by) back, or delete the corpus with `ingest-pipeline drop` and "
    "ingest it again, which embeds all of its chunks again."
)
_EMBEDDING = (
    "Set INGEST_EMBEDDING_MODEL and INGEST_EMBEDDING_DIMENSIONS back. If the new name means the same model, run "
    "`ingest-pipeline relocate --embedding-model`; to move to another model, run `ingest-pipeline reembed`."
)
