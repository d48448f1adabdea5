"""A saga of maintenance changes how rows are stored, but no row: long work without the lock, then a publication.

The prepared change may no longer fit once the lock is taken, because a document was published meanwhile. Then nothing
is published, the sweep removes the files, and the next maintenance tries again.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import StaleError
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.saga.lifecycle import Saga
from ingest_pipeline.saga.publish import CatalogRows
from ingest_pipeline.telemetry.logs import get_logger

log = get_logger(__name__)


def publish_maintenance(corpus: Corpus, base: int, prepare: Callable[[UUID], CatalogRows]) -> int | None:
    """Run one saga of kind ``maintenance``.

    Args:
        corpus: The corpus to maintain.
        base: The head to work on. Retention keeps this version until the saga ends.
        prepare: Writes files under the saga's id, and returns what to publish.

    Returns:
        The published version, or None if the prepared change no longer fitted.

    Raises:
        UnavailableError: One of the stores failed; nothing was published, unless the message says that the outcome is
            in doubt until the next publication settles it.
        ForeignWriteError: A version that this package did not write is above head.
    """
    try:
        with Saga.begin(corpus, SagaKind.MAINTENANCE, base_version=base) as saga:
            rows = prepare(saga.id)
            saga.prepared()
            return saga.publish(rows)
    except StaleError as error:
        log.info("corpus %s: a maintenance step was postponed to the next maintenance: %s", corpus.generation, error)
        return None
