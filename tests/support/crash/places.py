"""Where a run can be killed: every passage of every boundary, as counted in a run of the same documents."""

from __future__ import annotations

from ingest_pipeline.failpoints import Boundary
from tests.support.crash.crash import Place

_PREPARING = {
    Boundary.SOURCE_READ: 2,
    Boundary.SAGA_BEGUN: 1,
    Boundary.BATCH_SENT: 1,
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
    Boundary.ACKNOWLEDGED: 1,
}
_PREPARING_FIRST = {**_PREPARING, Boundary.BATCH_SENT: 2, Boundary.BATCH_RECORDED: 2}
"""One text goes alone to an endpoint that was never seen to serve the model."""
FIRST_INGEST = {**_PREPARING_FIRST, **_PUBLISHING, Boundary.FLUSHED: 2, Boundary.COMMIT: 12}
"""Of two new documents, into a corpus that exists, by how often each side is passed."""
REPLACEMENT = {
    **_PREPARING,
    Boundary.SOURCE_READ: 1,
    **_PUBLISHING,
    Boundary.FLUSHED: 2,
    Boundary.ROWS_REMOVED: 1,
    Boundary.COMMIT: 12,
}
"""Of one document, beside the removal of another."""
EMPTYING = {
    Boundary.SOURCE_READ: 1,
    Boundary.SAGA_BEGUN: 1,
    Boundary.FRAGMENT_RECORDED: 1,
    Boundary.PREPARED: 1,
    **_PUBLISHING,
    Boundary.ROWS_REMOVED: 1,
    Boundary.COMMIT: 10,
}
"""Of one document that became empty."""
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
"""Of one document, beside another that returns."""
ORDER = {
    Boundary.SOURCE_READ: 1,
    Boundary.LOCK_TAKEN: 1,
    Boundary.SAGA_BEGUN: 1,
    Boundary.BATCH_JOB_RECORDED: 1,
    Boundary.BATCH_JOB_SUBMITTED: 1,
}
"""Of the vectors of one document. Its COMMITs are passed between these."""
FIRST_ORDER = {Boundary.BATCH_SENT: 1, Boundary.BATCH_RECORDED: 1, Boundary.COMPLETED: 1}
"""Of one text that goes alone to an endpoint that was never seen to serve the model, before the order itself."""
COLLECTION = {Boundary.BATCH_JOB_COLLECTED: 1}
"""Of one order that has come."""
RECOVERY = {
    Boundary.LOCK_TAKEN: 3,
    Boundary.SAGA_BEGUN: 1,
    Boundary.RESTORED: 1,
    Boundary.FLUSHED: 1,
    Boundary.HEAD_MOVED: 1,
    Boundary.SETTLED: 1,
    Boundary.COMMIT: 9,
}
"""After a publication died with its version made."""
SWEEP = {Boundary.VERSIONS_REMOVED: 1, Boundary.FILE_REMOVED: 1, Boundary.LOCK_TAKEN: 2, Boundary.COMMIT: 9}
"""After that was recovered."""
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
    Boundary.COMMIT: 27,
}
"""Of a fragment with deleted rows, of the first index, and of all versions but head."""
CREATION = {Boundary.SAGA_BEGUN: 1, Boundary.LANCE_COMMIT: 1, Boundary.FLUSHED: 1, Boundary.COMMIT: 6}
"""Of a corpus with its table."""
WIDENED_WHILE_EMPTY = {**CREATION, Boundary.LOCK_TAKEN: 1, Boundary.COMMIT: 10}
"""Of an empty table of another width instead of one."""
MOVED_WHILE_EMPTY = {
    **WIDENED_WHILE_EMPTY,
    Boundary.GENERATION_MOVED: 1,
    Boundary.TABLE_DROPPED: 1,
    Boundary.SAGA_BEGUN: 2,
    Boundary.COMMIT: 9,
}
"""Of an empty table in another folder instead of one."""

MIGRATION = {
    **_PREPARING_FIRST,
    **_PUBLISHING,
    Boundary.SAGA_BEGUN: 2,
    Boundary.LANCE_COMMIT: 2,
    Boundary.FLUSHED: 3,
    Boundary.LOCK_TAKEN: 2,
    Boundary.GENERATION_MOVED: 1,
    Boundary.COMMIT: 23,
}
"""Of two documents to another model, from the creation of the second table on."""
SWITCH = {Boundary.LOCK_TAKEN: 1, Boundary.GENERATION_MOVED: 1, Boundary.COMMIT: 9}
"""After all was filled."""
DROP = {Boundary.LOCK_TAKEN: 1, Boundary.GENERATION_MOVED: 1, Boundary.TABLE_DROPPED: 1, Boundary.COMMIT: 7}
"""Of what a migration left."""

DROP_CORPUS = {Boundary.LOCK_TAKEN: 1, Boundary.GENERATION_MOVED: 1, Boundary.TABLE_DROPPED: 1, Boundary.COMMIT: 5}
"""Of a corpus of one generation."""
REBUILD = {
    Boundary.SAGA_BEGUN: 1,
    Boundary.PREPARED: 1,
    Boundary.SOURCE_READ: 3,
    Boundary.LOCK_TAKEN: 1,
    Boundary.RESTORED: 1,
    Boundary.FLUSHED: 1,
    Boundary.ROWS_WRITTEN: 1,
    Boundary.HEAD_MOVED: 1,
    Boundary.COMMIT: 15,
}
"""Of the catalog, of three documents that it does not have."""
RELOCATION = {
    Boundary.LOCK_TAKEN: 1,
    Boundary.RELOCATED: 1,
    Boundary.SAGA_BEGUN: 1,
    Boundary.RESTORED: 1,
    Boundary.FLUSHED: 1,
    Boundary.HEAD_MOVED: 1,
    Boundary.COMMIT: 4,
}
"""Of a corpus to a copy of its table."""


def places(passages: dict[Boundary, int]) -> list[Place]:
    """Both sides of every passage."""
    return [
        Place(boundary, side, occurrence + 1)
        for boundary, count in passages.items()
        for occurrence in range(count)
        for side in ("before", "after")
    ]


def telling_places(passages: dict[Boundary, int]) -> list[Place]:
    """Both sides of the first passage of every boundary; of COMMIT, the later half, in which something is decided.

    Of the COMMITs only the last is passed after, too: after one and before the next, the stores hold the same.
    """
    first = [place for place in places(passages) if place.occurrence == 1 and place.boundary is not Boundary.COMMIT]
    commits = [place for place in places(passages) if place.boundary is Boundary.COMMIT]
    deciding = commits[len(commits) // 2 :]
    return first + [place for place in deciding if place.side == "before"] + commits[-1:]
