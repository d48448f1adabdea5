"""The manifest of head: installed after COMMIT by its writer, or by the next user of the table if the writer died."""

from __future__ import annotations

from ingest_pipeline.errors import ForeignWriteError, UnavailableError
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.postgres.catalog.corpora import GenerationRow
from ingest_pipeline.telemetry.logs import get_logger

log = get_logger(__name__)


def install_head(table: LanceTable, row: GenerationRow, *, replace: bool = False) -> None:
    """Let every reader of the table see the version at head.

    Args:
        table: The table, or a copy of it.
        row: The generation.
        replace: Replace a version of the same number that another writer made, as the user decided.

    Raises:
        ForeignWriteError: Another writer made a version of the same number. It was not touched.
        TableUnavailableError: The store does not answer.
    """
    manifest = row.staged_manifest
    if manifest is None or table.install(row.head_version, manifest, row.head_saga, replace=replace):
        return
    raise ForeignWriteError(
        f"Version {row.head_version} of the table of corpus {row.corpus!r} was written by something else at the "
        f"moment at which saga {row.head_saga} published a version of the same number",
        "Neither of them was changed, and head cannot be read. Replace the other version by the published one with "
        "`ingest-pipeline recover --restore`.",
    )


def install_published(table: LanceTable, row: GenerationRow) -> None:
    """Install the manifest of head right after the COMMIT that moved head.

    Args:
        table: The table of the generation.
        row: The generation as that COMMIT left it.

    Raises:
        ForeignWriteError: As in `install_head`.
    """
    try:
        install_head(table, row)
    except UnavailableError as error:
        log.warning(
            "generation %s: version %d is published, but its manifest could not be installed (%s); the next writer, "
            "reader at head or recovery installs it",
            row.name,
            row.head_version,
            error,
        )
