"""The files' side of an audit: those that belong to nothing, and which of them a sweep should have removed by now.

Of two runs over the same documents one publishes first. The other one plans again, and what it had staged belongs to
nothing from then on. That is no fault: the next sweep removes it. A file that is there a day later is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.maintenance.sweep import saga_of_file
from ingest_pipeline.postgres import ledger

# Maintenance sweeps every hour. This is for reports only; a sweep does not judge by age.
_OVERDUE = timedelta(days=1)


def overdue(corpus: Corpus, files: Sequence[str], now: datetime) -> list[str]:
    """Those files that no sweep removed for a day.

    Args:
        corpus: Which one.
        files: That belong to nothing, relative to the table's folder.
        now: By the database's clock.
    """
    if not files:
        return []
    written = corpus.table.written_at()
    sagas = {name: saga_of_file(name) for name in files}
    with corpus.database.transaction() as connection:
        ended = ledger.ends(connection, corpus.generation, {saga for saga in sagas.values() if saga is not None})
    since = {name: written.get(name, now) if saga is None else ended.get(saga) for name, saga in sagas.items()}
    return [name for name, at in since.items() if at is None or now - at > _OVERDUE]
