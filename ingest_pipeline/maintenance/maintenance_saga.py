"""One saga that changes how rows are kept and no row: long work at a head, without the lock, then a publication.

What was prepared may no longer fit when the lock is there, because a document was published meanwhile. Then nothing is
published, what was written is swept, and the next maintenance looks again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import StaleError
from ingest_pipeline.saga.lifecycle import Saga
from ingest_pipeline.saga.publish import CatalogRows

log = logging.getLogger(__name__)


def publish_maintenance(corpus: Corpus, base: int, prepare: Callable[[UUID], CatalogRows]) -> int | None:
    """Run one saga of kind ``maintenance``.

    Args:
        corpus: Which one.
        base: The head that the work is done on; it stays readable until the saga ends.
        prepare: Writes files under the saga's id, and returns what to publish.

    Returns:
        The version, or None if what was prepared no longer fitted.

    Raises:
        UnavailableError: One of the stores failed; nothing was published, unless the message says that the outcome is
            in doubt until the next publication settles it.
        ForeignWriteError: A version that is not ours stands above head.
    """
    try:
        with Saga.begin(corpus, "maintenance", base_version=base) as saga:
            rows = prepare(saga.id)
            saga.prepared()
            return saga.publish(rows)
    except StaleError as error:
        log.info("corpus %s: maintenance left work for the next time: %s", corpus.generation, error)
        return None
