"""A hit as the frameworks for retrieval take it: a text, and metadata that say where the text is from."""

from __future__ import annotations

from ingest_pipeline.columns.values import Value
from ingest_pipeline.search.search import Hit


def text_of(hit: Hit) -> str:
    """The chunk, or the chunk with the text around it if the search expands its hits."""
    return hit.text if hit.passage is None else hit.passage.text


def metadata_of(hit: Hit) -> dict[str, Value | None]:
    """The citation of a hit and the values of its columns. A column cannot replace a part of the citation."""
    extent = hit if hit.passage is None else hit.passage
    return hit.columns | {
        "source": hit.document,
        "page": hit.page,
        "last_page": hit.last_page,
        "heading": hit.heading,
        "start_offset": extent.start_offset,
        "end_offset": extent.end_offset,
        "score": score_of(hit),
        "version": hit.version,
        "published_version": hit.published_version,
        "saga": hit.saga,
    }


def score_of(hit: Hit) -> float:
    """The score that decided the order of the hits. Higher is better."""
    return hit.score if hit.rerank_score is None else hit.rerank_score
