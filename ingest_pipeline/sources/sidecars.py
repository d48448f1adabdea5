"""Sidecars in a listing: objects beside a document that have values of its columns, and are no documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from ingest_pipeline.columns.sources import SIDECAR_SUFFIX, is_sidecar, sidecar_of
from ingest_pipeline.types import SourceObject

# Between a document and its sidecar a listing has only keys that begin with the document's: rarely more than these.
_MAX_WAITING = 1000


def paired(listed: Iterable[SourceObject], stat: Callable[[str], SourceObject | None]) -> Iterator[SourceObject]:
    """The documents of a listing in its order, each with its sidecar.

    Args:
        listed: Documents and sidecars in the order of their keys.
        stat: Looks up one object. It is used if a sidecar is too far behind its document in the listing.
    """
    waiting: dict[str, SourceObject] = {}
    for obj in listed:
        if is_sidecar(obj.key):
            document = obj.key.removesuffix(SIDECAR_SUFFIX)
            if document in waiting:
                waiting[document] = replace(waiting[document], sidecar=obj)
            continue
        while waiting and sidecar_of(first := next(iter(waiting))) < obj.key:
            yield waiting.pop(first)
        if len(waiting) >= _MAX_WAITING:
            first = next(iter(waiting))
            found = waiting.pop(first)
            yield found if found.sidecar else replace(found, sidecar=stat(sidecar_of(first)))
        waiting[obj.key] = obj
    yield from waiting.values()
