"""Mutants: the engine with one safeguard disabled, which a named test must catch.

The variable ``MUTANT`` names the mutant that this process and its children become.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock
from uuid import UUID

import dagster as dg
import psycopg

from ingest_pipeline import processes, types
from ingest_pipeline.assets import ingest as ingest_step
from ingest_pipeline.assets import markdown, run_report
from ingest_pipeline.assets.run_report import RunReport
from ingest_pipeline.chunking import blocks, recut, sections, user_chunker_role
from ingest_pipeline.chunking.model_input import ModelInput
from ingest_pipeline.columns import declaration
from ingest_pipeline.corpus import corpus as corpus_module
from ingest_pipeline.corpus import opening, pinned, table_identity
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.embedding import base, openai, user_embedder_role
from ingest_pipeline.embedding.prompts import NO_PROMPT
from ingest_pipeline.erasure import erase as erase_module
from ingest_pipeline.erasure import table as erasure_table
from ingest_pipeline.events import queue
from ingest_pipeline.extensions import pool as extension_pool
from ingest_pipeline.extensions.protocol import Introduction
from ingest_pipeline.gates import judge
from ingest_pipeline.ingestion import ingest, recipe_guard
from ingest_pipeline.ingestion.columns import column_changes, reread
from ingest_pipeline.ingestion.workers import pool as worker_pool
from ingest_pipeline.lance import moves, table, table_reader
from ingest_pipeline.lance.checks import column_audit, damage, fingerprints
from ingest_pipeline.lance.files import flush, spool
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.lance.versions import manifests, store_check
from ingest_pipeline.maintenance import audit_rows, drop, sweep
from ingest_pipeline.orchestration import sensors
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres import database, durability, sql
from ingest_pipeline.postgres.catalog import corpora, documents, gates, history, holds, pins, prepared_documents
from ingest_pipeline.postgres.catalog.corpora import GenerationRow
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.embedded import server
from ingest_pipeline.postgres.ledger import embedding_cache, erasures, extension_results, sagas
from ingest_pipeline.postgres.url import parts_of, write_url
from ingest_pipeline.preparation.reading.extension_calls import ExtensionCalls
from ingest_pipeline.preparation.vectors import vector_resolver as vectors
from ingest_pipeline.preparation.vectors.requests import EmbeddingRequests
from ingest_pipeline.reporting import erasure as dagster_erasure
from ingest_pipeline.reporting import head
from ingest_pipeline.restore import relocate
from ingest_pipeline.saga import blocked, lifecycle, publish, reconcile
from ingest_pipeline.saga import documents as saga_documents
from ingest_pipeline.search import access, search
from ingest_pipeline.sources import local, local_files
from ingest_pipeline.types import text_hash

_POWER_CUTS = (
    "tests/faults/stores/test_power_cuts_of_sagas.py::"
    "test_a_disk_that_keeps_only_what_was_flushed_has_all_that_was_confirmed"
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A function that disables a safeguard, and the test that has to fail then."""

    apply: Callable[[], None]
    caught_by: str


def plug(owner: Any, name: str, replacement: object) -> None:
    """Replace a function or a property, private ones included."""
    getattr(owner, name)  # fails if the safeguard was renamed
    setattr(owner, name, replacement)


def answering(value: object) -> Callable[..., Any]:
    """A function that only returns a value."""

    def answer(*_: object, **__: object) -> object:
        return value

    return answer


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


def sweep_takes_staged_files() -> None:
    plug(sagas, "live_sagas", answering(set[UUID]()))


def sweep_takes_half_written_files() -> None:
    def is_orphan(name: str, live: set[UUID], ended: set[UUID]) -> bool:
        return name.startswith("data/.tmp") or not live

    plug(sweep, "_is_orphan", is_orphan)


def compaction_over_a_changed_fragment() -> None:
    class Unchanged:
        def get(self, _: int) -> Any:
            return mock.ANY

    plug(LanceTable, "states", answering(Unchanged()))


def rollback_forgets_the_catalog() -> None:
    copy = history.copy_chunk_rows

    def count_only(connection: Connection, saga: UUID, keys: Sequence[str]) -> int:
        # Copied, then deleted: a count that is too small would stop the rollback by itself.
        copied = copy(connection, saga, keys)
        connection.execute("DELETE FROM ingest_pipeline.chunk WHERE saga = %s", (saga,))
        return copied

    plug(history, "copy_chunk_rows", count_only)


def waits_without_end() -> None:
    query = sql.query

    def without_limits(name: str) -> str:
        return "SELECT 1" if name == "limit_waiting" else query(name)

    plug(durability, "query", without_limits)


def retention_forgets_live_sagas() -> None:
    query = sql.query

    def without_live(name: str) -> Any:
        wanted = "state IN ('preparing', 'prepared')"
        return query(name).replace(wanted, "false") if name == "oldest_needed" else query(name)

    plug(history, "query", without_live)


