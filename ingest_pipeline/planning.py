"""Which documents differ between the source and head. Asking costs no read of a document and no request to the API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from ingest_pipeline.catalog import StandingDocument
from ingest_pipeline.holds import Hold
from ingest_pipeline.model import SourceObject


@dataclass(frozen=True, slots=True)
class DocumentPlan:
    """What has to happen to one document."""

    key: str
    partition: str
    source: SourceObject | None
    """The object to ingest. None: the object is gone, and so must be the rows."""
    standing: StandingDocument | None
    """What stands in the catalog and will be superseded."""
    hold: Hold | None = None
    """A rollback holds the document, at bytes or a recipe other than these."""

    @property
    def replaces(self) -> UUID | None:
        """The saga whose rows must still stand when this plan is published."""
        return self.standing.saga if self.standing else None

    @property
    def maybe_same_bytes(self) -> bool:
        """The ETag changed, but size and recipe did not: comparing content hashes may save a publication."""
        return (
            self.source is not None
            and self.standing is not None
            and self.standing.etag != self.source.etag
            and self.standing.size == self.source.size
            and self.standing.content_hash is not None
        )


def plan(
    partitions: Mapping[str, str],
    listed: Iterable[SourceObject],
    standing: Iterable[StandingDocument],
    recipe: str,
) -> list[DocumentPlan]:
    """The documents to publish, in the order of the listing, then those to take out.

    Args:
        partitions: Partition of each listed key.
        listed: What the source holds.
        standing: The last published word on every document.
        recipe: Fingerprint of the recipe in force.
    """
    known = {document.key: document for document in standing}
    plans: list[DocumentPlan] = []
    for source in listed:
        document = known.pop(source.key, None)
        if document is None or not _is_current(document, source, recipe):
            plans.append(DocumentPlan(source.key, partitions[source.key], source, document))
    gone = (document for document in known.values() if not document.removed)
    plans.extend(DocumentPlan(document.key, document.partition, None, document) for document in gone)
    return plans


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


def _is_current(document: StandingDocument, source: SourceObject, recipe: str) -> bool:
    return not document.removed and (document.etag, document.recipe) == (source.etag, recipe)
