"""What an erasure removes, and what may not bring it back."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ingest_pipeline.erasure import erase as erase_module
from ingest_pipeline.erasure import table as erasure_table
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.postgres import database, sql
from ingest_pipeline.postgres.catalog import prepared_documents
from ingest_pipeline.postgres.ledger import embedding_cache, erasures, sagas
from ingest_pipeline.reporting import erasure as dagster_erasure
from ingest_pipeline.saga import documents as saga_documents
from tests.support.mutants.mutant import Mutant, answering, plug

_ERASE = "tests/integration/erasure/test_erase.py::"
_ERASURES = "tests/faults/deaths/test_erasures.py::"
_ERASE_IN_DAGSTER = "tests/acceptance/dagster/runs/test_erase.py::test_grep_and_pg_dump_find_nothing_after_the_job"


def old_versions_are_kept() -> None:
    plug(erasure_table, "_remove_versions", answering(None))


def indices_are_kept() -> None:
    plug(erasure_table, "_replace_segments", answering(None))


def recorded_vectors_are_kept() -> None:
    statements: dict[str, str] = erasures._OF_KEYS  # pyright: ignore[reportPrivateUsage]
    plug(erasures, "_OF_KEYS", {table: name for table, name in statements.items() if table != "embedded_batch"})


def deleted_rows_are_kept() -> None:
    """Only rows that a version shows are looked for, not those that a data file still has."""
    rows_of = erasure_table.rows_of

    def of_head(found: LanceTable, name: str, keys: Any, *columns: Any) -> Any:
        shown = found.count(found.latest_version(), erasure_table.one_of("document", keys))
        return rows_of(found, name, keys, *columns) if shown else []

    plug(erasure_table, "rows_of", of_head)


def older_sagas_publish_after_an_erasure() -> None:
    query = sql.query

    def without_fence(name: str) -> Any:
        return query(name).replace("e.kind = 'erasure'", "false")

    for module in (sagas, embedding_cache):
        plug(module, "query", without_fence)
    plug(sagas, "abandon_live", answering(list[UUID]()))


def erased_documents_are_planned() -> None:
    plug(erasures.ErasedKeys, "__contains__", answering(value=False))


def an_erasure_is_no_conflict() -> None:
    for module in (saga_documents, prepared_documents):
        plug(module, "check_not_erased", answering(None))


def tables_are_not_rewritten() -> None:
    plug(database.Database, "rewrite_tables", answering(list[str]()))


def events_of_dagster_are_kept() -> None:
    plug(dagster_erasure, "_EVENTS", {"asset_check_executions"})


def no_note_beside_the_table() -> None:
    plug(erase_module, "write_note", answering(None))


MUTANTS = {
    "old versions kept by an erasure": Mutant(
        old_versions_are_kept, f"{_ERASE}test_no_version_that_had_the_document_is_retained"
    ),
    "indices kept by an erasure": Mutant(indices_are_kept, f"{_ERASE}test_words_of_the_document_are_in_no_index"),
    "spool kept by an erasure": Mutant(
        recorded_vectors_are_kept, f"{_ERASE}test_recorded_vectors_failures_and_orphan_files_leave_too"
    ),
    "deleted rows kept by an erasure": Mutant(
        deleted_rows_are_kept,
        f"{_ERASE}test_a_document_that_was_removed_before_is_erased_from_the_files_that_still_have_it",
    ),
    "sagas older than an erasure publish": Mutant(
        older_sagas_publish_after_an_erasure,
        f"{_ERASURES}test_a_writer_that_prepared_the_document_before_does_not_bring_it_back[after_batch_sent_1]",
    ),
    "erased documents planned": Mutant(
        erased_documents_are_planned,
        f"{_ERASE}test_the_object_is_not_ingested_again_until_the_user_allows_it",
    ),
    "an erasure is no conflict": Mutant(
        an_erasure_is_no_conflict,
        f"{_ERASURES}test_a_saga_that_was_planned_before_and_begins_after_is_refused",
    ),
    "tables not rewritten by an erasure": Mutant(tables_are_not_rewritten, _ERASE_IN_DAGSTER),
    "events of dagster kept by an erasure": Mutant(events_of_dagster_are_kept, _ERASE_IN_DAGSTER),
    "no note of an erasure beside the table": Mutant(
        no_note_beside_the_table,
        "tests/integration/erasure/test_restored.py::"
        "test_an_older_database_learns_of_the_erasure_from_the_folder_of_the_table",
    ),
}