def retention_forgets_pins() -> None:
    query = sql.query

    def without_pins(name: str) -> Any:
        return query(name).replace("kept_until > now()", "false") if name == "oldest_needed" else query(name)

    plug(history, "query", without_pins)


def runs_are_not_pinned() -> None:
    plug(pins, "read_pin", answering(value=None))

    def newest(connection: Any, corpus: str, *_: Any) -> Any:
        row = corpora.read_current(connection, corpus)
        assert row is not None
        return pins.Pin(row.name, row.head_version)

    plug(pins, "insert_pin", newest)


def index_covers_what_is_covered() -> None:
    plug(LanceTable, "fits", answering(value=True))


def vectors_in_order_of_arrival() -> None:
    read = cast("Callable[..., object]", openai.read_answer)

    def read_unsorted(body: Any, count: int, dimensions: int) -> object:
        with suppress(TypeError, KeyError):
            body = {**body, "data": [{**item, "index": place} for place, item in enumerate(body["data"])]}
        return read(body, count, dimensions)

    plug(openai, "read_answer", read_unsorted)


def outage_taken_for_damage() -> None:
    plug(table_reader, "may_be_damage", answering(value=True))
    plug(damage, "_decoding", answering("could not be fetched"))


def no_flush() -> None:
    plug(flush, "_sync", answering(None))


def no_flush_of_folders() -> None:
    plug(flush, "flush_folder", answering(None))


def no_flush_of_manifests() -> None:
    flush_file = flush._flush_file  # pyright: ignore[reportPrivateUsage]

    def flush_others(file: Path) -> None:
        if ".manifest" not in file.name:
            flush_file(file)

    plug(flush, "_flush_file", flush_others)


def copies_are_taken_for_flushed() -> None:
    plug(LanceTable, "flush", answering(None))


def commits_as_the_server_says() -> None:
    plug(database, "transaction_settings", answering(sql.query("limit_waiting")))


def any_server_is_durable() -> None:
    plug(durability, "_is_required", answering(value=False))


def any_store_is_trusted() -> None:
    plug(store_check, "check_store", answering(None))


def no_generation_check() -> None:
    plug(Corpus, "check_generation", answering(None))
    plug(sagas, "abandon_live", answering([]))


def no_comparison_at_the_switch() -> None:
    plug(corpora, "generation_differences", answering([]))


def no_model_check() -> None:
    plug(ingest.Ingestion, "_check_model", answering(None))


def rollback_forgets_the_hold() -> None:
    plug(holds, "hold_documents", answering(None))


def no_time_of_change() -> None:
    def etag(found: os.stat_result) -> str:
        return f"{found.st_ino:x}-{found.st_mtime_ns:x}-0-{found.st_size:x}"

    plug(local_files, "etag_of", etag)


def racily_clean_files_are_trusted() -> None:
    plug(local, "wait_for_next_clock_step", answering(None))


def fence_of_fixed_length() -> None:
    plug(markdown, "_fence", answering("````"))


def recipe_guard_off() -> None:
    plug(recipe_guard, "_is_withheld", answering(value=False))


def unknown_saga_undone() -> None:
    def not_ours(here: object, sagas: object, mark: object) -> str:
        return "foreign" if mark is None else "ours"

    plug(table_identity, "_origin", not_ours)


def sweep_takes_unknown_files() -> None:
    def is_orphan(name: str, live: set[UUID], ended: set[UUID]) -> bool:
        return name.startswith("data/") and sweep.saga_of_file(name) not in {None, *live}

    plug(sweep, "_is_orphan", is_orphan)


_PUBLICATION = "tests/integration/saga/test_publish.py::"
_MAINTENANCE = "tests/integration/maintenance/test_maintain.py::"
_SWEEP = "tests/integration/maintenance/test_sweep.py::"
_WIRE = "tests/faults/stores/test_wire.py::"
_COMMIT = "tests/faults/concurrency/test_one_commit.py::"
_ZOMBIE = "tests/faults/deaths/test_zombie.py::"


def any_copy_is_the_table() -> None:
    plug(relocate, "_check_copy", answering(None))


def writers_keep_their_settings() -> None:
    plug(Corpus, "check_generation", Corpus.check_table)


def drop_of_any_table() -> None:
    plug(drop, "_is_ours", answering(True))


def dagsters_tables_anywhere() -> None:
    from ingest_pipeline.cli import _session  # noqa: PLC0415  imports Dagster, which most tests do not need

    def anywhere(url: str) -> str:
        return write_url(parts_of(url), "psycopg2")

    plug(_session, "prepare_storage", anywhere)


def moved_rows_keep_their_places() -> None:
    def sizes(places: Any, own: Any, _: object) -> Any:
        return places["end_offset"][own] - places["start_offset"][own]

    plug(moves, "_move", sizes)


