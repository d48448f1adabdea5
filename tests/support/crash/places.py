"""The places at which a run can be killed: every passage of every boundary.

Each constant counts the passages of the boundaries in one kind of work. Tests compare the numbers with real runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from _pytest.mark import ParameterSet

from ingest_pipeline.failpoints import Boundary
from tests.support.crash.crash import Place

_PREPARING = {
    Boundary.SOURCE_READ: 2,
    Boundary.SAGA_BEGUN: 1,
    Boundary.BATCH_SENT: 1,
    Boundary.BATCH_SPOOLED: 1,
    Boundary.BATCH_RECORDED: 1,
    Boundary.FRAGMENT_WRITTEN: 1,
    Boundary.FRAGMENT_RECORDED: 1,
    Boundary.PREPARED: 1,
}
_PUBLISHING = {
    Boundary.LOCK_TAKEN: 1,
    Boundary.ROWS_WRITTEN: 1,
    Boundary.HEAD_MOVED: 1,
    Boundary.LANCE_COMMIT: 1,
    Boundary.FLUSHED: 1,
    Boundary.VERSION_CHECKED: 1,
    Boundary.MANIFEST_INSTALLED: 1,
    Boundary.ACKNOWLEDGED: 1,
}
_PREPARING_FIRST = {
    **_PREPARING,
    **dict.fromkeys((Boundary.BATCH_SENT, Boundary.BATCH_SPOOLED, Boundary.BATCH_RECORDED), 2),
}
"""To an endpoint that has not served the model yet, one text is sent first and alone."""
FIRST_INGEST = {**_PREPARING_FIRST, **_PUBLISHING, Boundary.FLUSHED: 2, Boundary.FILE_REMOVED: 2, Boundary.COMMIT: 12}
"""Ingest of two new documents into an existing corpus: the number of passages of each boundary."""
OWN_CODE = {Boundary.EXTENSION_CALLED: 1, Boundary.RESULT_RECORDED: 1}
"""What the ingest of a document passes besides if a durable extension sees it."""
REPLACEMENT = {
    **_PREPARING,
    Boundary.SOURCE_READ: 1,
    **_PUBLISHING,
    Boundary.FLUSHED: 2,
    Boundary.ROWS_REMOVED: 1,
    Boundary.FILE_REMOVED: 1,
    Boundary.COMMIT: 12,
}
"""Ingest of one document together with the removal of another."""
EMPTYING = {
    Boundary.SOURCE_READ: 1,
    Boundary.SAGA_BEGUN: 1,
    Boundary.FRAGMENT_RECORDED: 1,
    Boundary.PREPARED: 1,
    **_PUBLISHING,
    Boundary.ROWS_REMOVED: 1,
    Boundary.COMMIT: 10,
}
"""Ingest of one document that became empty."""
ROLLBACK = {
    Boundary.SAGA_BEGUN: 1,
    Boundary.FRAGMENT_WRITTEN: 1,
    Boundary.FRAGMENT_RECORDED: 1,
    Boundary.PREPARED: 1,
    **_PUBLISHING,
    Boundary.FLUSHED: 2,
    Boundary.ROWS_REMOVED: 1,
    Boundary.COMMIT: 13,
}
"""Rollback of one document, together with another that did not exist any more."""
COLUMN_CHANGE = {
    Boundary.SOURCE_READ: 1,
    Boundary.SAGA_BEGUN: 1,
    Boundary.FRAGMENT_WRITTEN: 1,
    Boundary.FRAGMENT_RECORDED: 2,
    Boundary.PREPARED: 1,
    **_PUBLISHING,
    Boundary.FLUSHED: 2,
    Boundary.COMMIT: 14,
}
"""New columns of one document, whose bytes did not change."""
LARGE_EDIT = {
    **_PREPARING,
    Boundary.SOURCE_READ: 1,
    Boundary.FRAGMENT_WRITTEN: 2,
    Boundary.FRAGMENT_RECORDED: 2,
    **_PUBLISHING,
    Boundary.FLUSHED: 3,
    Boundary.ROWS_REMOVED: 1,
    Boundary.FILE_REMOVED: 1,
    Boundary.COMMIT: 20,
}
"""Ingest of one large document of which a paragraph changed."""
ENRICHER_CHANGE = {**COLUMN_CHANGE, Boundary.SOURCE_READ: 2, **OWN_CODE, Boundary.COMMIT: 18}
"""The same because another enricher reads the text again."""
COLUMN_ADDITION = {
    Boundary.SAGA_BEGUN: 2,
    **COLUMN_CHANGE,
    **dict.fromkeys(_PUBLISHING, 2),
    Boundary.PREPARED: 2,
    Boundary.COMMIT: 22,
}
"""The same after a column was added to the table."""
COLUMN_WIDENING = {
    Boundary.SAGA_BEGUN: 1,
    Boundary.FRAGMENT_WRITTEN: 1,
    Boundary.FRAGMENT_RECORDED: 1,
    Boundary.PREPARED: 1,
    **_PUBLISHING,
    Boundary.FLUSHED: 2,
    Boundary.SOURCE_READ: 1,
    Boundary.COMMIT: 13,
}
"""Another type of columns, which no document's values differ by."""
SUBMISSION = {
    Boundary.SOURCE_READ: 1,
    Boundary.LOCK_TAKEN: 1,
    Boundary.SAGA_BEGUN: 1,
    Boundary.BATCH_JOB_RECORDED: 1,
    Boundary.BATCH_JOB_SUBMITTED: 1,
}
"""Submission of a batch job for one document. COMMITs are passed in between."""
FIRST_SUBMISSION = {
    Boundary.BATCH_SENT: 1,
    Boundary.BATCH_SPOOLED: 1,
    Boundary.BATCH_RECORDED: 1,
    Boundary.COMPLETED: 1,
}
"""One text that is sent alone to an endpoint which has not served the model yet, before the batch job."""
COLLECTION = {Boundary.BATCH_JOB_COLLECTED: 1, Boundary.BATCH_SPOOLED: 1}
"""Collection of one batch job that has ended."""
RECOVERY = {
    Boundary.LOCK_TAKEN: 2,
    Boundary.SAGA_BEGUN: 1,
    Boundary.RESTORED: 1,
    Boundary.FLUSHED: 1,
    Boundary.HEAD_MOVED: 1,
    Boundary.SETTLED: 1,
    Boundary.MANIFEST_INSTALLED: 1,
    Boundary.COMMIT: 8,
}
"""Recovery that undoes a version above head."""
SWEEP = {Boundary.VERSIONS_REMOVED: 1, Boundary.FILE_REMOVED: 1, Boundary.LOCK_TAKEN: 2, Boundary.COMMIT: 9}
"""Sweep after that recovery."""
MAINTENANCE = {
    Boundary.SAGA_BEGUN: 2,
    Boundary.FRAGMENT_WRITTEN: 1,
    Boundary.FRAGMENT_RECORDED: 1,
    Boundary.INDEX_BUILT: 1,
    Boundary.PREPARED: 2,
    **dict.fromkeys(_PUBLISHING, 2),
    Boundary.FLUSHED: 4,
    Boundary.LOCK_TAKEN: 5,
    Boundary.RETIRED: 1,
    Boundary.VERSIONS_REMOVED: 1,
    Boundary.COMMIT: 31,
}
"""Maintenance: compaction of one fragment with deleted rows, the first index, and retention of head alone."""
CREATION = {Boundary.SAGA_BEGUN: 1, Boundary.LANCE_COMMIT: 1, Boundary.FLUSHED: 1, Boundary.COMMIT: 6}
"""Creation of a corpus with its table."""
CREATION_IN_A_STORE = {**CREATION, Boundary.STORE_CHECKED: 1}
"""The same in an object store."""
WIDENED_WHILE_EMPTY = {
    **CREATION,
    Boundary.LOCK_TAKEN: 1,
    Boundary.MANIFEST_INSTALLED: 1,
    Boundary.FLUSHED: 2,
    Boundary.COMMIT: 10,
}
"""Creation of an empty table that replaces an empty one of another width."""
MOVED_WHILE_EMPTY = {
    **CREATION,
    Boundary.LOCK_TAKEN: 1,
    Boundary.GENERATION_MOVED: 1,
    Boundary.TABLE_DROPPED: 1,
    Boundary.COMMIT: 9,
}
"""Creation of an empty table in another folder, which replaces an empty one."""

