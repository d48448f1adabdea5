"""Errors of outside services: the source, the stores, the embedder and the reranker."""

from ingest_pipeline.errors.base import IngestError


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


class EmbeddingResponseError(IngestError):
    """The embedding API sent the wrong number, order, width or kind of vectors. None of them was recorded."""

    remedy = "Check that the model and INGEST_EMBEDDING_DIMENSIONS fit the endpoint, then run again."


class EmbedderError(EmbeddingResponseError):
    """An embedder of the user raised an exception, hung, crashed or returned something invalid."""

    remedy = "No vector of that batch was recorded. Correct the embedder, then run again."
