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
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.postgres import ledger
from ingest_pipeline.saga.heartbeat import give_up, signs_of_life
from ingest_pipeline.saga.publish import CatalogRows, publish

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
    with corpus.database.transaction() as connection:
        saga = ledger.begin(connection, generation=corpus.generation, kind="maintenance", base_version=base)
    try:
        with signs_of_life(corpus, saga):
            rows = prepare(saga)
            with boundary(Boundary.PREPARED), corpus.database.transaction() as connection:
                ledger.mark_prepared(connection, saga)
        return publish(corpus, saga, rows)
    except StaleError as error:
        give_up(corpus, saga, error)
        log.info("corpus %s: maintenance leaves something for the next time: %s", corpus.generation, error)
        return None
    except BaseException as error:
        give_up(corpus, saga, error)
        raise
