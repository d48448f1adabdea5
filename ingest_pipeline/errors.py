"""Every error that this package raises, with one class for each reaction of a caller.

IngestError
├── ConfigurationError            change a setting, then start again
│   ├── MissingExtraError         install an optional dependency
│   ├── CorpusMismatchError       the corpus exists with other settings
│   ├── TableInUseError           another corpus owns the table
│   ├── NotOurTableError          the table exists and no corpus owns it
│   ├── SchemaNewerError          upgrade the program
│   ├── RollbackRefusedError      name another version or document
│   ├── UnknownDocumentError      name a document that exists
│   └── EmbeddingAccessError      key refused, quota exhausted, model unknown
├── UnavailableError              an outside service does not answer: try again later
│   ├── DatabaseUnavailableError
│   ├── SourceUnavailableError
│   ├── TableUnavailableError
│   │   ├── TableAccessError      credentials or rights are missing
│   │   ├── TableFullError        make room
│   │   └── TableIncompleteError  the table, or a file of it, is missing
│   └── EmbeddingUnavailableError
├── DocumentError                 this document cannot be ingested as it is; others can
│   ├── UnreadableError           no text can be extracted from the file
│   │   ├── InaccessibleDocumentError
│   │   ├── EmptyDocumentError
│   │   ├── BinaryDocumentError
│   │   ├── DocumentEncodingError
│   │   ├── UnsupportedFormatError
│   │   │   └── EncryptedDocumentError
│   │   ├── CorruptDocumentError
│   │   └── DocumentTooLargeError
│   └── EmbeddingInputError       the API refuses a chunk of it
├── TooRecentError                the file may still be written: run again in a moment
├── EmbeddingResponseError        the API sent an invalid response
├── SpendingLimitError            a run or a day would use more tokens than allowed
├── StaleError                    plan again from the current state
│   ├── DocumentChangedError      the source object is not the one that was planned
│   ├── ConflictError             another saga published the same document first
│   ├── FencedError               another process marked this saga as failed
│   └── GenerationRetiredError       readers moved to another generation of the corpus
├── ReembeddingIncompleteError      the new generation cannot take all documents of the current one
├── TableDamagedError             a file of the table is missing or broken: audit, then repair
├── VersionGoneError              retention removed the version: read head
├── TextIndexMissingError         let maintenance build the text index first
├── OtherDatabaseError            decide which database continues with the table
├── ForeignWriteError             the user has to decide about a foreign version
├── InterruptedRunError           run the command again to continue
├── RemovalsWithheldError         the user has to confirm that most documents are gone
├── RecipeWithheldError           the user has to confirm that many documents are ingested again
└── AuditError                    the two stores disagree
"""

from datetime import datetime
from typing import ClassVar


class IngestError(Exception):
    """What happened, then what to do about it, as one line.

    Args:
        message: What happened, to which document or partition, and the state it was left in.
        remedy: What to do next; absent, the class's own remedy is used.
    """

    remedy: ClassVar[str] = ""

    def __init__(self, message: str, remedy: str | None = None) -> None:
        self.message = message
        self.advice = self.remedy if remedy is None else remedy
        super().__init__(message)

    def __str__(self) -> str:
        line = " ".join(self.message.split()).rstrip(".") + "."
        return f"{line} {self.advice}".rstrip()


class ConfigurationError(IngestError):
    """A setting is missing, malformed or contradicts another."""


class MissingExtraError(ConfigurationError):
    """An optional dependency that this call needs is not installed."""


class CorpusMismatchError(ConfigurationError):
    """The corpus exists, with settings that cannot be changed in place."""


class TableInUseError(ConfigurationError):
    """Two corpora are configured with one LanceDB table."""

    remedy = "Give this corpus a table of its own."


class NotOurTableError(ConfigurationError):
    """A LanceDB table exists at the location where a corpus would create its own."""

    remedy = "Choose another table name, or move the existing table. It was not touched."