LISTENING = dict.fromkeys((Boundary.NOTICES_RECEIVED, Boundary.NOTICES_EXTENDED, Boundary.NOTICES_DELETED), 1)
"""What `listen` passes besides when it ingests the document of one notice that takes long."""
MIGRATION = {
    **_PREPARING_FIRST,
    **_PUBLISHING,
    Boundary.SAGA_BEGUN: 2,
    Boundary.LANCE_COMMIT: 2,
    Boundary.FLUSHED: 3,
    Boundary.LOCK_TAKEN: 2,
    Boundary.GENERATION_MOVED: 1,
    Boundary.FILE_REMOVED: 2,
    Boundary.COMMIT: 24,
}
"""Re-embedding of two documents, from the creation of the second table on."""
SWITCH = {Boundary.LOCK_TAKEN: 1, Boundary.GENERATION_MOVED: 1, Boundary.COMMIT: 9}
"""Switch after the second table was filled."""
DROP = {Boundary.LOCK_TAKEN: 1, Boundary.GENERATION_MOVED: 1, Boundary.TABLE_DROPPED: 1, Boundary.COMMIT: 8}
"""Drop of the generation that a re-embedding retired."""

DROP_CORPUS = {Boundary.LOCK_TAKEN: 1, Boundary.GENERATION_MOVED: 1, Boundary.TABLE_DROPPED: 1, Boundary.COMMIT: 6}
"""Drop of a corpus with one generation."""
REBUILD = {
    Boundary.SAGA_BEGUN: 1,
    Boundary.PREPARED: 1,
    Boundary.SOURCE_READ: 3,
    Boundary.LOCK_TAKEN: 1,
    Boundary.RESTORED: 1,
    Boundary.FLUSHED: 2,
    Boundary.MANIFEST_INSTALLED: 1,
    Boundary.ROWS_WRITTEN: 1,
    Boundary.HEAD_MOVED: 1,
    Boundary.COMMIT: 15,
}
"""Rebuild of a catalog that lacks three documents."""
RELOCATION = {
    Boundary.LOCK_TAKEN: 1,
    Boundary.RELOCATED: 1,
    Boundary.SAGA_BEGUN: 1,
    Boundary.RESTORED: 1,
    Boundary.FLUSHED: 2,
    Boundary.MANIFEST_INSTALLED: 1,
    Boundary.HEAD_MOVED: 1,
    Boundary.COMMIT: 3,
}
"""Relocation of a corpus to a copy of its table."""

