"""Errors about the state of a corpus: what was prepared is stale, or its stores do not have what was expected."""

from ingest_pipeline.errors.base import IngestError


class ClosedError(IngestError):
    """A corpus or database was used before it was opened or after it was closed."""

    remedy = "Use the corpus inside the block of `with open_corpus(...)`, or open it again."


class StaleError(IngestError):
    """The prepared data no longer fits the current state. Nothing was published. A new plan resolves the error."""

    remedy = "Run again: the vectors so far are recorded and will not be billed again."


class DocumentChangedError(StaleError):
    """The source object was replaced or removed after it was planned."""


class ConflictError(StaleError):
    """Another saga published the same document or table after this one read its base version."""


class FencedError(StaleError):
    """Another process marked this saga as failed, because its writer seemed dead. The writer can no longer publish."""


class GenerationRetiredError(StaleError):
    """The corpus switched to another generation, or the re-embedding was aborted, while this saga was active."""


class TableDamagedError(IngestError):
    """Files of a LanceDB table are missing or cannot be decoded, although the store answers.

    Args:
        message: Which files are damaged.
        fragments: Ids of the fragments whose rows cannot be read.
        remedy: What to do next; absent, the class's own remedy is used.
    """

    remedy = (
        "`ingest-pipeline audit` names the affected documents, `ingest-pipeline audit --repair` publishes them again. "
        "Other documents can be read and ingested meanwhile."
    )

    def __init__(self, message: str, fragments: frozenset[int] = frozenset(), remedy: str | None = None) -> None:
        self.fragments = fragments
        super().__init__(message, remedy)


class VersionGoneError(IngestError):
    """The reader requested a version that retention or an erasure has removed."""

    remedy = "Read head, or keep versions longer with INGEST_RETENTION_DAYS or INGEST_RETENTION_PUBLICATIONS."


class TextIndexMissingError(IngestError):
    """The table has no text index yet, and too many rows to be searched by words without one."""

    remedy = "Run `ingest-pipeline maintain`, then search again; a search by vector works meanwhile."


class ForeignWriteError(IngestError):
    """Another program wrote a version above head. The version was not touched."""


class OtherDatabaseError(IngestError):
    """Another database publishes into the table, or this database lost its publications. Nothing was written."""


class AuditError(IngestError):
    """An audit found violations of the invariants."""
