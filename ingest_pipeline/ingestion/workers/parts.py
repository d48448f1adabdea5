"""Divides the documents of a run into parts, which are handed out to workers one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ingest_pipeline.planning.plan import DocumentPlan

# A document costs about as much as 4 KB of text, besides its text.
_DOCUMENT_WEIGHT = 4 << 10
# About a second of work. Smaller parts would make more publications, each of which takes the lock of head.
SMALLEST_PART = 4 << 20
# As much as one group of an ingest, so that a part is one publication.
LARGEST_PART = 64 << 20


def weight(plans: Sequence[DocumentPlan]) -> int:
    """How much work some documents are, in bytes of text."""
    return sum(map(_weight, plans))


def parts(plans: Sequence[DocumentPlan], workers: int) -> Iterator[list[DocumentPlan]]:
    """Cut documents into parts in order, large ones first, so that all workers end at about the same time.

    Each part is half of an equal share of what is left (guided self-scheduling), within the bounds of a part.

    Args:
        plans: The documents, by key.
        workers: How many workers share them.
    """
    left = weight(plans)
    part: list[DocumentPlan] = []
    size = 0
    for plan in plans:
        added = _weight(plan)
        wanted = min(LARGEST_PART, max(SMALLEST_PART, left // (2 * workers)))
        if part and size + added > wanted:
            yield part
            left -= size
            part, size = [], 0
        part.append(plan)
        size += added
    if part:
        yield part


def _weight(plan: DocumentPlan) -> int:
    return _DOCUMENT_WEIGHT + (plan.source.size if plan.source is not None else 0)