ERASURE = {
    Boundary.ERASURE_RECORDED: 1,
    Boundary.ERASURE_NOTED: 1,
    Boundary.SAGA_BEGUN: 2,
    Boundary.FRAGMENT_WRITTEN: 1,
    Boundary.FRAGMENT_RECORDED: 1,
    Boundary.INDEX_BUILT: 1,
    Boundary.PREPARED: 2,
    **dict.fromkeys(_PUBLISHING, 2),
    Boundary.FLUSHED: 4,
    Boundary.LOCK_TAKEN: 6,
    Boundary.RETIRED: 2,
    Boundary.VERSIONS_REMOVED: 2,
    Boundary.TABLES_REWRITTEN: 2,
    Boundary.ERASED: 1,
    Boundary.COMMIT: 42,
}
"""Erasure of one of two documents, which share a fragment and an index."""

ERASURE_IN_DAGSTER = {Boundary.DAGSTER_ERASED: 1}
"""What an erasure passes besides if Dagster has something of the documents."""


BLOCKED_INGEST = {
    **_PREPARING,
    Boundary.SOURCE_READ: 2,
    Boundary.JUDGED: 1,
    Boundary.CANDIDATE_MADE: 1,
    Boundary.ROWS_REMOVED: 1,
    Boundary.CANDIDATE_REMOVED: 1,
    Boundary.BLOCKED: 1,
    Boundary.LOCK_TAKEN: 1,
    Boundary.FLUSHED: 1,
    Boundary.COMMIT: 15,
}
"""Ingest of two documents that does not pass its gates."""
JUDGING = (Boundary.JUDGED, Boundary.CANDIDATE_MADE, Boundary.CANDIDATE_REMOVED, Boundary.BLOCKED)
"""The boundaries that only a corpus with gates has."""
RELEASE = {
    **_PUBLISHING,
    Boundary.FLUSHED: 1,
    Boundary.ROWS_REMOVED: 1,
    Boundary.FILE_REMOVED: 1,
    Boundary.COMMIT: 8,
}
"""Release of that publication."""
DROP_BLOCKED = {Boundary.BLOCKED: 1, Boundary.COMMIT: 6}
"""Drop of that publication."""


