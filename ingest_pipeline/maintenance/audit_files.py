"""The audit of files: orphan files, and which of them a sweep should have removed by now.

If two runs ingest the same documents, one publishes first. The other one plans again, and its staged files become
orphans. They are no violation, because the next sweep removes them. An orphan file that is a day old is a violation.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.maintenance.sweep import saga_of_file
from ingest_pipeline.postgres.ledger import sagas

# Maintenance sweeps every hour. Only the audit considers the age of a file; a sweep does not.
_OVERDUE = timedelta(days=1)


def overdue(corpus: Corpus, files: Sequence[str], now: datetime) -> list[str]:
    """The orphan files that no sweep has removed for a day.

    Args:
        corpus: The audited corpus.
        files: Orphan files, relative to the table's folder.
        now: The current time by the database's clock.
    """
    if not files:
        return []
    written = corpus.table.written_at()
    owners = {name: saga_of_file(name) for name in files}
    with corpus.database.transaction() as connection:
        ended = sagas.ends(connection, corpus.generation, {saga for saga in owners.values() if saga is not None})
    since = {name: written.get(name, now) if saga is None else ended.get(saga) for name, saga in owners.items()}
    return [name for name, at in since.items() if at is None or now - at > _OVERDUE]
