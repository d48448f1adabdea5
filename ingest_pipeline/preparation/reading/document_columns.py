"""Collects the values of a document's columns from all sources.

If several sources have a value, the last of these wins: key, metadata of the object, its tags, front matter, sidecar,
parser and enrichers.
"""

from __future__ import annotations

from dataclasses import replace

from ingest_pipeline.columns.declaration import Values
from ingest_pipeline.columns.sources import MAX_SIDECAR_BYTES, front_matter, read_sidecar
from ingest_pipeline.errors import ColumnValueError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.parsing.built_in_parsers import is_markdown
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.preparation.reading.document_reader import DocumentReader
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.types import Chunk, SourceObject


def document_columns(context: IngestContext, reader: DocumentReader) -> Values:
    """The checked values of a document's columns.

    Args:
        context: The ingest context of the corpus.
        reader: The reader of the document, which has returned its first chunk if the document has one.

    Raises:
        ColumnValueError: A source is malformed, or a value does not fit its column.
        DocumentChangedError: The object or its sidecar is not the one that was listed.
        SourceUnavailableError: The store does not answer.
    """
    columns = context.columns.of_documents
    if not columns:
        return {}
    source, store = reader.source, context.source
    key = source.key
    found = columns.texts(key, "its key", columns.pattern.values(key)) if columns.pattern else {}
    tagged = columns.tags(key, store.tags(source)) if columns.from_tags else {}
    if store.has_metadata:
        # After the tags: it compares the object with the one that was listed.
        found |= columns.texts(key, "the metadata of its object", store.metadata(source))
    found |= tagged
    if is_markdown(key):
        found |= columns.typed(key, "its front matter", front_matter(key, reader.head))
    if source.sidecar is not None:
        found |= columns.typed(key, "its sidecar", read_sidecar(key, _bytes(key, store, source.sidecar)))
    found |= columns.typed(key, "its parser", reader.columns)
    return {name: value for name, value in found.items() if value is not None}


def checked_chunk(context: IngestContext, document: str, chunk: Chunk) -> Chunk:
    """The chunk with the values of the declared columns of chunks, in canonical form.

    Raises:
        ColumnValueError: A value does not fit its column.
    """
    if not chunk.columns:
        return chunk
    found = context.columns.of_chunks.typed(document, "its enricher", chunk.columns)
    return replace(chunk, columns={name: value for name, value in found.items() if value is not None})


def read_columns(context: IngestContext, source: SourceObject) -> Values:
    """The values of a document's columns. Reads no more of the document than they depend on.

    Raises:
        DocumentError, DocumentChangedError, SourceUnavailableError: See `document_columns`.
    """
    reader = DocumentReader(source, context.recipe)
    if is_markdown(source.key):
        next(reader.chunks(context.source, context.chunker), None)
    return document_columns(context, reader)


def _bytes(document: str, store: ObjectSource, sidecar: SourceObject) -> bytes:
    if sidecar.size > MAX_SIDECAR_BYTES:
        raise ColumnValueError(document, f"has a sidecar of {sidecar.size} bytes, more than {MAX_SIDECAR_BYTES}")
    with boundary(Boundary.SOURCE_READ):
        return b"".join(store.read(sidecar))