def moved_fragments_are_not_compared() -> None:
    plug(moves.Edit, "fits", answering(value=True))


def shared_chunk_rows_are_forgotten() -> None:
    query = sql.query

    def without_sharing(name: str) -> Any:
        return query(name).replace("r.saga = old.saga", "false") if name == "forget_superseded" else query(name)

    plug(documents, "query", without_sharing)


def blocks_are_kept_whatever_follows() -> None:
    def known(cutting: Any, start: int, index: int) -> int:
        count = 0
        for block in cutting._old[index:]:
            if blocks.text_digest(cutting._text.get(start, start + block.length)) != block.digest:
                break
            count, start = count + 1, start + block.length
        return count

    plug(recut._Recutting, "_known", known)  # pyright: ignore[reportPrivateUsage]


def principals_filter_nothing() -> None:
    plug(access.Restriction, "predicate", property(answering(None)))


def catalog_allows_everything() -> None:
    plug(access.Restriction, "allows", answering(True))


def changed_columns_keep_their_saga() -> None:
    new_values = column_changes.NewValues

    def without_saga(columns: Any, documents: Any, _: UUID, chunks: Any) -> column_changes.NewValues:
        return new_values(columns, documents, chunks=chunks)

    plug(column_changes, "NewValues", without_saga)


def limit_of_the_model_ignored() -> None:
    plug(ModelInput, "fits", answering(True))


def header_missing_in_the_hash() -> None:
    def of_text_alone(embedded: str) -> UUID:
        header, line, text = embedded.partition("\n\n")
        return text_hash(text if line else header)

    plug(vectors, "text_hash", of_text_alone)


def prompt_missing_in_the_identity() -> None:
    def without_prompt(model: str, dimensions: int, _: str = "") -> str:
        return f"{model}/{dimensions}"

    plug(types, "join_embedding", without_prompt)
    plug(base, "join_embedding", without_prompt)


def places_are_not_audited() -> None:
    hashes = fingerprints.row_hashes

    def without_places(texts: Any, *numbers: Any) -> Any:
        return hashes(texts[:3], *numbers[:3])

    plug(fingerprints, "row_hashes", without_places)
    plug(audit_rows, "row_hashes", without_places)


def column_values_are_not_audited() -> None:
    plug(column_audit.ColumnAudit, "add", answering(None))


def chunk_values_are_not_audited() -> None:
    plug(column_audit.ColumnAudit, "differing", answering(set[int]()))


def changes_of_sidecars_go_unnoticed() -> None:
    tag = declaration.Columns.tag

    def without_sidecar(columns: declaration.Columns, _: str | None, modified: datetime | None) -> str:
        return tag(columns, None, modified)

    plug(declaration.Columns, "tag", without_sidecar)


def any_declaration_is_taken() -> None:
    plug(declaration.Columns, "losses", answering([]))


def questions_are_sent_as_documents() -> None:
    prompt = base.EmbeddingSettings.prompt

    def of_documents(settings: base.EmbeddingSettings, _: str) -> Any:
        return prompt(settings, "document")

    plug(base.EmbeddingSettings, "prompt", of_documents)


def prompts_are_not_sent() -> None:
    plug(base.EmbeddingSettings, "prompt", answering(NO_PROMPT))


def a_divided_chunk_loses_its_rest() -> None:
    chunks = sections.Sections.chunks

    def first_half(found: sections.Sections, begin: int, text: str, *values: Any) -> Any:
        return itertools.islice(chunks(found, begin, text, *values), 1)

    plug(sections.Sections, "chunks", first_half)


def no_principals_find_everything() -> None:
    restricted = access.restriction

    def fail_open(corpus: str, recorded: Any, columns: Any, principals: Any) -> access.Restriction:
        if principals is None:
            return access.Restriction(None, frozenset())
        return restricted(corpus, recorded, columns, principals)

    plug(search, "restriction", fail_open)


def demanded_principals_are_optional() -> None:
    restricted = access.restriction

    def optional(corpus: str, recorded: Any, columns: Any, principals: Any) -> access.Restriction:
        return restricted(corpus, replace(recorded, required=False), columns, principals)

    plug(search, "restriction", optional)


def other_chunks_keep_their_rows() -> None:
    plug(reread, "_are_the_same", answering(True))


_COLUMNS = "tests/integration/columns/"
_EDITS = "tests/integration/preparation/test_large_edits.py::"
_PROMPTS = "tests/unit/embedding/test_openai.py::test_questions_and_documents_are_sent_with_their_own_prompts"
_SECTIONS = "tests/integration/search/test_sections.py::"

