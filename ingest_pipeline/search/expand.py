"""The text around hits: neighbouring chunks or the whole section, stitched together without repetition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.lance.filters import quoted
from ingest_pipeline.postgres.catalog.documents import DocumentRow

Expand = Literal["neighbours", "section"]
EXPANSIONS: tuple[Expand, ...] = get_args(Expand)

_COLUMNS = ["document", "ordinal", "start_offset", "end_offset", "heading", "text"]
# On each side of a hit.
_NEIGHBOURS = 1
_MAX_SECTION_CHUNKS = 20
_EMPTY_LINE = "\n\n"


@dataclass(frozen=True, slots=True)
class Passage:
    """A hit with the text around it. White space between chunks, which the table does not have, is one empty line."""

    start_offset: int
    end_offset: int
    text: str


def passages(
    corpus: Corpus, version: int, hits: Sequence[tuple[DocumentRow, int]], expand: Expand
) -> list[Passage | None]:
    """The passage of each hit, read at one version in one scan of the fragments of their documents.

    Args:
        corpus: The corpus of the hits.
        version: The version at which they were found.
        hits: The document and the ordinal of each.
        expand: ``neighbours``: one chunk before and one after. ``section``: all chunks around it with the same
            headings, 20 on each side at most; the neighbours if there are no headings.

    Returns:
        None for a hit whose row is gone.
    """
    if not hits:
        return []
    reach = _NEIGHBOURS if expand == "neighbours" else _MAX_SECTION_CHUNKS
    predicate = " OR ".join(
        f"(document = {quoted(document.key)} AND ordinal >= {ordinal - reach} AND ordinal <= {ordinal + reach})"
        for document, ordinal in hits
    )
    fragments = {number for document, _ in hits for number in document.fragments}
    rows = corpus.table.rows(version, _COLUMNS, predicate, fragments).to_pylist()
    chunks = {(row["document"], row["ordinal"]): row for row in rows}
    return [_passage(chunks, document.key, ordinal, expand) for document, ordinal in hits]


def _passage(
    chunks: dict[tuple[str, int], dict[str, Any]], document: str, ordinal: int, expand: Expand
) -> Passage | None:
    hit = chunks.get((document, ordinal))
    if hit is None:
        return None
    by_section = expand == "section" and hit["heading"] is not None

    def run(step: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for distance in range(1, (_MAX_SECTION_CHUNKS if by_section else _NEIGHBOURS) + 1):
            other = chunks.get((document, ordinal + step * distance))
            if other is None or (by_section and other["heading"] != hit["heading"]):
                break
            found.append(other)
        return found

    return stitch([*reversed(run(-1)), hit, *run(1)])


def stitch(chunks: Sequence[dict[str, Any]]) -> Passage:
    """One text of consecutive chunks: what two of them share is in it once."""
    text, end = "", chunks[0]["start_offset"]
    for chunk in chunks:
        shared = end - chunk["start_offset"]
        text += chunk["text"][shared:] if shared >= 0 else (" " if shared == -1 else _EMPTY_LINE) + chunk["text"]
        end = max(end, chunk["end_offset"])
    return Passage(chunks[0]["start_offset"], end, text)
