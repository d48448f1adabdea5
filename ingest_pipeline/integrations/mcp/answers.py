"""What the tools return. Agents read the descriptions of these models as the schema of the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, Field

from ingest_pipeline.columns.values import Value
from ingest_pipeline.integrations.hits import score_of, text_of
from ingest_pipeline.postgres.catalog.documents import DocumentRow
from ingest_pipeline.postgres.catalog.history import PublicationRow
from ingest_pipeline.postgres.catalog.reports import DocumentChange
from ingest_pipeline.search.reading import DocumentPart
from ingest_pipeline.search.search import Hit


class Citation(BaseModel):
    """Where a text is from."""

    document: str = Field(description="Key of the document.")
    page: int | None = Field(description="Page on which the text begins, from 1. Null: the format has no pages.")
    last_page: int | None
    heading: str | None = Field(description="The headings above the text, outermost first.")
    start_offset: int = Field(description="Where the text begins in the document, in characters.")
    end_offset: int
    version: int = Field(description="The version of the corpus that was read.")
    published_version: int = Field(description="The version that brought the document in its present form.")
    saga: str = Field(description="Id of the publication that brought the document.")

    @classmethod
    def of_hit(cls, hit: Hit) -> Self:
        """The citation of a chunk, or of the chunk with the text around it."""
        extent = hit if hit.passage is None else hit.passage
        return cls(
            document=hit.document,
            page=hit.page,
            last_page=hit.last_page,
            heading=hit.heading,
            start_offset=extent.start_offset,
            end_offset=extent.end_offset,
            version=hit.version,
            published_version=hit.published_version,
            saga=hit.saga,
        )

    @classmethod
    def of_part(cls, part: DocumentPart) -> Self:
        """The citation of a part of a document."""
        return cls(
            document=part.document.key,
            page=part.page,
            last_page=part.last_page,
            heading=part.heading,
            start_offset=part.passage.start_offset,
            end_offset=part.passage.end_offset,
            version=part.version,
            published_version=part.document.published_version,
            saga=str(part.document.saga),
        )


class FoundChunk(BaseModel):
    """A chunk that matches the question."""

    chunk: str = Field(description="Id of the chunk, for the tool `neighbours`.")
    text: str
    score: float = Field(description="Higher is better.")
    citation: Citation
    columns: Mapping[str, Value] = Field(description="Values of the document's own columns.")

    @classmethod
    def of(cls, hit: Hit) -> Self:
        """A hit of a search."""
        return cls(
            chunk=hit.id, text=text_of(hit), score=score_of(hit), citation=Citation.of_hit(hit), columns=hit.columns
        )


class SearchAnswer(BaseModel):
    """The chunks that match a question best, best first."""

    version: int = Field(description="The version of the corpus that was read.")
    hits: list[FoundChunk]


class TextAnswer(BaseModel):
    """A part of a document."""

    text: str
    citation: Citation
    next_offset: int | None = Field(description="Pass it as `start_offset` to read on. Null: nothing follows.")
    characters: int = Field(description="Length of the whole document.")
    columns: Mapping[str, Value]

    @classmethod
    def of(cls, part: DocumentPart) -> Self:
        """A part that was read."""
        return cls(
            text=part.passage.text,
            citation=Citation.of_part(part),
            next_offset=part.next_offset,
            characters=part.document.character_count,
            columns=part.document.columns,
        )


class ListedDocument(BaseModel):
    """A document of the corpus."""

    document: str
    bytes: int
    characters: int
    chunks: int
    last_modified: str
    published_version: int
    columns: Mapping[str, Value]

    @classmethod
    def of(cls, row: DocumentRow) -> Self:
        """A row of the catalog."""
        return cls(
            document=row.key,
            bytes=row.size,
            characters=row.character_count,
            chunks=row.chunk_count,
            last_modified=row.last_modified.isoformat(timespec="seconds"),
            published_version=row.published_version,
            columns=row.columns,
        )


class DocumentsAnswer(BaseModel):
    """A page of the list of documents."""

    version: int
    documents: list[ListedDocument]
    next_after: str | None = Field(description="Pass it as `after` for the next page. Null: this is the last page.")


class Publication(BaseModel):
    """One change of the corpus, or of one document."""

    version: int = Field(description="The version that it made.")
    published_at: str
    kind: str
    saga: str
    documents: int = Field(description="Documents that it published.")
    removed: int = Field(description="Documents that it removed.")
    chunks: int

    @classmethod
    def of_corpus(cls, row: PublicationRow) -> Self:
        """A publication of the corpus."""
        return cls(
            version=row.version,
            published_at=row.published_at.isoformat(timespec="seconds"),
            kind=row.kind,
            saga=str(row.saga),
            documents=row.documents,
            removed=row.removed,
            chunks=row.chunks,
        )

    @classmethod
    def of_document(cls, row: DocumentChange) -> Self:
        """A change of one document."""
        return cls(
            version=row.published_version,
            published_at=row.published_at.isoformat(timespec="seconds"),
            kind=row.kind,
            saga=str(row.saga),
            documents=0 if row.removed else 1,
            removed=1 if row.removed else 0,
            chunks=row.chunk_count,
        )


class HistoryAnswer(BaseModel):
    """Publications, newest first."""

    version: int
    publications: list[Publication]
