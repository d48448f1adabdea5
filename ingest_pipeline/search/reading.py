"""What may be read at one version besides the hits of a search: documents, their text, and how they changed.

Each function takes the principals of the reader, as a search does. To a reader who may not find a document, it is
unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import ConfigurationError, UnknownDocumentError
from ingest_pipeline.lance.filters import quoted
from ingest_pipeline.postgres.catalog import documents, history, reports
from ingest_pipeline.postgres.catalog.documents import DocumentRow
from ingest_pipeline.postgres.catalog.history import PublicationRow
from ingest_pipeline.postgres.catalog.reports import DocumentChange
from ingest_pipeline.search.expand import Passage, stitch
from ingest_pipeline.search.search import restriction_of

_COLUMNS = ["id", "document", "ordinal", "start_offset", "end_offset", "page", "last_page", "heading", "text"]
MAX_CHARACTERS = 100_000
MAX_DOCUMENTS = 1_000
MAX_NEIGHBOURS = 20


@dataclass(frozen=True, slots=True)
class DocumentPart:
    """Consecutive chunks of a document, as one text."""

    document: DocumentRow
    version: int
    """The version that was read."""
    passage: Passage
    page: int | None
    """Page on which it begins, from 1. None: the format has no pages."""
    last_page: int | None
    heading: str | None
    """The headings above all of it, separated by ` > `. None: there is none, or they differ."""
    next_offset: int | None = None
    """Where the rest of the document begins. None: nothing follows."""


def list_documents(
    corpus: Corpus, version: int, *, prefix: str, after: str, principals: Sequence[str] | None, limit: int
) -> list[DocumentRow]:
    """Return documents by key.

    Args:
        corpus: The corpus to read.
        version: The version to read.
        prefix: Return only documents whose keys begin with it.
        after: Return only documents after this key.
        principals: The principals of the reader.
        limit: Maximum number of documents.

    Raises:
        ConfigurationError: The limit is out of range; or see `restriction_of`.
    """
    _check_range("limit", limit, 1, MAX_DOCUMENTS)
    allowed = restriction_of(corpus, version, principals)
    if allowed.finds_nothing:
        return []
    with corpus.database.transaction() as connection:
        rows = documents.documents_after(
            connection,
            corpus.generation,
            version,
            prefix=prefix,
            after=after,
            limit=limit,
            access=allowed.column,
            principals=sorted(allowed.principals),
        )
    return [row for row in rows if allowed.allows(row.columns)]


def document_at(corpus: Corpus, version: int, key: str, principals: Sequence[str] | None) -> DocumentRow:
    """Return one document.

    Raises:
        UnknownDocumentError: There is none, or the principals may not find it.
        ConfigurationError: See `restriction_of`.
    """
    allowed = restriction_of(corpus, version, principals)
    with corpus.database.transaction() as connection:
        rows = documents.documents_at(connection, corpus.generation, version, [key])
    if not rows or allowed.finds_nothing or not allowed.allows(rows[0].columns):
        raise _unknown(corpus, key)
    return rows[0]


def read_document(
    corpus: Corpus,
    version: int,
    key: str,
    *,
    principals: Sequence[str] | None,
    start_offset: int,
    max_characters: int,
) -> DocumentPart:
    """Read the text of a document from an offset to the end of the last chunk that fits, at least one chunk.

    White space between chunks, which the table does not have, becomes one empty line.

    Raises:
        UnknownDocumentError: There is none, or the principals may not find it.
        ConfigurationError: An argument is out of range; or see `restriction_of`.
    """
    _check_range("max_characters", max_characters, 1, MAX_CHARACTERS)
    row = document_at(corpus, version, key, principals)
    _check_range("start_offset", start_offset, 0, row.character_count)
    predicate = (
        f"document = {quoted(key)} AND end_offset > {start_offset} AND start_offset < {start_offset + max_characters}"
    )
    chunks = _chunks(corpus, version, row, predicate)
    if not chunks:
        end = start_offset + max_characters
        following = end if end < row.character_count else None
        return DocumentPart(row, version, Passage(start_offset, start_offset, ""), None, None, None, following)
    fitting = [chunk for chunk in chunks if chunk["end_offset"] <= start_offset + max_characters] or chunks[:1]
    first = fitting[0]
    cut = max(0, start_offset - first["start_offset"])
    fitting[0] = {**first, "start_offset": first["start_offset"] + cut, "text": first["text"][cut:]}
    part = _part(row, version, fitting)
    is_last = fitting[-1]["ordinal"] == row.chunk_count - 1
    return part if is_last else replace(part, next_offset=part.passage.end_offset)


def neighbours(
    corpus: Corpus,
    version: int,
    key: str,
    chunk: str,
    *,
    before: int,
    after: int,
    principals: Sequence[str] | None,
) -> DocumentPart:
    """Read a chunk with the chunks around it.

    Args:
        corpus: The corpus to read.
        version: The version to read.
        key: The document of the chunk.
        chunk: Id of the chunk, as hits have it.
        before: Number of chunks before it.
        after: Number of chunks after it.
        principals: The principals of the reader.

    Raises:
        UnknownDocumentError: There is no such document or chunk, or the principals may not find it.
        ConfigurationError: An argument is out of range; or see `restriction_of`.
    """
    _check_range("before", before, 0, MAX_NEIGHBOURS)
    _check_range("after", after, 0, MAX_NEIGHBOURS)
    row = document_at(corpus, version, key, principals)
    of_document = f"document = {quoted(key)}"
    found = _chunks(corpus, version, row, f"{of_document} AND id = {quoted(chunk)}", ["ordinal"])
    if not found:
        raise UnknownDocumentError(
            f"Document {key!r} has no chunk {chunk!r} at version {version}",
            "The document may have changed since the search. Search again.",
        )
    ordinal = found[0]["ordinal"]
    within = f"ordinal >= {ordinal - before} AND ordinal <= {ordinal + after}"
    return _part(row, version, _chunks(corpus, version, row, f"{of_document} AND {within}"))


def publications(corpus: Corpus, version: int, *, principals: Sequence[str] | None, limit: int) -> list[PublicationRow]:
    """Return the publications up to a version, newest first. A reader who can find nothing sees none."""
    if restriction_of(corpus, version, principals).finds_nothing:
        return []
    with corpus.database.transaction() as connection:
        rows = history.publication_history(connection, corpus.generation, limit)
    return [row for row in rows if row.version <= version]


def changes(
    corpus: Corpus, version: int, key: str, *, principals: Sequence[str] | None, limit: int
) -> list[DocumentChange]:
    """Return the publications that changed a document, newest first.

    Raises:
        UnknownDocumentError: There never was such a document, or the principals may not find it.
        ConfigurationError: See `restriction_of`.
    """
    if restriction_of(corpus, version, principals).column is not None:
        document_at(corpus, version, key, principals)
    with corpus.database.transaction() as connection:
        rows = reports.history(connection, corpus.generation, key, limit)
    if not rows:
        raise _unknown(corpus, key)
    return [row for row in rows if row.published_version <= version]


def _chunks(
    corpus: Corpus, version: int, row: DocumentRow, predicate: str, columns: Sequence[str] = _COLUMNS
) -> list[dict[str, Any]]:
    """The chunks of a document that match a predicate, in order."""
    found: list[dict[str, Any]] = corpus.table.rows(version, list(columns), predicate, row.fragments).to_pylist()
    return sorted(found, key=lambda chunk: chunk["ordinal"])


def _part(row: DocumentRow, version: int, chunks: Sequence[dict[str, Any]]) -> DocumentPart:
    headings = {chunk["heading"] for chunk in chunks}
    return DocumentPart(
        row,
        version,
        stitch(chunks),
        page=chunks[0]["page"],
        last_page=chunks[-1]["last_page"],
        heading=headings.pop() if len(headings) == 1 else None,
    )


def _unknown(corpus: Corpus, key: str) -> UnknownDocumentError:
    # The same for a document that is not there and one that is forbidden, so that the error does not tell which.
    return UnknownDocumentError(f"Corpus {corpus.name!r} has no document {key!r} that you may read")


def _check_range(name: str, value: int, least: int, greatest: int) -> None:
    if not least <= value <= greatest:
        raise ConfigurationError(f"{name} is {value}", f"Use a number from {least} to {greatest}.")
