"""Divides the documents of a run into groups. Each group is one saga, or two if columns of some documents change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ingest_pipeline.ingestion.columns.column_changes import ColumnUpdate
from ingest_pipeline.planning.plan import DocumentPlan

# A group shares requests, data files and one publication. Small groups publish sooner and delay less if a saga fails.
# Large groups make fewer versions, and wait less often for the last answers. Besides its bytes, a group costs one row
# for each document, in one or two statements.
_GROUP_DOCUMENTS = 8192
_GROUP_BYTES = 64 << 20


@dataclass(slots=True)
class Group:
    """Documents that are published together: those of which only the columns change first, then the others."""

    updates: list[ColumnUpdate] = field(default_factory=list[ColumnUpdate])
    plans: list[DocumentPlan] = field(default_factory=list[DocumentPlan])


def groups(documents: Iterable[DocumentPlan | ColumnUpdate]) -> Iterator[Group]:
    """Group documents in order, without reading ahead of the current group."""
    group, size, reread_size = Group(), 0, 0
    for document in documents:
        if isinstance(document, ColumnUpdate):
            group.updates.append(document)
            reread_size += document.size_to_read
            if len(group.updates) == _GROUP_DOCUMENTS or reread_size > _GROUP_BYTES:
                yield Group(updates=group.updates)
                group.updates, reread_size = [], 0
            continue
        weight = document.source.size if document.source else 0
        if group.plans and (len(group.plans) == _GROUP_DOCUMENTS or size + weight > _GROUP_BYTES):
            yield group
            group, size, reread_size = Group(), 0, 0
        group.plans.append(document)
        size += weight
    if group.updates or group.plans:
        yield group