MUTANTS = {
    "limit of the model ignored": Mutant(
        limit_of_the_model_ignored,
        "tests/unit/chunking/test_model_input.py::test_no_text_that_is_sent_exceeds_the_limit",
    ),
    "a divided chunk loses its rest": Mutant(
        a_divided_chunk_loses_its_rest,
        "tests/unit/chunking/test_model_input.py::test_no_text_that_is_sent_exceeds_the_limit",
    ),
    "questions are sent as documents": Mutant(questions_are_sent_as_documents, _PROMPTS),
    "prompts are not sent": Mutant(prompts_are_not_sent, _PROMPTS),
    "no principals find everything": Mutant(
        no_principals_find_everything,
        f"{_COLUMNS}test_access.py::test_a_search_finds_what_one_of_its_principals_may_find",
    ),
    "demanded principals are optional": Mutant(
        demanded_principals_are_optional, f"{_COLUMNS}test_access.py::test_a_corpus_may_demand_principals"
    ),
    "other chunks keep their rows": Mutant(
        other_chunks_keep_their_rows,
        f"{_COLUMNS}test_with_other_parts.py::"
        "test_a_parser_that_returns_another_text_than_at_head_has_its_document_ingested_again",
    ),
    "header missing in the hash": Mutant(
        header_missing_in_the_hash,
        f"{_SECTIONS}test_a_changed_heading_embeds_its_section_again_and_nothing_else",
    ),
    "prompt missing in the identity": Mutant(
        prompt_missing_in_the_identity,
        "tests/integration/preparation/test_pay_once.py::"
        "test_vectors_of_another_model_or_width_or_prompt_are_never_used",
    ),
    "headings are not audited": Mutant(
        places_are_not_audited,
        f"{_SECTIONS}test_a_place_that_differs_between_the_stores_is_a_violation[another heading]",
    ),
    "pages are not audited": Mutant(
        places_are_not_audited,
        f"{_SECTIONS}test_a_place_that_differs_between_the_stores_is_a_violation[another page]",
    ),
    "principals filter nothing": Mutant(
        principals_filter_nothing,
        f"{_COLUMNS}test_access.py::test_a_forbidden_document_takes_no_place_in_a_ranking",
    ),
    "catalog allows everything": Mutant(
        catalog_allows_everything,
        f"{_COLUMNS}test_access.py::test_what_the_catalog_does_not_allow_is_not_found_whatever_the_table_says",
    ),
    "column values are not audited": Mutant(
        column_values_are_not_audited,
        f"{_COLUMNS}test_access.py::test_what_the_catalog_does_not_allow_is_not_found_whatever_the_table_says",
    ),
    "changes of sidecars go unnoticed": Mutant(
        changes_of_sidecars_go_unnoticed,
        f"{_COLUMNS}test_columns.py::test_a_change_of_the_sidecar_alone_embeds_nothing_and_moves_no_row",
    ),
    "any declaration of columns is taken": Mutant(
        any_declaration_is_taken,
        f"{_COLUMNS}test_column_guard.py::"
        "test_a_declaration_that_only_adds_needs_no_confirmation_and_is_not_taken_back",
    ),
    "moved rows keep their places": Mutant(
        moved_rows_keep_their_places, f"{_EDITS}test_rows_after_edits_are_those_of_a_whole_ingest"
    ),
    "moved fragments are not compared": Mutant(
        moved_fragments_are_not_compared,
        "tests/faults/deaths/test_edits.py::test_rows_that_a_compaction_moves_under_an_edit_are_planned_again",
    ),
    "shared chunk rows are forgotten": Mutant(
        shared_chunk_rows_are_forgotten, f"{_EDITS}test_rows_that_a_later_edit_shares_stay_as_long_as_it_does"
    ),
    "blocks are kept whatever follows": Mutant(
        blocks_are_kept_whatever_follows,
        "tests/unit/chunking/test_recut.py::test_a_block_is_cut_again_if_what_follows_decides_where_it_ends",
    ),
    "changed columns keep their saga": Mutant(
        changed_columns_keep_their_saga,
        f"{_COLUMNS}test_columns.py::test_a_change_of_the_sidecar_alone_embeds_nothing_and_moves_no_row",
    ),
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
    "sweep takes staged files": Mutant(
        sweep_takes_staged_files, f"{_SWEEP}test_files_of_ended_sagas_are_swept_and_files_of_live_ones_stay"
    ),
    "sweep takes half-written files": Mutant(
        sweep_takes_half_written_files, f"{_SWEEP}test_a_half_written_file_stays_while_a_saga_is_live"
    ),
    "compaction over a changed fragment": Mutant(
        compaction_over_a_changed_fragment, f"{_MAINTENANCE}test_a_group_that_changed_meanwhile_is_skipped"
    ),
    "rollback forgets the catalog": Mutant(
        rollback_forgets_the_catalog,
        "tests/integration/saga/test_rollback.py::test_the_whole_corpus_is_as_it_was_in_both_stores_at_no_cost",
    ),
    "rollback forgets the hold": Mutant(
        rollback_forgets_the_hold,
        "tests/integration/saga/test_rollback.py::test_a_rolled_back_document_is_not_ingested_again",
    ),
    "waits without end": Mutant(
        waits_without_end,
        "tests/integration/postgres/test_database.py::test_no_transaction_may_wait_idle_or_work_without_end",
    ),
    "retention forgets live sagas": Mutant(
        retention_forgets_live_sagas,
        "tests/integration/maintenance/test_retention.py::test_the_base_version_of_a_live_saga_is_retained_until_it_ends",
    ),
    "retention forgets pins": Mutant(
        retention_forgets_pins,
        "tests/acceptance/dagster/head/test_inputs.py::test_retention_keeps_the_version_that_a_run_reads",
    ),
    "runs are not pinned": Mutant(
        runs_are_not_pinned,
        "tests/acceptance/dagster/head/test_inputs.py::test_two_inputs_of_one_run_see_one_head[after the corpus]",
    ),
    "index covers what is covered": Mutant(
        index_covers_what_is_covered, f"{_MAINTENANCE}test_two_concurrent_index_updates_do_not_cover_a_row_twice"
    ),
    "vectors in order of arrival": Mutant(
        vectors_in_order_of_arrival,
        "tests/faults/concurrency/test_concurrency.py::test_vectors_that_arrive_out_of_order_are_sorted",
    ),
}