class SchemaNewerError(ConfigurationError):
    """The database was migrated by a newer release of this program."""

    remedy = "Upgrade ingest-pipeline. Nothing was changed."


class RollbackRefusedError(ConfigurationError):
    """The version cannot be restored, or there is no such document."""

    remedy = "`ingest-pipeline history` shows which versions can be rolled back to. Nothing was changed."


class UnknownDocumentError(ConfigurationError):
    """A command names a document that is neither in the source nor in the corpus."""


class EmbeddingAccessError(ConfigurationError):
    """The embedding API refuses the key, the quota is exhausted, or the model does not exist."""


class UnavailableError(IngestError):
    """An outside service does not answer. The same call may succeed later."""


class DatabaseUnavailableError(UnavailableError):
    """Postgres cannot be reached, or ended the connection."""

    remedy = "Check that the server runs and that INGEST_DATABASE_URL names it, then run again."


class SourceUnavailableError(UnavailableError):
    """The object store that holds the documents does not answer."""

    remedy = "Check INGEST_SOURCE and its credentials, then run again."


class TableUnavailableError(UnavailableError):
    """The storage under the LanceDB table does not answer."""

    remedy = "Check that INGEST_LANCEDB_URI is right and that its storage can be reached, then run again."


class TableAccessError(TableUnavailableError):
    """The storage under the LanceDB table refuses access."""

    remedy = "Check the credentials for INGEST_LANCEDB_URI, and the rights on that folder, then run again."


class TableFullError(TableUnavailableError):
    """The storage under the LanceDB table has no room left."""

    remedy = "Make room there, then run again: the vectors so far are recorded and will not be billed again."


class TableIncompleteError(TableUnavailableError):
    """The LanceDB table, or a file of it, is missing or damaged. The affected rows are unknown."""

    remedy = (
        "Nothing was changed. Check INGEST_LANCEDB_URI, and restore missing files if there is a copy. "
        "`ingest-pipeline audit` lists the damage, `ingest-pipeline audit --repair` publishes the documents again."
    )


class EmbeddingUnavailableError(UnavailableError):
    """The embedding API did not answer within its retries."""

    remedy = "Run again later: the vectors so far are recorded and will not be billed again."


class DocumentError(IngestError):
    """This document cannot be ingested as it is. What was published of it stays; other documents go on.

    Args:
        document: The document's key.
        problem: What is wrong with it.
        remedy: What to do next; absent, the class's own remedy is used.
    """

    remedy = "What was published before is untouched. Fix or remove the file."
    reason: ClassVar[str] = "failed"
    """The name under which failures of this kind are counted."""

    def __init__(self, document: str, problem: str, remedy: str | None = None) -> None:
        self.document = document
        self.problem = problem
        super().__init__(f"Document {document!r} {problem}", remedy)


class UnreadableError(DocumentError):
    """No text can be extracted from the file. The option `on_unreadable` decides whether the run skips it or fails."""

    reason = "unreadable"
    may_pass: ClassVar[bool] = False
    """Whether another attempt at the same bytes may succeed."""


class InaccessibleDocumentError(UnreadableError):
    """The source lists the file but does not deliver its bytes."""

    reason = "inaccessible"
    may_pass = True


class EmptyDocumentError(UnreadableError):
    """A parser found no text in the document, as in a scan. A file without bytes is no error: it has no chunks."""

    reason = "without text"


class BinaryDocumentError(UnreadableError):
    """The document is not text and no parser reads its format."""

    reason = "binary"


class DocumentEncodingError(UnreadableError):
    """The document is text in an encoding that is not UTF-8, is not marked and is not the one of the settings."""

    reason = "of unknown encoding"


class UnsupportedFormatError(UnreadableError):
    """A parser for the format exists but does not accept this file."""

    reason = "of unsupported format"


class EncryptedDocumentError(UnsupportedFormatError):
    """The document needs a password."""

    reason = "encrypted"


