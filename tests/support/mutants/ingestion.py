"""What an ingestion compares, removes, reads and shares among its workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

from ingest_pipeline.chunking.cut_texts import CutText, WholeText
from ingest_pipeline.chunking.worker_pool import TextCutter
from ingest_pipeline.embedding import openai
from ingest_pipeline.events import queue
from ingest_pipeline.ingestion import recipe_guard
from ingest_pipeline.ingestion.workers import pool as worker_pool
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.sources import local, local_files
from tests.support.mutants.mutant import Mutant, answering, plug

_CHUNKING = "tests/integration/preparation/test_chunking_process.py::"
_NOTICES = "tests/integration/events/test_noticed_documents.py::"


def no_time_of_change() -> None:
    def etag(found: os.stat_result) -> str:
        return f"{found.st_ino:x}-{found.st_mtime_ns:x}-0-{found.st_size:x}"

    plug(local_files, "etag_of", etag)


def racily_clean_files_are_trusted() -> None:
    plug(local, "wait_for_next_clock_step", answering(None))


def recipe_guard_off() -> None:
    plug(recipe_guard, "_is_withheld", answering(value=False))


def vectors_in_order_of_arrival() -> None:
    read = cast("Callable[..., object]", openai.read_answer)

    def read_unsorted(body: Any, count: int, dimensions: int) -> object:
        with suppress(TypeError, KeyError):
            body = {**body, "data": [{**item, "index": place} for place, item in enumerate(body["data"])]}
        return read(body, count, dimensions)

    plug(openai, "read_answer", read_unsorted)


def texts_of_the_chunking_process_are_mixed_up() -> None:
    cut = TextCutter.cut

    def mixed_up(self: TextCutter, documents: Sequence[WholeText]) -> Sequence[CutText | None]:
        return cut(self, documents)[::-1]

    plug(TextCutter, "cut", mixed_up)


def documents_of_a_dead_chunking_process_are_empty() -> None:
    cut = TextCutter.cut

    def cut_or_empty(self: TextCutter, documents: Sequence[WholeText]) -> Sequence[CutText | None]:
        return [text or CutText(0, [], None, 0.0) for text in cut(self, documents)]

    plug(TextCutter, "cut", cut_or_empty)


def share_of_a_dead_worker_is_forgotten() -> None:
    plug(worker_pool.WorkerPool, "_left", answering(list[Any]()))


def notices_are_deleted_on_receipt() -> None:
    receive = queue.EventQueue.receive

    def receive_and_delete(self: queue.EventQueue, wait_seconds: int) -> list[queue.Message]:
        found = receive(self, wait_seconds)
        self.delete(found)
        return found

    plug(queue.EventQueue, "receive", receive_and_delete)


def small_removals_are_not_added_up() -> None:
    plug(documents, "count_removed", answering(0))


MUTANTS = {
    "no time of change": Mutant(
        no_time_of_change,
        "tests/integration/ingestion/test_ingest.py::test_an_edit_that_keeps_size_and_time_is_published",
    ),
    "racily clean files are trusted": Mutant(
        racily_clean_files_are_trusted,
        "tests/unit/sources/test_local_changes.py::test_an_edit_within_one_step_of_the_clock_in_which_the_file_was_read_is_seen",
    ),
    "guard of the recipe off": Mutant(
        recipe_guard_off,
        "tests/integration/ingestion/test_recipe_guard.py::"
        "test_a_changed_setting_withholds_documents_that_differ_by_it_alone_and_shows_the_cost",
    ),
    "vectors in order of arrival": Mutant(
        vectors_in_order_of_arrival,
        "tests/faults/concurrency/test_concurrency.py::test_vectors_that_arrive_out_of_order_are_sorted",
    ),
    "texts of the chunking process mixed up": Mutant(
        texts_of_the_chunking_process_are_mixed_up,
        f"{_CHUNKING}test_rows_and_errors_are_those_of_an_ingest_without_it",
    ),
    "documents of a dead chunking process are empty": Mutant(
        documents_of_a_dead_chunking_process_are_empty,
        f"{_CHUNKING}test_chunking_processes_that_die_take_no_document_with_them",
    ),
    "the share of a dead worker is forgotten": Mutant(
        share_of_a_dead_worker_is_forgotten,
        "tests/integration/ingestion/test_workers.py::"
        "test_the_share_of_a_killed_worker_is_done_by_the_other_and_nothing_is_embedded_again",
    ),
    "notices deleted on receipt": Mutant(
        notices_are_deleted_on_receipt,
        f"{_NOTICES}test_a_reader_that_dies_anywhere_loses_no_notice[manifest installed-before]",
    ),
    "small removals not added up": Mutant(
        small_removals_are_not_added_up, f"{_NOTICES}test_most_of_the_corpus_is_not_removed_piece_by_piece"
    ),
}