def server_with_our_environment() -> None:
    def everything(data: int | None = None) -> dict[str, str]:
        return {**os.environ, "PGDATA": f"/proc/self/fd/{data}"}

    plug(server, "server_environment", everything)


def a_reboot_goes_unseen() -> None:
    plug(processes, "_boot", answering(""))


MUTANTS.update(
    {
        "server with our environment": Mutant(
            server_with_our_environment,
            "tests/integration/postgres/test_embedded_postgres.py::"
            "test_the_server_has_none_of_our_secrets_and_its_role_cannot_read_files",
        ),
        "a reboot goes unseen": Mutant(
            a_reboot_goes_unseen,
            "tests/unit/test_processes.py::test_a_process_from_before_the_last_boot_is_dead",
        ),
        "guard of the recipe off": Mutant(
            recipe_guard_off,
            "tests/integration/ingestion/test_recipe_guard.py::"
            "test_a_changed_setting_withholds_documents_that_differ_by_it_alone_and_shows_the_cost",
        ),
    }
)

_IDENTITY = "tests/integration/corpus/test_table_identity.py::"

MUTANTS.update(
    {
        "unknown saga undone": Mutant(
            unknown_saga_undone,
            f"{_IDENTITY}test_a_database_set_back_in_place_undoes_nothing_that_was_published_since",
        ),
        "sweep takes unknown files": Mutant(
            sweep_takes_unknown_files,
            f"{_IDENTITY}test_files_of_unknown_sagas_are_kept_and_reported",
        ),
        "no generation check": Mutant(
            no_generation_check,
            "tests/faults/deaths/test_reembed.py::test_an_active_writer_on_the_old_generation_gets_an_error",
        ),
        "no comparison at the switch": Mutant(
            no_comparison_at_the_switch,
            "tests/integration/ingestion/test_reembed.py::test_publications_during_the_comparison_of_generations_are_included",
        ),
        "no time of change": Mutant(
            no_time_of_change,
            "tests/integration/ingestion/test_ingest.py::test_an_edit_that_keeps_size_and_time_is_published",
        ),
        "racily clean files are trusted": Mutant(
            racily_clean_files_are_trusted,
            "tests/unit/sources/test_object_store.py::test_an_edit_within_one_step_of_the_clock_in_which_the_file_was_read_is_seen",
        ),
        "fence of fixed length": Mutant(
            fence_of_fixed_length,
            "tests/unit/assets/test_markdown.py::test_a_text_of_backticks_does_not_leave_its_code_block[4]",
        ),
        "outage taken for damage": Mutant(
            outage_taken_for_damage,
            "tests/integration/lance/test_damage.py::test_a_missing_object_is_damage_and_a_store_that_is_down_is_not",
        ),
        "any copy is taken for the table": Mutant(
            any_copy_is_the_table,
            "tests/integration/restore/test_relocate.py::test_a_copy_that_is_older_than_head_is_refused",
        ),
        "writers keep their settings": Mutant(
            writers_keep_their_settings,
            "tests/integration/corpus/test_corpus.py::"
            "test_a_writer_that_began_before_the_settings_changed_publishes_nothing",
        ),
        "drop of any table": Mutant(
            drop_of_any_table,
            "tests/integration/maintenance/test_drop.py::test_a_copy_of_the_database_deletes_no_table",
        ),
        "Dagster's tables anywhere": Mutant(
            dagsters_tables_anywhere,
            "tests/integration/reporting/test_dagster_schema.py::test_dagsters_tables_do_not_touch_those_of_an_application",
        ),
        "no flush": Mutant(
            no_flush, "tests/faults/stores/test_power_cut.py::test_a_confirmed_publication_survives_a_power_cut"
        ),
        "no flush of folders": Mutant(no_flush_of_folders, f"{_POWER_CUTS}[an_ingestion]"),
        "no flush of manifests": Mutant(no_flush_of_manifests, f"{_POWER_CUTS}[a_reembedding]"),
        "copies are taken for flushed": Mutant(copies_are_taken_for_flushed, f"{_POWER_CUTS}[a_relocation]"),
        "commits as the server says": Mutant(
            commits_as_the_server_says,
            "tests/integration/postgres/test_durability.py::"
            "test_every_transaction_commits_on_disk_whatever_the_server_says[off-on]",
        ),
        "any server is durable": Mutant(
            any_server_is_durable,
            "tests/integration/postgres/test_durability.py::test_a_server_that_can_forget_what_it_confirmed_is_refused",
        ),
        "any store is trusted": Mutant(
            any_store_is_trusted,
            "tests/integration/lance/test_store_check.py::test_a_store_that_ignores_the_condition_gets_no_table",
        ),
        "no model check": Mutant(
            no_model_check,
            "tests/integration/ingestion/test_reembed.py::test_another_model_in_the_settings_changes_nothing_by_itself",
        ),
    }
)


