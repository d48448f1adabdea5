"""What Postgres logs for a document does not grow by versions of its row that it need not write."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.catalog import documents, prepared_documents
from ingest_pipeline.postgres.catalog.prepared_documents import FinishedDocument
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.types import SourceObject, Usage
from tests.support.world import World

_PAGES = "SELECT key, (ctid::text::point)[0]::int AS page FROM ingest_pipeline.document WHERE saga = %s"
_WRITTEN = """
SELECT n_tup_upd AS written, n_tup_hot_upd AS without_indices FROM pg_stat_xact_user_tables
WHERE schemaname = 'ingest_pipeline' AND relname = 'document'
"""


def written(connection: Connection) -> tuple[int, int]:
    """How many versions of rows the transaction wrote so far, and how many of these without entries in indices."""
    row = connection.execute(_WRITTEN).fetchone()
    return (0, 0) if row is None else (row["written"], row["without_indices"])


@pytest.mark.parametrize("folder", ["", "archive/2026/letters/incoming/" * 3])
def test_the_versions_of_a_row_share_a_page(world: World, folder: str) -> None:
    """Then Postgres logs what differs between them. The first and the last version have entries in indices."""
    corpus, count = world.corpus, 200
    keys = [f"{folder}{number}.txt" for number in range(count)]
    plans = [DocumentPlan(key, key, SourceObject(key, "e" * 40, 2000, datetime.now(UTC)), None) for key in keys]
    read = [FinishedDocument(key, "f" * 64, 2000, 3, Usage(3, 0, 600, 1, 0, 0.1)) for key in keys]
    pages: list[dict[str, int]] = []
    with corpus.database.transaction() as connection:
        saga = sagas.begin(connection, generation=corpus.generation, kind=SagaKind.INGEST, base_version=world.head)
        prepared_documents.insert_documents(
            connection, generation=corpus.generation, saga=saga, recipe=world.context.recipe, documents=plans
        )
        pages.append({row["key"]: row["page"] for row in connection.execute(_PAGES, (saga,))})
    with corpus.database.transaction() as connection:
        prepared_documents.finish_documents(connection, saga, read)
        assert written(connection) == (count, count)
        pages.append({row["key"]: row["page"] for row in connection.execute(_PAGES, (saga,))})
    with corpus.database.transaction() as connection:
        documents.publish_documents(connection, saga, 1000, {key: [7] for key in keys})
        assert written(connection) == (count, 0)
        pages.append({row["key"]: row["page"] for row in connection.execute(_PAGES, (saga,))})
    assert len(pages[0]) == count
    assert pages[0] == pages[1] == pages[2]
