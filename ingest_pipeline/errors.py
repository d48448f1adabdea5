"""Every error that this package raises, one class for each thing that a caller can do about it.

IngestError
├── ConfigurationError            change a setting, then start again
│   ├── MissingExtraError         install an optional dependency
│   ├── SourceMissingError        create the source folder, or name another one
│   ├── CorpusMismatchError       restore the settings, or run `reembed` or `relocate`
│   ├── TableInUseError           choose another table, for another corpus owns this one
│   ├── NotOurTableError          choose another table, for no corpus owns this one
│   ├── SchemaNewerError          upgrade the program
│   ├── NotDurableError           let the server flush what it confirms
│   ├── UnsafeStoreError          choose a store that never overwrites a version
│   ├── RollbackRefusedError      name another version or document
│   ├── UnknownDocumentError      name a document that exists
│   ├── EmbeddingAccessError      correct the key, the quota or the model
│   ├── EventQueueAccessError     correct the queue or the rights
│   └── RerankerAccessError       correct the key
├── UnavailableError              try again later: an outside service does not answer
│   ├── DatabaseUnavailableError
│   ├── SourceUnavailableError
│   ├── TableUnavailableError
│   │   ├── TableAccessError      credentials or rights are missing
│   │   ├── TableFullError        free disk space
│   │   └── TableIncompleteError  the table, or a file of it, is missing
│   ├── EmbeddingUnavailableError
│   ├── EventQueueUnavailableError
│   └── RerankerUnavailableError
├── ClosedError                   the corpus is not open: open it again
├── DocumentError                 this document cannot be ingested as it is; others can
│   ├── UnreadableError           no text can be extracted from the file
│   │   ├── InaccessibleDocumentError
│   │   ├── EmptyDocumentError
│   │   ├── BinaryDocumentError
│   │   ├── DocumentEncodingError
│   │   ├── UnsupportedFormatError
│   │   │   └── EncryptedDocumentError
│   │   ├── CorruptDocumentError
│   │   ├── ExtensionError        the user's parser or chunker failed with it
│   │   └── DocumentTooLargeError
│   ├── EnrichmentError           the user's enricher failed with it
│   ├── ColumnValueError          a value of a column has the wrong type
│   └── EmbeddingInputError       the API refuses a chunk of it
├── TooRecentError                the file may still be incomplete: run again in a moment
├── EmbeddingResponseError        the API sent an invalid response
│   └── EmbedderError             the user's embedder failed
├── RerankerResponseError         the reranker sent an invalid response
├── SpendingLimitError            wait until the limit allows more tokens, or raise it
├── StaleError                    plan again from the current state
│   ├── DocumentChangedError      the source object is not the one that was planned
│   ├── ConflictError             another saga published the same document first
│   ├── FencedError               another process marked this saga as failed
│   └── GenerationRetiredError    readers moved to another generation of the corpus
├── ReembeddingIncompleteError    some documents cannot be ingested into the new generation
├── TableDamagedError             a file of the table is missing or damaged: audit, then repair
├── VersionGoneError              retention removed the version: read head
├── TextIndexMissingError         let maintenance build the text index first
├── OtherDatabaseError            decide which database continues with the table
├── ForeignWriteError             decide whether to keep the version of the other program
├── InterruptedRunError           run the command again to continue
├── WorkersDiedError              run again, with fewer workers or more memory
├── RemovalsWithheldError         confirm that most documents are gone
├── RecipeWithheldError           confirm that many documents are ingested again
├── PublicationBlockedError       release or drop what did not pass its gates, or correct the files
└── AuditError                    look at the violations, then repair the documents
"""

from datetime import datetime
from typing import ClassVar


class IngestError(Exception):
    """An error whose text is one line: what happened, then what to do about it.

    Args:
        message: What happened, to which document or partition, and in which state things are.
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

    def __reduce__(self) -> tuple[object, ...]:
        """Between processes, errors travel without another call of the constructor, whose arguments differ."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[IngestError], args: tuple[object, ...], attributes: dict[str, object]) -> IngestError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class ConfigurationError(IngestError):
    """A setting is missing, malformed or contradicts another."""


class MissingExtraError(ConfigurationError):
    """An optional dependency that this call needs is not installed."""


class SourceMissingError(ConfigurationError):
    """The folder of the source does not exist."""


class CorpusMismatchError(ConfigurationError):
    """The corpus exists with other settings, which cannot be changed in place."""


class TableInUseError(ConfigurationError):
    """Two corpora are configured with one LanceDB table."""

    remedy = "Give this corpus a table of its own."