def apply_from_environment() -> None:
    """Become the mutant that ``MUTANT`` names, if the variable is set."""
    name = os.environ.get("MUTANT")
    if name:
        MUTANTS[name].apply()


def no_check_of_spans() -> None:
    plug(user_chunker_role, "_check", answering(None))


def no_check_of_user_vectors() -> None:
    plug(user_embedder_role, "_unusable", answering({}))


def no_record_of_results() -> None:
    plug(extension_results, "record_result", answering(None))


def results_used_before_they_are_recorded() -> None:
    record, unplugged = ExtensionCalls._record, lifecycle.publish  # pyright: ignore[reportPrivateUsage]
    late: list[Callable[[], None]] = []

    def record_later(calls: ExtensionCalls, *values: Any) -> None:
        late.append(partial(record, calls, *values))

    def record_then_publish(corpus: Corpus, saga: UUID, rows: Any) -> int:
        while late:
            late.pop()()
        return unplugged(corpus, saga, rows)

    plug(ExtensionCalls, "_record", record_later)
    plug(lifecycle, "publish", record_then_publish)


def usage_of_enrichers_forgotten() -> None:
    plug(extension_results, "count_usage", answering(None))


def plans_call_enrichers() -> None:
    plug(ExtensionCalls, "enriches", True)


def user_parsers_not_confined() -> None:
    def introduction(name: str, role: str, extension: bytes, _: object) -> Introduction:
        return Introduction(name, role, extension, is_confined=False)

    plug(extension_pool, "Introduction", introduction)


def chunk_results_are_not_recorded() -> None:
    plug(extension_results, "record_chunk_results", answering(None))


MUTANTS.update(
    {
        "results of chunks are not recorded": Mutant(
            chunk_results_are_not_recorded,
            f"{_COLUMNS}test_chunk_columns.py::"
            "test_values_follow_a_chunk_that_an_edit_moves_and_only_a_new_chunk_is_billed",
        ),
        "values of chunks are not audited": Mutant(
            chunk_values_are_not_audited,
            f"{_COLUMNS}test_chunk_columns.py::test_values_that_are_exchanged_between_two_chunks_are_found",
        ),
        "no check of spans": Mutant(
            no_check_of_spans,
            "tests/unit/chunking/test_user_chunker.py::test_what_the_child_sends_is_checked_in_the_parent_too",
        ),
        "no check of the vectors of a user's embedder": Mutant(
            no_check_of_user_vectors,
            "tests/integration/preparation/test_user_embedder.py::"
            "test_a_text_with_which_it_fails_fails_its_document_alone[nan-not finite]",
        ),
        "no record of results": Mutant(
            no_record_of_results,
            "tests/integration/preparation/test_user_code.py::"
            "test_a_durable_result_is_paid_once_whatever_becomes_of_the_document",
        ),
        "results used before they are recorded": Mutant(
            results_used_before_they_are_recorded,
            "tests/faults/deaths/test_user_code.py::"
            "test_a_death_pays_at_most_for_the_call_that_was_in_progress[before_batch_sent_1]",
        ),
        "usage of enrichers forgotten": Mutant(
            usage_of_enrichers_forgotten,
            "tests/integration/preparation/test_enricher_costs.py::"
            "test_a_death_counts_a_recorded_cost_once[before_batch_sent_1]",
        ),
        "plans call enrichers": Mutant(
            plans_call_enrichers,
            "tests/integration/preparation/test_user_code_misbehaves.py::test_an_exact_plan_calls_no_enricher",
        ),
        "own parsers not confined": Mutant(
            user_parsers_not_confined,
            "tests/unit/parsing/test_user_parsers.py::test_a_parser_of_the_user_has_no_network_and_starts_no_process[os.fork()]",
        ),
    }
)


