"""When a listing lacks so much that it is more likely to be wrong than the documents to be gone."""

from __future__ import annotations

from ingest_pipeline.errors import RemovalsWithheldError

_HANDFUL = 10


def is_suspicious(gone: int, latest: int) -> bool:
    """Whether a person has to confirm: all documents are gone, or more than half of them and more than ten.

    Args:
        gone: Documents at head that the source lacks, that the settings leave out, or that a rollback takes out.
        latest: Documents at head.
    """
    return gone > 0 and (gone >= latest or (gone > _HANDFUL and 2 * gone > latest))


def withheld_rollback(corpus: str, version: int, gone: int, latest: int) -> RemovalsWithheldError:
    """The refusal of a rollback that removes all documents or most of them."""
    return RemovalsWithheldError(
        f"Rolling corpus {corpus!r} back to version {version} would take out {gone} of its {latest} documents; "
        "nothing was changed",
        "If they are meant to go, run `ingest-pipeline rollback` with --confirm-removals, or set confirm_removals to "
        "true in the Launchpad. `--dry-run` lists them.",
    )


def withheld(corpus: str, source: str, gone: int, latest: int) -> RemovalsWithheldError:
    """What to tell that person."""
    return RemovalsWithheldError(
        f"{gone} of {latest} documents of corpus {corpus!r} are gone from {source} or left out by the settings; "
        "none of them was removed"
    )
