"""Errors about settings: change one, then start again."""

from ingest_pipeline.errors.base import IngestError


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