def unchanged_runs_materialize_head() -> None:
    plug(head, "reported_version", answering(None))


def head_is_reported_before_the_publication() -> None:
    expect = RunReport.expect

    def expect_and_report(report: RunReport, plans: Any) -> None:
        expect(report, plans)
        report.head()

    def head_of_nothing(_: object, __: object, ___: object, log: Callable[[object], None], **____: object) -> bool:
        log(dg.AssetMaterialization(dg.AssetKey(["docs", "head"]), tags={"dagster/data_version": "docs@2"}))
        return True

    plug(RunReport, "expect", expect_and_report)
    plug(run_report, "report_head", head_of_nothing)


def a_silent_change_is_not_reported() -> None:
    plug(sensors, "report_silent_change", answering(value=False))


def the_step_yields_no_outputs() -> None:
    plug(ingest_step, "outputs", answering(()))


def stray_partitions_stay() -> None:
    plug(sensors, "drop_stray_partitions", answering([]))


_HEAD = "tests/acceptance/dagster/head/test_head.py::"

MUTANTS.update(
    {
        "unchanged runs materialize head": Mutant(
            unchanged_runs_materialize_head,
            f"{_HEAD}test_an_unchanged_run_starts_nothing_after_it_and_leaves_head_alone",
        ),
        "head is reported before the publication": Mutant(
            head_is_reported_before_the_publication,
            f"{_HEAD}test_a_run_that_publishes_nothing_does_not_move_head",
        ),
        "a silent change is not reported": Mutant(
            a_silent_change_is_not_reported,
            f"{_HEAD}test_a_head_that_moved_without_a_run_is_reported_by_the_recovery_sensor",
        ),
        "the step yields no outputs": Mutant(
            the_step_yields_no_outputs,
            f"{_HEAD}test_one_run_materializes_the_corpus_and_what_depends_on_it[all that differs]",
        ),
        "stray partitions stay": Mutant(
            stray_partitions_stay,
            "tests/acceptance/dagster/head/test_partitions_follow_head.py::"
            "test_the_partition_of_a_file_that_was_never_published_goes_with_the_file",
        ),
    }
)


def pointer_recorded_before_the_file_is_durable() -> None:
    spool_answers = EmbeddingRequests._spool  # pyright: ignore[reportPrivateUsage]
    record = EmbeddingRequests._record  # pyright: ignore[reportPrivateUsage]

    def checksum_alone(_: EmbeddingRequests, __: int, completed: Any) -> bytes:
        content = b"".join(batch.vectors.tobytes() for batch in completed)
        return hashlib.sha256(content).digest()

    def record_then_spool(
        requests: EmbeddingRequests, ordinal: int, completed: Any, failed: Any, **values: Any
    ) -> None:
        record(requests, ordinal, completed, failed, **values)
        if completed:
            spool_answers(requests, ordinal, completed)

    plug(EmbeddingRequests, "_spool", checksum_alone)
    plug(EmbeddingRequests, "_record", record_then_spool)


def spool_files_are_not_flushed() -> None:
    def write(_: object, path: Path, contents: Any) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"".join(contents))

    plug(spool, "write_durably", write)


def checksum_is_not_verified() -> None:
    plug(spool, "is_intact", answering(value=True))


def sweep_ignores_running_sagas() -> None:
    is_orphan = sweep._is_orphan  # pyright: ignore[reportPrivateUsage]

    def of_any_saga(name: str, live: set[UUID], ended: set[UUID]) -> bool:
        return is_orphan(name, set(), live | ended)

    plug(sweep, "_is_orphan", of_any_saga)


def sweep_takes_no_lock_on_sagas() -> None:
    plug(embedding_cache, "lock_batches", answering(set[int]()))


def swept_files_are_not_written_again() -> None:
    record = embedding_cache.record_batch

    def record_alone(*arguments: Any, **options: Any) -> bool:
        record(*arguments, **options)
        return False

    plug(embedding_cache, "record_batch", record_alone)


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


_ERASE = "tests/integration/erasure/test_erase.py::"
_ERASURES = "tests/faults/deaths/test_erasures.py::"
_ERASE_IN_DAGSTER = "tests/acceptance/dagster/runs/test_erase.py::test_grep_and_pg_dump_find_nothing_after_the_job"