def places(passages: dict[Boundary, int]) -> list[Place]:
    """Both sides of every passage."""
    return [
        Place(boundary, side, occurrence + 1)
        for boundary, count in passages.items()
        for occurrence in range(count)
        for side in ("before", "after")
    ]


def decisive_places(passages: dict[Boundary, int]) -> list[Place]:
    """Both sides of the first passage of every boundary, and of COMMIT the later half, which decides the outcome.

    The side after is included for the last COMMIT only: between two COMMITs, the stores have the same content.
    """
    first = [place for place in places(passages) if place.occurrence == 1 and place.boundary is not Boundary.COMMIT]
    commits = [place for place in places(passages) if place.boundary is Boundary.COMMIT]
    deciding = commits[len(commits) // 2 :]
    return first + [place for place in deciding if place.side == "before"] + commits[-1:]


PROTOCOLS: tuple[tuple[dict[Boundary, int], ...], ...] = (
    (REPLACEMENT, EMPTYING, ROLLBACK),
    (COLUMN_CHANGE, ENRICHER_CHANGE),
    (COLUMN_ADDITION, COLUMN_WIDENING),
    (MAINTENANCE,),
    (WIDENED_WHILE_EMPTY, MOVED_WHILE_EMPTY),
    (RECOVERY,),
    (SWEEP,),
    (CREATION,),
    (SWITCH,),
    (DROP,),
)
"""Kinds of work by how they commit. The first three commit rows, values of columns, and columns."""
_EVERY_COMMIT = 8


def shared_places(kind: dict[Boundary, int]) -> list[ParameterSet]:
    """The decisive places of one kind of work. Those that `make test` leaves to `make soak` are marked.

    Kinds of work that commit in the same way call the same code at the boundaries that all of them pass, so they share
    these deaths: each boundary has a death in one of the kinds. It has one on each side if rows are committed, or if
    no commit of rows passes the boundary. Otherwise the sides alternate from one way to commit to the next.

    Every kind of work dies on both sides of its last COMMIT, which decides the outcome. Of the COMMITs before the last,
    every eighth one is included.

    Args:
        kind: The passages of one of `PROTOCOLS`.
    """
    (protocol,) = (number for number, kinds in enumerate(PROTOCOLS) if any(one is kind for one in kinds))
    turn = next(number for number, one in enumerate(PROTOCOLS[protocol]) if one is kind)
    order, last = list(Boundary), kind[Boundary.COMMIT]

    def is_included(place: Place) -> bool:
        if place.boundary is Boundary.COMMIT:
            return place.occurrence == last or (place.occurrence + protocol + turn) % _EVERY_COMMIT == 0
        number, is_after = order.index(place.boundary), place.side == "after"
        has_both_sides = protocol == 0 or place.boundary not in REPLACEMENT
        sharing = [one for one in PROTOCOLS[protocol] if place.boundary in one]
        owner = sharing[(number + (is_after and has_both_sides)) % len(sharing)]
        return owner is kind and (has_both_sides or is_after == bool((number + protocol) % 2))

    return [
        pytest.param(place, marks=() if is_included(place) else pytest.mark.soak) for place in decisive_places(kind)
    ]


def in_turns(found: Sequence[Place | tuple[object, ...]], turn: int) -> list[ParameterSet]:
    """The places or faults that two tests share: each has every second one in `make test`, and all in `make soak`.

    Args:
        found: The parameters of each test.
        turn: 0 for the first and every second after it, 1 for the others.
    """
    return [
        pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=() if number % 2 == turn else pytest.mark.soak)
        for number, one in enumerate(found)
    ]


def is_soaked(parameters: ParameterSet) -> bool:
    """Whether only `make soak` runs a test with these parameters."""
    return any(mark.name == "soak" for mark in map(_mark_of, parameters.marks))


def _mark_of(mark: pytest.Mark | pytest.MarkDecorator) -> pytest.Mark:
    return mark.mark if isinstance(mark, pytest.MarkDecorator) else mark
