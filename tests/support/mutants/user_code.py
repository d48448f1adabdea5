"""Chunkers, parsers, enrichers and embedders of the user."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from ingest_pipeline.chunking import user_chunker_role
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.embedding import user_embedder_role
from ingest_pipeline.extensions import pool as extension_pool
from ingest_pipeline.extensions.protocol import Introduction
from ingest_pipeline.postgres.ledger import extension_results
from ingest_pipeline.preparation.reading.extension_calls import ExtensionCalls
from ingest_pipeline.saga import lifecycle
from tests.support.mutants.mutant import Mutant, answering, plug

_COLUMNS = "tests/integration/columns/"


def no_check_of_spans() -> None:
    plug(user_chunker_role, "_check", answering(None))


def no_check_of_user_vectors() -> None:
    plug(user_embedder_role, "_unusable", answering({}))


def no_record_of_results() -> None:
    plug(extension_results, "record_result", answering(None))


def chunk_results_are_not_recorded() -> None:
    plug(extension_results, "record_chunk_results", answering(None))


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


MUTANTS = {
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
    "results of chunks are not recorded": Mutant(
        chunk_results_are_not_recorded,
        f"{_COLUMNS}test_chunk_columns.py::"
        "test_values_follow_a_chunk_that_an_edit_moves_and_only_a_new_chunk_is_billed",
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