class CorruptDocumentError(UnreadableError):
    """The document is truncated or damaged."""

    reason = "damaged"


class DocumentTooLargeError(UnreadableError):
    """Parsing the document took more memory, time or output than allowed; a decompression bomb does."""

    reason = "too large"
    may_pass = True


class EmbeddingInputError(DocumentError):
    """The embedding API refuses the text of a chunk, for example as too long."""

    reason = "refused by the API"


class TooRecentError(IngestError):
    """The file is empty and was modified so recently that another program may still be writing it."""

    remedy = "What was published before is untouched. Run again when the file is complete."


class EmbeddingResponseError(IngestError):
    """The embedding API sent the wrong number, order, width or kind of vectors. None was kept."""

    remedy = "Check that the model and INGEST_EMBEDDING_DIMENSIONS fit the endpoint, then run again."


class SpendingLimitError(IngestError):
    """A run or a day would use more tokens than the settings allow. The texts were not embedded.

    Args:
        message: Which limit, and how much was billed.
        remedy: What to do next.
        until: When the limit allows more by itself. None: when another run is begun, or the limit raised.
    """

    def __init__(self, message: str, remedy: str, *, until: datetime | None = None) -> None:
        super().__init__(message, remedy)
        self.until = until


class StaleError(IngestError):
    """The prepared data no longer fits the current state. Nothing was published. Planning again resolves the error."""

    remedy = "Run again: the vectors so far are recorded and will not be billed again."


class DocumentChangedError(StaleError):
    """The source object was replaced or removed after it was planned."""


class ConflictError(StaleError):
    """Another saga published the same document or table after this one read its base version."""


class FencedError(StaleError):
    """Another process marked this saga as failed, because its writer seemed dead. It can no longer publish."""


class GenerationRetiredError(StaleError):
    """The corpus moved to another generation, or the migration was aborted, while this saga worked."""


class ReembeddingIncompleteError(IngestError):
    """Documents at head cannot be ingested with the new model, so readers were not moved to the new table."""

    remedy = (
        "Readers still see the current table. Fix or remove these documents, then run `ingest-pipeline reembed` again."
    )


class TableDamagedError(IngestError):
    """Files of a LanceDB table are missing or cannot be decoded, although the store answers.

    Args:
        message: Which.
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
    """The reader requested a version that retention has removed."""

    remedy = "Read head, or keep versions longer with INGEST_RETENTION_DAYS or INGEST_RETENTION_PUBLICATIONS."


class TextIndexMissingError(IngestError):
    """The table has no text index yet, and too many rows to be searched by words without one."""

    remedy = "Run `ingest-pipeline maintain`, then search again; a search by vector works meanwhile."


class ForeignWriteError(IngestError):
    """Another program wrote a version above head. It was not touched."""


class OtherDatabaseError(IngestError):
    """Another database publishes into the table, or this one lost its publications. Nothing was written."""


class InterruptedRunError(IngestError):
    """A run was interrupted from the keyboard or by a signal."""


class RemovalsWithheldError(IngestError):
    """The source suddenly lacks most documents, as it would with a wrong prefix or a failing store."""

    remedy = (
        "To remove them, run `ingest-pipeline ingest --confirm-removals`, or set confirm_removals to true in "
        "the Launchpad. If that is not intended, check INGEST_SOURCE, INGEST_INCLUDE and INGEST_EXCLUDE."
    )


class RecipeWithheldError(IngestError):
    """Many documents differ from the source by recipe alone, as they would with a wrong or forgotten setting."""

    remedy = (
        "To ingest them again, run `ingest-pipeline ingest --confirm-recipe`, or set confirm_recipe to "
        "true in the Launchpad. If that is not intended, restore the settings, here or on the machine where they "
        "differ. New, changed and removed documents are still ingested."
    )


class AuditError(IngestError):
    """An audit found violations of the invariants."""