MUTANTS.update(
    {
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
)

_SPOOL = "tests/integration/preparation/test_spool.py::"

MUTANTS.update(
    {
        "pointer recorded before the spool file is durable": Mutant(
            pointer_recorded_before_the_file_is_durable,
            "tests/faults/deaths/test_crash.py::test_a_replacement_may_die_anywhere[before_batch_spooled_1-run_again]",
        ),
        "spool files are not flushed": Mutant(
            spool_files_are_not_flushed,
            "tests/faults/stores/test_power_cut.py::"
            "test_every_file_of_a_publication_is_flushed_with_its_folder_before_postgres_commits",
        ),
        "checksum not verified": Mutant(
            checksum_is_not_verified,
            f"{_SPOOL}test_the_texts_of_a_lost_file_are_embedded_again_and_no_others[altered]",
        ),
        "sweep ignores running sagas": Mutant(
            sweep_ignores_running_sagas,
            f"{_SPOOL}test_a_sweep_keeps_the_files_of_running_sagas_and_those_that_have_rows",
        ),
        "sweep takes no lock on sagas": Mutant(
            sweep_takes_no_lock_on_sagas, f"{_SPOOL}test_a_file_that_is_recorded_while_a_sweep_decides_stays"
        ),
        "swept files are not written again": Mutant(
            swept_files_are_not_written_again,
            f"{_SPOOL}test_a_writer_whose_file_was_swept_before_its_row_records_it_all_the_same",
        ),
    }
)


def share_of_a_dead_worker_is_forgotten() -> None:
    plug(worker_pool.WorkerPool, "_left", answering(list[Any]()))


MUTANTS["the share of a dead worker is forgotten"] = Mutant(
    share_of_a_dead_worker_is_forgotten,
    "tests/integration/ingestion/test_workers.py::"
    "test_the_share_of_a_killed_worker_is_done_by_the_other_and_nothing_is_embedded_again",
)


def notices_are_deleted_on_receipt() -> None:
    receive = queue.EventQueue.receive

    def receive_and_delete(self: queue.EventQueue, wait_seconds: int) -> list[queue.Message]:
        found = receive(self, wait_seconds)
        self.delete(found)
        return found

    plug(queue.EventQueue, "receive", receive_and_delete)


def small_removals_are_not_added_up() -> None:
    plug(documents, "count_removed", answering(0))


_NOTICES = "tests/integration/events/test_noticed_documents.py::"

MUTANTS.update(
    {
        "notices deleted on receipt": Mutant(
            notices_are_deleted_on_receipt,
            f"{_NOTICES}test_a_reader_that_dies_anywhere_loses_no_notice[manifest installed-before]",
        ),
        "small removals not added up": Mutant(
            small_removals_are_not_added_up, f"{_NOTICES}test_most_of_the_corpus_is_not_removed_piece_by_piece"
        ),
    }
)


def gates_let_everything_pass() -> None:
    plug(judge.Judgement, "passed", property(answering(value=True)))


def recovery_ends_blocked_publications() -> None:
    query = sql.query

    def of_any_state(name: str) -> Any:
        return query(name).replace("('preparing', 'prepared')", "('preparing', 'prepared', 'blocked')")

    plug(sagas, "query", of_any_state)


def blocked_documents_are_planned_again() -> None:
    plug(DocumentPlan, "is_blocked", answering(value=False))


def sweep_takes_files_of_blocked_publications() -> None:
    plug(sweep, "gates", SimpleNamespace(blocked_sagas=answering(set[UUID]())))


def nothing_is_overtaken() -> None:
    plug(gates, "overtake", answering(list[UUID]()))


def blocked_whatever_was_published_meanwhile() -> None:
    plug(blocked, "documents", SimpleNamespace(conflicting_documents=answering(list[str]())))


_GATES = "tests/integration/gates/test_blocked.py::"

MUTANTS.update(
    {
        "gates let everything pass": Mutant(
            gates_let_everything_pass, f"{_GATES}test_it_is_kept_with_its_findings_and_no_reader_sees_it"
        ),
        "recovery ends blocked publications": Mutant(
            recovery_ends_blocked_publications, f"{_GATES}test_it_is_kept_with_its_findings_and_no_reader_sees_it"
        ),
        "blocked documents are planned again": Mutant(
            blocked_documents_are_planned_again, f"{_GATES}test_runs_and_sensors_skip_it_until_a_document_changes"
        ),
        "sweep takes files of blocked publications": Mutant(
            sweep_takes_files_of_blocked_publications,
            f"{_GATES}test_a_release_publishes_what_was_judged_and_embeds_nothing",
        ),
        "nothing is overtaken": Mutant(
            nothing_is_overtaken, f"{_GATES}test_the_next_good_publication_of_a_document_overtakes_it"
        ),
        "blocked whatever was published meanwhile": Mutant(
            blocked_whatever_was_published_meanwhile,
            f"{_GATES}test_a_zombie_that_wakes_after_its_judgement_is_fenced_and_plans_again[True]",
        ),
    }
)
