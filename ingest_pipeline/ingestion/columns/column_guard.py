"""The column guard: refuses settings that would take columns from a corpus, until that is confirmed.

The declaration of columns belongs to the corpus, like its recipe. Without the guard, two machines with different
settings would drop and add columns, or read other values from keys, in turns. A declaration that only adds to the one
in force, or gives a column a type that keeps every value, needs no confirmation. Two settings cannot both add to each
other, so they cannot alternate.
"""

from __future__ import annotations

from ingest_pipeline.columns.declaration import Columns
from ingest_pipeline.errors import CorpusMismatchError
from ingest_pipeline.postgres.catalog import corpora
from ingest_pipeline.postgres.database import Connection, Database
from ingest_pipeline.telemetry.logs import get_logger

log = get_logger(__name__)


def check_columns(connection: Connection, corpus: str, wanted: Columns, *, lock: bool = False) -> Columns | None:
    """Compare settings with the declaration in force. A corpus without publications takes any declaration.

    Args:
        connection: The caller's transaction.
        corpus: Name of the corpus.
        wanted: The columns of the settings.
        lock: Lock the declaration until the transaction ends.

    Returns:
        The declaration in force, None if there is none.

    Raises:
        CorpusMismatchError: The settings would do more than add columns.
    """
    recorded = corpora.read_declaration(connection, corpus, lock=lock)
    if recorded is None:
        return None
    in_force = Columns.from_json(recorded)
    row = corpora.read_current(connection, corpus)
    losses = in_force.losses(wanted)
    if losses and row is not None and corpora.is_bound(connection, row.name):
        raise CorpusMismatchError(
            f"The settings would {', and '.join(losses)}, of corpus {corpus!r}. Nothing was changed",
            "Correct INGEST_COLUMNS, INGEST_CHUNK_COLUMNS, INGEST_COLUMNS_FROM_KEY and INGEST_COLUMNS_FROM_TAGS (of a "
            "component: columns, chunk_columns, columns_from_key, columns_from_tags) where they differ. If the change "
            "is intended, run "
            "`ingest-pipeline ingest --confirm-columns`, or set confirm_columns to true in the Launchpad.",
        )
    return in_force


def put_columns_in_force(database: Database, corpus: str, wanted: Columns, *, confirmed: bool = False) -> None:
    """Record the declaration of the settings for all processes that open the corpus from now on.

    Args:
        database: The database of the catalog.
        corpus: Name of the corpus, which exists.
        wanted: The columns of the settings.
        confirmed: Whether the user confirmed that columns may be lost.

    Raises:
        CorpusMismatchError: See `check_columns`.
    """
    with database.transaction() as connection:
        if not confirmed:
            in_force = check_columns(connection, corpus, wanted, lock=True)
            if in_force is not None and in_force.to_json() == wanted.to_json():
                return
        corpora.set_declaration(connection, corpus, wanted.to_json())
    log.info("corpus %s: the columns in force are %s", corpus, wanted.to_json())
