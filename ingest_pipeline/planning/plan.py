"""The plan for one document, and the join of the two sides of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Literal
from uuid import UUID

from ingest_pipeline.postgres.catalog.documents import LatestDocument
from ingest_pipeline.postgres.catalog.gates import Block
from ingest_pipeline.postgres.catalog.holds import Hold
from ingest_pipeline.types import SourceObject

# The sensor requests one run per document up to this number, which the UI links to its partition. More documents share
# runs, because every run costs seconds to start.
MAX_OWN_RUNS = 5
MAX_SHARED_DOCUMENTS = 2000


@dataclass(frozen=True, slots=True)
class DocumentPlan:
    """The plan to ingest or remove one document."""

    key: str
    partition: str
    source: SourceObject | None
    """The object to ingest. None: the source lacks it, so its rows have to be removed."""
    latest: LatestDocument | None
    """The latest published row, which the publication replaces."""
    hold: Hold | None = None
    """The hold on the document, if a rollback put it on hold."""

    @property
    def change(self) -> Literal["add", "replace", "remove"]:
        """What the publication does to the document."""
        if self.source is None:
            return "remove"
        return "replace" if self.latest is not None and not self.latest.removed else "add"

    @property
    def replaces(self) -> UUID | None:
        """The saga that must still be the latest one of the document when this plan is published."""
        return self.latest.saga if self.latest else None

    @property
    def maybe_same_bytes(self) -> bool:
        """Whether the ETag changed but not the size. Then comparing content hashes may save a publication."""
        return (
            self.source is not None
            and self.latest is not None
            and self.latest.etag != self.source.document_etag
            and self.latest.size == self.source.size
            and self.latest.content_hash is not None
        )

    def __str__(self) -> str:
        return f"{self.change} {self.key}"

    def is_blocked(self, block: Block | None, recipe: str) -> bool:
        """Whether a blocked publication has prepared exactly this.

        Args:
            block: What a blocked publication has of the document.
            recipe: Fingerprint of the recipe in force.
        """
        if block is None:
            return False
        if self.source is None:
            return block.etag is None
        return (block.etag, block.recipe) == (self.source.document_etag, recipe)

    def is_on_hold(self, recipe: str) -> bool:
        """Whether this plan would undo a rollback: the hold names exactly this object and this recipe.

        Args:
            recipe: Fingerprint of the recipe in force.
        """
        etag = self.source.document_etag if self.source else None
        return self.hold is not None and (self.hold.etag, self.hold.recipe) == (etag, recipe)


@dataclass(frozen=True, slots=True)
class DocumentDiff:
    """A document on one or both sides of a comparison."""

    key: str
    source: SourceObject | None
    latest: LatestDocument | None

    def plan(self, recipe: str, partition_of: Callable[[str], str], hold: Hold | None = None) -> DocumentPlan | None:
        """The plan for the document, None if nothing has to be done.

        Args:
            recipe: Fingerprint of the recipe in force.
            partition_of: Returns the partition of a new document.
            hold: The hold on the document, if there is one.
        """
        if self.source is not None:
            if self.latest is not None and _is_current(self.latest, self.source, recipe):
                return None
            return DocumentPlan(self.key, partition_of(self.key), self.source, self.latest, hold)
        if self.latest is None or self.latest.removed:
            return None
        return DocumentPlan(self.key, self.latest.partition, None, self.latest, hold)


def merge_join(listed: Iterable[SourceObject], latest: Iterable[LatestDocument]) -> Iterator[DocumentDiff]:
    """Join both sides by key, in the order of the keys, with one document of each side in memory.

    Args:
        listed: The objects of the source, in the order of the keys' UTF-8 bytes, which is the order of Python's
            strings.
        latest: The latest published row of every document, tombstones included, in the same order.
    """
    sources, documents = iter(listed), iter(latest)
    source, document = next(sources, None), next(documents, None)
    while source is not None or document is not None:
        if document is None or (source is not None and source.key < document.key):
            assert source is not None  # noqa: S101  one of the two is not None
            yield DocumentDiff(source.key, source, None)
            source = next(sources, None)
        elif source is None or document.key < source.key:
            yield DocumentDiff(document.key, None, document)
            document = next(documents, None)
        else:
            yield DocumentDiff(source.key, source, document)
            source, document = next(sources, None), next(documents, None)


def _is_current(document: LatestDocument, source: SourceObject, recipe: str) -> bool:
    return not document.removed and (document.etag, document.recipe) == (source.document_etag, recipe)


def runs_for(documents: int) -> int:
    """The number of runs that the sensor requests for this many documents of ordinary size."""
    return documents if documents <= MAX_OWN_RUNS else ceil(documents / MAX_SHARED_DOCUMENTS)
