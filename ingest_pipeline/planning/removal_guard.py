"""The removal guard: decides when removals need a confirmation.

If a listing lacks most documents, a mistake or a fault is more likely than a deletion of so many documents.
"""

from __future__ import annotations

from datetime import timedelta

from ingest_pipeline.errors import RemovalsWithheldError
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.types import counted

_MAX_UNCONFIRMED = 10
_RECENT = timedelta(hours=1)


def is_suspicious(gone: int, latest: int) -> bool:
    """Whether the removals need a confirmation: they are all documents, or more than half of them and more than ten.

    Args:
        gone: Documents at head that the source lacks, that the settings exclude, or that a rollback removes.
        latest: Documents at head.
    """
    return gone > 0 and (gone >= latest or (gone > _MAX_UNCONFIRMED and 2 * gone > latest))


def check_removals(context: IngestContext, removals: int, *, with_recent: bool = False) -> RemovalsWithheldError | None:
    """The error to raise if these removals need a confirmation, otherwise None.

    Args:
        context: The open corpus with its source.
        removals: Number of all compared documents that the source lacks.
        with_recent: Count the removals of the last hour too, because the source was not listed, and a source that
            disappears piece by piece looks like many small removals.
    """
    if not removals:
        return None
    with context.corpus.database.transaction() as connection:
        latest = documents.count_documents(connection, context.corpus.generation)
        recent = documents.count_removed(connection, context.corpus.generation, _RECENT) if with_recent else 0
    if not is_suspicious(removals + recent, latest + recent):
        return None
    return withheld(context.corpus.name, context.source.url, removals + recent, latest + recent)


def withheld_rollback(corpus: str, version: int, gone: int, latest: int) -> RemovalsWithheldError:
    """The error that refuses a rollback because it would remove all or most documents."""
    removed = f"{gone} of its {counted(latest, 'document')}"
    return RemovalsWithheldError(
        f"Rolling corpus {corpus!r} back to version {version} would remove {removed}; nothing was changed",
        "To remove them, run `ingest-pipeline rollback` with --confirm-removals, or set confirm_removals to true in "
        "the Launchpad. `--dry-run` lists them.",
    )


def withheld(corpus: str, source: str, gone: int, latest: int) -> RemovalsWithheldError:
    """The error that refuses to remove documents that the source lacks."""
    missing = f"{gone} of {counted(latest, 'document')} of corpus {corpus!r} {'is' if gone == 1 else 'are'} missing"
    return RemovalsWithheldError(f"{missing} from {source} or excluded by the settings; none of them was removed")
