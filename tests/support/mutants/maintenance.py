"""What sweep, compaction, indexing and retention leave in place."""

from __future__ import annotations

from typing import Any
from unittest import mock
from uuid import UUID

from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.maintenance import sweep
from ingest_pipeline.postgres import sql
from ingest_pipeline.postgres.catalog import corpora, history, pins
from ingest_pipeline.postgres.ledger import sagas
from tests.support.mutants.mutant import Mutant, answering, plug

_MAINTENANCE = "tests/integration/maintenance/test_maintain.py::"
_SWEEP = "tests/integration/maintenance/test_sweep.py::"


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


MUTANTS = {
    "sweep takes staged files": Mutant(
        sweep_takes_staged_files, f"{_SWEEP}test_files_of_ended_sagas_are_swept_and_files_of_live_ones_stay"
    ),
    "sweep takes half-written files": Mutant(
        sweep_takes_half_written_files, f"{_SWEEP}test_a_half_written_file_stays_while_a_saga_is_live"
    ),
    "compaction over a changed fragment": Mutant(
        compaction_over_a_changed_fragment, f"{_MAINTENANCE}test_a_group_that_changed_meanwhile_is_skipped"
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
}
