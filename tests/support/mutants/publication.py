"""The protocol of a publication: lock, fence, COMMIT, manifest, compensation and rollback."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from ingest_pipeline.corpus import corpus as corpus_module
from ingest_pipeline.corpus import opening, pinned, table_identity
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.lance import table
from ingest_pipeline.lance.versions import manifests
from ingest_pipeline.postgres import database, sql
from ingest_pipeline.postgres.catalog import corpora, documents, history, holds
from ingest_pipeline.postgres.catalog.corpora import GenerationRow
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.saga import lifecycle, publish, reconcile
from tests.support.mutants.mutant import Mutant, answering, plug

_PUBLICATION = "tests/integration/saga/test_publish.py::"
_WIRE = "tests/faults/stores/test_wire.py::"
_COMMIT = "tests/faults/concurrency/test_one_commit.py::"
_ZOMBIE = "tests/faults/deaths/test_zombie.py::"


def no_row_lock() -> None:
    query = sql.query

    def without_lock(name: str) -> Any:
        return query(name).replace("FOR NO KEY UPDATE", "")

    plug(corpora, "query", without_lock)


def no_version_check() -> None:
    plug(publish, "check_version", answering(None))


def canonical_manifest_before_commit() -> None:
    check = reconcile.check_version

    def check_and_install(corpus: Corpus, made: int, expected: int) -> None:
        check(corpus, made, expected)
        for staged in (Path(corpus.table.uri) / manifests.FOLDER).glob(f"{2**64 - 1 - made:020d}.manifest-*"):
            manifests.put_manifest(corpus.table.uri, {}, made, staged.name, b"", replace=False)

    plug(publish, "check_version", check_and_install)


def manifest_not_installed_by_others() -> None:
    for module in (corpus_module, opening, pinned, reconcile, table_identity):
        plug(module, "install_head", answering(None))


def canonical_manifest_of_others_overwritten() -> None:
    put = manifests.put_manifest

    def put_over(*arguments: Any, **_: bool) -> bool:
        return put(*arguments, replace=True)

    plug(table, "put_manifest", put_over)


def no_compensation() -> None:
    plug(publish, "reconcile", answering([]))


def no_restore() -> None:
    def keep(connection: Connection, corpus: Corpus, head: GenerationRow, **_: object) -> GenerationRow:
        latest = corpus.table.latest_version()
        saga = corpus.table.saga_of(latest) or UUID(int=0)
        corpora.move_head(connection, corpus.generation, version=latest, saga=saga, manifest=None)
        return replace(head, head_version=latest, head_saga=saga)

    plug(reconcile, "restore_as_head", keep)


def no_fence() -> None:
    def go_on(connection: Connection, name: str, saga: UUID, values: dict[str, object]) -> None:
        connection.execute(sql.query(name), values)

    plug(sagas, "_expect_row", go_on)


def no_conflict_check() -> None:
    plug(documents, "conflicting_documents", answering([]))


def version_row_in_another_transaction() -> None:
    unplugged, move = publish.publish, corpora.move_head
    moves: list[dict[str, Any]] = []

    def move_later(_: Connection, name: str, **moved: Any) -> None:
        moves.append({"name": name, **moved})

    def publish_then_move(corpus: Corpus, saga: UUID, rows: Any) -> int:
        plug(corpora, "move_head", move_later)
        version = unplugged(corpus, saga, rows)
        plug(corpora, "move_head", move)
        with corpus.database.transaction() as connection:
            move(connection, **moves.pop())
        return version

    plug(lifecycle, "publish", publish_then_move)


def acknowledged_without_commit() -> None:
    def commit(connection: Connection) -> None:
        with suppress(psycopg.Error):
            connection.commit()

    plug(database, "_commit", commit)


def unknown_taken_for_failed() -> None:
    plug(publish, "settle", answering(None))


def unknown_taken_for_success() -> None:
    def hope(corpus: Corpus, saga: UUID) -> int:
        return corpus.table.latest_version() + 1

    plug(publish, "settle", hope)


def rollback_forgets_the_catalog() -> None:
    copy = history.copy_chunk_rows

    def count_only(connection: Connection, saga: UUID, keys: Sequence[str]) -> int:
        # Copied, then deleted: a count that is too small would stop the rollback by itself.
        copied = copy(connection, saga, keys)
        connection.execute("DELETE FROM ingest_pipeline.chunk WHERE saga = %s", (saga,))
        return copied

    plug(history, "copy_chunk_rows", count_only)


def rollback_forgets_the_hold() -> None:
    plug(holds, "hold_documents", answering(None))


MUTANTS = {
    "no row lock": Mutant(no_row_lock, f"{_PUBLICATION}test_a_publication_waits_for_the_holder_of_the_lock"),
    "no version check": Mutant(
        no_version_check, f"{_PUBLICATION}test_a_foreign_write_during_a_publication_is_kept_and_reported"
    ),
    "canonical manifest before COMMIT": Mutant(
        canonical_manifest_before_commit, f"{_COMMIT}test_a_reader_of_the_latest_version_sees_only_what_was_committed"
    ),
    "manifest not installed by others": Mutant(
        manifest_not_installed_by_others,
        f"{_COMMIT}test_who_comes_next_installs_the_manifest_of_a_writer_that_died[reader_at_head]",
    ),
    "canonical manifest of others overwritten": Mutant(
        canonical_manifest_of_others_overwritten,
        f"{_COMMIT}test_a_version_that_took_the_number_of_head_is_reported_and_never_overwritten",
    ),
    "no compensation": Mutant(
        no_compensation, f"{_ZOMBIE}test_a_version_left_above_head_is_undone_by_the_next_publication"
    ),
    "no restore": Mutant(
        no_restore, "tests/integration/saga/test_recover.py::test_versions_of_several_dead_writers_are_undone_together"
    ),
    "no fence": Mutant(
        no_fence, "tests/integration/saga/test_transaction.py::test_a_writer_taken_for_dead_cannot_publish"
    ),
    "no conflict check": Mutant(
        no_conflict_check,
        "tests/faults/concurrency/test_concurrency.py::test_a_document_published_meanwhile_is_not_overwritten",
    ),
    "version row in another transaction": Mutant(
        version_row_in_another_transaction,
        "tests/faults/deaths/test_crash.py::test_a_first_ingest_may_die_at_decisive_places[before_acknowledged_1-recover_alone]",
    ),
    "acknowledged without COMMIT": Mutant(
        acknowledged_without_commit, f"{_WIRE}test_a_cut_before_commit_arrives_undoes_the_saga_and_fails_the_run"
    ),
    "unknown taken for failed": Mutant(
        unknown_taken_for_failed, f"{_WIRE}test_a_cut_after_commit_was_executed_lets_the_run_succeed"
    ),
    "unknown taken for success": Mutant(
        unknown_taken_for_success, f"{_WIRE}test_a_cut_before_commit_arrives_undoes_the_saga_and_fails_the_run"
    ),
    "rollback forgets the catalog": Mutant(
        rollback_forgets_the_catalog,
        "tests/integration/saga/test_rollback.py::test_the_whole_corpus_is_as_it_was_in_both_stores_at_no_cost",
    ),
    "rollback forgets the hold": Mutant(
        rollback_forgets_the_hold,
        "tests/integration/saga/test_rollback.py::test_a_rolled_back_document_is_not_ingested_again",
    ),
}
