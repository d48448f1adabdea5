"""Columns of the user, and searches that their values restrict."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from ingest_pipeline.columns import declaration
from ingest_pipeline.ingestion.columns import column_changes, reread
from ingest_pipeline.lance.checks import column_audit
from ingest_pipeline.search import access, search
from tests.support.mutants.mutant import Mutant, answering, plug

_COLUMNS = "tests/integration/columns/"


def principals_filter_nothing() -> None:
    plug(access.Restriction, "predicate", property(answering(None)))


def catalog_allows_everything() -> None:
    plug(access.Restriction, "allows", answering(True))


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


def changed_columns_keep_their_saga() -> None:
    new_values = column_changes.NewValues

    def without_saga(columns: Any, documents: Any, _: UUID, chunks: Any) -> column_changes.NewValues:
        return new_values(columns, documents, chunks=chunks)

    plug(column_changes, "NewValues", without_saga)


def other_chunks_keep_their_rows() -> None:
    plug(reread, "_are_the_same", answering(True))


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


MUTANTS = {
    "principals filter nothing": Mutant(
        principals_filter_nothing,
        f"{_COLUMNS}test_access.py::test_a_forbidden_document_takes_no_place_in_a_ranking",
    ),
    "catalog allows everything": Mutant(
        catalog_allows_everything,
        f"{_COLUMNS}test_access.py::test_what_the_catalog_does_not_allow_is_not_found_whatever_the_table_says",
    ),
    "no principals find everything": Mutant(
        no_principals_find_everything,
        f"{_COLUMNS}test_access.py::test_a_search_finds_what_one_of_its_principals_may_find",
    ),
    "demanded principals are optional": Mutant(
        demanded_principals_are_optional, f"{_COLUMNS}test_access.py::test_a_corpus_may_demand_principals"
    ),
    "changed columns keep their saga": Mutant(
        changed_columns_keep_their_saga,
        f"{_COLUMNS}test_columns.py::test_a_change_of_the_sidecar_alone_embeds_nothing_and_moves_no_row",
    ),
    "other chunks keep their rows": Mutant(
        other_chunks_keep_their_rows,
        f"{_COLUMNS}test_with_other_parts.py::"
        "test_a_parser_that_returns_another_text_than_at_head_has_its_document_ingested_again",
    ),
    "column values are not audited": Mutant(
        column_values_are_not_audited,
        f"{_COLUMNS}test_access.py::test_what_the_catalog_does_not_allow_is_not_found_whatever_the_table_says",
    ),
    "values of chunks are not audited": Mutant(
        chunk_values_are_not_audited,
        f"{_COLUMNS}test_chunk_columns.py::test_values_that_are_exchanged_between_two_chunks_are_found",
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
}