class NotOurTableError(ConfigurationError):
    """A LanceDB table exists at the location where a corpus would create its own."""

    remedy = "The existing table was not changed. Choose another name, or move the existing table."


class SchemaNewerError(ConfigurationError):
    """The database was migrated by a newer release of this program."""

    remedy = "Nothing was changed. Upgrade ingest-pipeline."


class NotDurableError(ConfigurationError):
    """The Postgres server can lose what it confirmed when the power fails."""

    remedy = (
        "Set fsync and full_page_writes to on in the server's configuration and reload it. If its storage keeps "
        "committed data without them, as that of some hosted services does, set INGEST_REQUIRE_FSYNC to false."
    )


class UnsafeStoreError(ConfigurationError):
    """The object store overwrites an object that a request only wants to create, so writers could lose versions."""

    remedy = (
        "Nothing was changed. Set INGEST_LANCEDB_URI to a store that supports conditional writes (If-None-Match), such "
        "as Amazon S3, Google Cloud Storage or Azure, or to a local folder."
    )


class RollbackRefusedError(ConfigurationError):
    """The version cannot be restored, or there is no such document."""

    remedy = "Nothing was changed. `ingest-pipeline history` lists the versions to which you can roll back."


class UnknownDocumentError(ConfigurationError):
    """A command names a document that is neither in the source nor in the corpus."""


class EmbeddingAccessError(ConfigurationError):
    """The embedding API refuses the key, the quota is exhausted, or the model does not exist."""


class EventQueueAccessError(ConfigurationError):
    """There is no such event queue, or SQS refuses the credentials or the request."""

    remedy = "Check INGEST_EVENTS, and give the role the rights that docs/how-to/events.md lists."


class RerankerAccessError(ConfigurationError):
    """The reranker refuses the key."""

    remedy = "Check INGEST_RERANK_API_KEY."


class ClosedError(IngestError):
    """A corpus or database was used before it was opened or after it was closed."""

    remedy = "Use the corpus inside the block of `with open_corpus(...)`, or open it again."


class UnavailableError(IngestError):
    """An outside service does not answer. The same call may succeed later."""


class EventQueueUnavailableError(UnavailableError):
    """The event queue does not answer. Until it does, changes are found by the listing of the source."""

    remedy = "Check INGEST_EVENTS and the network, then run again."


class RerankerUnavailableError(UnavailableError):
    """The reranker does not answer."""

    remedy = "Check INGEST_RERANK_URL, or search without a reranker."


class RerankerResponseError(IngestError):
    """The reranker answered with something that is no list of scores."""

    remedy = "Check that INGEST_RERANK_URL is the address of a reranker."


class DatabaseUnavailableError(UnavailableError):
    """Postgres cannot be reached, or ended the connection."""

    remedy = "Check that the server runs and that INGEST_DATABASE_URL is correct, then run again."


class SourceUnavailableError(UnavailableError):
    """The object store or folder of the documents does not answer."""

    remedy = "Check INGEST_SOURCE and its credentials, then run again."


class TableUnavailableError(UnavailableError):
    """The storage of the LanceDB table does not answer."""

    remedy = "Check that INGEST_LANCEDB_URI is correct and that its storage can be reached, then run again."


class TableAccessError(TableUnavailableError):
    """The storage of the LanceDB table refuses access."""

    remedy = "Check the credentials for INGEST_LANCEDB_URI and the permissions on that folder, then run again."


class TableFullError(TableUnavailableError):
    """The storage of the LanceDB table is full."""

    remedy = "Free space there, then run again: the vectors so far are recorded and will not be billed again."


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
    """This document cannot be ingested. Its published version stays, and other documents are ingested.

    Args:
        document: The document's key.
        problem: What is wrong with the document.
        remedy: What to do next; absent, the class's own remedy is used.
    """

    remedy = "Its published version, if any, was not changed. Fix or remove the file."
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
    """The source lists the file, but its bytes cannot be read."""

    reason = "inaccessible"
    may_pass = True


class EmptyDocumentError(UnreadableError):
    """A parser found no text in the document, as in a scan. A file without bytes is no error: it has no chunks."""

    reason = "without text"


class BinaryDocumentError(UnreadableError):
    """The document is not text and no parser reads its format."""

    reason = "binary"


class DocumentEncodingError(UnreadableError):
    """The document is text, but neither UTF-8, nor marked with its encoding, nor in the configured encoding."""

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


