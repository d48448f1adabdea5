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
├── VersionGoneError              retention or an erasure removed the version: read head
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

from ingest_pipeline.errors.base import IngestError
from ingest_pipeline.errors.configuration import (
    ConfigurationError,
    CorpusMismatchError,
    EmbeddingAccessError,
    EventQueueAccessError,
    MissingExtraError,
    NotDurableError,
    NotOurTableError,
    RerankerAccessError,
    RollbackRefusedError,
    SchemaNewerError,
    SourceMissingError,
    TableInUseError,
    UnknownDocumentError,
    UnsafeStoreError,
)
from ingest_pipeline.errors.corpus import (
    AuditError,
    ClosedError,
    ConflictError,
    DocumentChangedError,
    FencedError,
    ForeignWriteError,
    GenerationRetiredError,
    OtherDatabaseError,
    StaleError,
    TableDamagedError,
    TextIndexMissingError,
    VersionGoneError,
)
from ingest_pipeline.errors.documents import (
    BinaryDocumentError,
    ColumnValueError,
    CorruptDocumentError,
    DocumentEncodingError,
    DocumentError,
    DocumentTooLargeError,
    EmbeddingInputError,
    EmptyDocumentError,
    EncryptedDocumentError,
    EnrichmentError,
    ExtensionError,
    InaccessibleDocumentError,
    TooRecentError,
    UnreadableError,
    UnsupportedFormatError,
)
from ingest_pipeline.errors.runs import (
    InterruptedRunError,
    PublicationBlockedError,
    RecipeWithheldError,
    ReembeddingIncompleteError,
    RemovalsWithheldError,
    SpendingLimitError,
    WorkersDiedError,
)
from ingest_pipeline.errors.services import (
    DatabaseUnavailableError,
    EmbedderError,
    EmbeddingResponseError,
    EmbeddingUnavailableError,
    EventQueueUnavailableError,
    RerankerResponseError,
    RerankerUnavailableError,
    SourceUnavailableError,
    TableAccessError,
    TableFullError,
    TableIncompleteError,
    TableUnavailableError,
    UnavailableError,
)

__all__ = [
    "AuditError",
    "BinaryDocumentError",
    "ClosedError",
    "ColumnValueError",
    "ConfigurationError",
    "ConflictError",
    "CorpusMismatchError",
    "CorruptDocumentError",
    "DatabaseUnavailableError",
    "DocumentChangedError",
    "DocumentEncodingError",
    "DocumentError",
    "DocumentTooLargeError",
    "EmbedderError",
    "EmbeddingAccessError",
    "EmbeddingInputError",
    "EmbeddingResponseError",
    "EmbeddingUnavailableError",
    "EmptyDocumentError",
    "EncryptedDocumentError",
    "EnrichmentError",
    "EventQueueAccessError",
    "EventQueueUnavailableError",
    "ExtensionError",
    "FencedError",
    "ForeignWriteError",
    "GenerationRetiredError",
    "InaccessibleDocumentError",
    "IngestError",
    "InterruptedRunError",
    "MissingExtraError",
    "NotDurableError",
    "NotOurTableError",
    "OtherDatabaseError",
    "PublicationBlockedError",
    "RecipeWithheldError",
    "ReembeddingIncompleteError",
    "RemovalsWithheldError",
    "RerankerAccessError",
    "RerankerResponseError",
    "RerankerUnavailableError",
    "RollbackRefusedError",
    "SchemaNewerError",
    "SourceMissingError",
    "SourceUnavailableError",
    "SpendingLimitError",
    "StaleError",
    "TableAccessError",
    "TableDamagedError",
    "TableFullError",
    "TableInUseError",
    "TableIncompleteError",
    "TableUnavailableError",
    "TextIndexMissingError",
    "TooRecentError",
    "UnavailableError",
    "UnknownDocumentError",
    "UnreadableError",
    "UnsafeStoreError",
    "UnsupportedFormatError",
    "VersionGoneError",
    "WorkersDiedError",
]
