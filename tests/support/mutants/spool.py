"""Files of vectors that were embedded and are not published yet."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from uuid import UUID

from ingest_pipeline.lance.files import spool
from ingest_pipeline.maintenance import sweep
from ingest_pipeline.postgres.ledger import embedding_cache
from ingest_pipeline.preparation.vectors.requests import EmbeddingRequests
from tests.support.mutants.mutant import Mutant, answering, plug

_SPOOL = "tests/integration/preparation/test_spool.py::"


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


MUTANTS = {
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