class ExtensionError(UnreadableError):
    """A parser or chunker of the user raised an exception, hung, crashed or returned something invalid."""

    remedy = (
        "Its published version is untouched. Correct the extension and change its fingerprint, or run "
        "`ingest-pipeline retry`."
    )
    reason = "refused by an extension"


class DocumentTooLargeError(UnreadableError):
    """Parsing the document took more memory, time or output than allowed; a decompression bomb does."""

    reason = "too large"
    may_pass = True


class EnrichmentError(DocumentError):
    """An enricher of the user raised an exception, hung, crashed or returned something invalid."""

    remedy = (
        "Its published version is untouched. The next runs try again; if the enricher is wrong, correct it and change "
        "its fingerprint."
    )
    reason = "not enriched"


class ColumnValueError(DocumentError):
    """A source of column values is malformed, or a value does not fit the type of its column."""

    remedy = "Its published version is untouched. Correct the value, or the type of the column."
    reason = "with a wrong column value"


class EmbeddingInputError(DocumentError):
    """The embedding API refuses the text of a chunk, for example because the text is too long."""

    reason = "refused by the API"


class TooRecentError(IngestError):
    """The file is empty and was modified so recently that another program may still be writing it."""

    remedy = "The published version, if any, was not changed. Run again when the file is complete."


class EmbeddingResponseError(IngestError):
    """The embedding API sent the wrong number, order, width or kind of vectors. None of them was recorded."""

    remedy = "Check that the model and INGEST_EMBEDDING_DIMENSIONS fit the endpoint, then run again."


class EmbedderError(EmbeddingResponseError):
    """An embedder of the user raised an exception, hung, crashed or returned something invalid."""

    remedy = "No vector of that batch was recorded. Correct the embedder, then run again."


class SpendingLimitError(IngestError):
    """A run or a day would use more tokens than the settings allow. The texts were not embedded.

    Args:
        message: Which limit was reached, and how much was billed.
        remedy: What to do next.
        until: When the limit allows more tokens again. None: in another run, or after the limit is raised.
    """

    def __init__(self, message: str, remedy: str, *, until: datetime | None = None) -> None:
        super().__init__(message, remedy)
        self.until = until


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


class ReembeddingIncompleteError(IngestError):
    """Documents at head cannot be ingested with the new model, so readers were not switched to the new table."""

    remedy = (
        "Readers still see the current table. Fix or remove these documents, then run `ingest-pipeline reembed` again."
    )


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
    """The reader requested a version that retention has removed."""

    remedy = "Read head, or keep versions longer with INGEST_RETENTION_DAYS or INGEST_RETENTION_PUBLICATIONS."


class TextIndexMissingError(IngestError):
    """The table has no text index yet, and too many rows to be searched by words without one."""

    remedy = "Run `ingest-pipeline maintain`, then search again; a search by vector works meanwhile."


class ForeignWriteError(IngestError):
    """Another program wrote a version above head. The version was not touched."""


class OtherDatabaseError(IngestError):
    """Another database publishes into the table, or this database lost its publications. Nothing was written."""


class InterruptedRunError(IngestError):
    """A run was interrupted from the keyboard or by a signal."""


class WorkersDiedError(IngestError):
    """The worker processes of a run died before its documents were ingested, for example for lack of memory."""

    remedy = "Run again to continue, with fewer workers if the machine had no memory left."


class RemovalsWithheldError(IngestError):
    """The source suddenly lacks most documents, perhaps because of a wrong prefix or a failing store."""

    remedy = (
        "To remove them, run `ingest-pipeline ingest --confirm-removals`, or set confirm_removals to true in "
        "the Launchpad. If they should not be removed, check INGEST_SOURCE, INGEST_INCLUDE and INGEST_EXCLUDE."
    )


class RecipeWithheldError(IngestError):
    """Many documents differ from the source by recipe alone, perhaps because of a wrong or forgotten setting."""

    remedy = (
        "To ingest them again, run `ingest-pipeline ingest --confirm-recipe`, or set confirm_recipe to "
        "true in the Launchpad. Otherwise restore the settings, here or on the machine where they "
        "differ. New, changed and removed documents are still ingested."
    )


class PublicationBlockedError(IngestError):
    """A prepared publication did not pass its gates. No reader sees it, and it is kept as it was prepared."""

    remedy = (
        "Look at it with `ingest-pipeline gate status`. Correct the files, or publish it with `ingest-pipeline gate "
        "release`, or end it with `ingest-pipeline gate drop`."
    )


class AuditError(IngestError):
    """An audit found violations of the invariants."""
