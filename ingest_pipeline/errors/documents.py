"""Errors about one document: it cannot be ingested as it is, and others can."""

from typing import ClassVar

from ingest_pipeline.errors.base import IngestError


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
        "Its published version, if any, was not changed. Correct the extension and change its fingerprint, or run "
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
        "Its published version, if any, was not changed. The next runs try again; if the enricher is wrong, correct it "
        "and change its fingerprint."
    )
    reason = "not enriched"


class ColumnValueError(DocumentError):
    """A source of column values is malformed, or a value does not fit the type of its column."""

    remedy = "Its published version, if any, was not changed. Correct the value, or the type of the column."
    reason = "with a wrong column value"


class EmbeddingInputError(DocumentError):
    """The embedding API refuses the text of a chunk, for example because the text is too long."""

    reason = "refused by the API"


class TooRecentError(IngestError):
    """The file is empty and was modified so recently that another program may still be writing it."""

    remedy = "The published version, if any, was not changed. Run again when the file is complete."
