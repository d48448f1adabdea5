"""Which documents differ between the source and head. Asking costs no read of a document and no request to the API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from ingest_pipeline.postgres.catalog import LatestDocument
from ingest_pipeline.postgres.holds import Hold
from ingest_pipeline.types import SourceObject


@dataclass(frozen=True, slots=True)
class DocumentPlan:
    """What has to happen to one document."""

    key: str
    partition: str
    source: SourceObject | None
    """The object to ingest. None: the object is gone, and so must be the rows."""
    latest: LatestDocument | None
    """What stands in the catalog and will be superseded."""
    hold: Hold | None = None
    """A rollback holds the document, at bytes or a recipe other than these."""

    @property
    def replaces(self) -> UUID | None:
        """The saga whose rows must still stand when this plan is published."""
        return self.latest.saga if self.latest else None

    @property
    def maybe_same_bytes(self) -> bool:
        """The ETag changed, but size and recipe did not: comparing content hashes may save a publication."""
        return (
            self.source is not None
            and self.latest is not None
            and self.latest.etag != self.source.etag
            and self.latest.size == self.source.size
            and self.latest.content_hash is not None
        )


@dataclass(frozen=True, slots=True)
class DocumentDiff:
    """A document on both sides, or on one."""

    key: str
    source: SourceObject | None
    latest: LatestDocument | None

    def plan(self, recipe: str, partition_of: Callable[[str], str]) -> DocumentPlan | None:
        """What has to happen to the document, None if nothing.

        Args:
            recipe: Fingerprint of the recipe in force.
            partition_of: Where a document belongs that does not stand yet.
        """
        if self.source is not None:
            if self.latest is not None and _is_current(self.latest, self.source, recipe):
                return None
            return DocumentPlan(self.key, partition_of(self.key), self.source, self.latest)
        if self.latest is None or self.latest.removed:
            return None
        return DocumentPlan(self.key, self.latest.partition, None, self.latest)


def merge_join(listed: Iterable[SourceObject], latest: Iterable[LatestDocument]) -> Iterator[DocumentDiff]:
    """Both sides joined by key, in order of the keys, holding one document of each in memory.

    Args:
        listed: What the source holds, in order of the keys' UTF-8 bytes, which is the order of Python's strings.
        latest: The last published word on every document, in the same order.
    """
    sources, documents = iter(listed), iter(latest)
    source, document = next(sources, None), next(documents, None)
    while source is not None or document is not None:
        if document is None or (source is not None and source.key < document.key):
            assert source is not None  # noqa: S101  one of them is there
            yield DocumentDiff(source.key, source, None)
            source = next(sources, None)
        elif source is None or document.key < source.key:
            yield DocumentDiff(document.key, None, document)
            document = next(documents, None)
        else:
            yield DocumentDiff(source.key, source, document)
            source, document = next(sources, None), next(documents, None)


def plan(
    listed: Iterable[SourceObject],
    latest: Iterable[LatestDocument],
    recipe: str,
    partition_of: Callable[[str], str],
) -> list[DocumentPlan]:
    """The documents to publish or to take out, in order of their keys; arguments as of `pairs` and `Pair.plan`."""
    plans = (pair.plan(recipe, partition_of) for pair in merge_join(listed, latest))
    return [found for found in plans if found is not None]


def without_held(
    plans: Iterable[DocumentPlan], holds: Mapping[str, Hold], recipe: str
) -> tuple[list[DocumentPlan], list[DocumentPlan]]:
    """Set apart the plans that would undo a rollback: their bytes and recipe are those that a hold names.

    Returns:
        What is to be done, and what is held.
    """
    due: list[DocumentPlan] = []
    held: list[DocumentPlan] = []
    for document in plans:
        hold = holds.get(document.key)
        etag = document.source.etag if document.source else None
        if hold is not None and (hold.etag, hold.recipe) == (etag, recipe):
            held.append(replace(document, hold=hold))
        else:
            due.append(document if hold is None else replace(document, hold=hold))
    return due, held


def _is_current(document: LatestDocument, source: SourceObject, recipe: str) -> bool:
    return not document.removed and (document.etag, document.recipe) == (source.etag, recipe)
