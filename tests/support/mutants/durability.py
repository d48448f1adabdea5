"""What must be on the disk before it is confirmed, and what a server or store may not do to it."""

from __future__ import annotations

import os
from pathlib import Path

from ingest_pipeline import processes
from ingest_pipeline.lance import table_reader
from ingest_pipeline.lance.checks import damage
from ingest_pipeline.lance.files import flush
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.lance.versions import store_check
from ingest_pipeline.postgres import database, durability, sql
from ingest_pipeline.postgres.embedded import server
from tests.support.mutants.mutant import Mutant, answering, plug

_POWER_CUTS = (
    "tests/faults/stores/test_power_cuts_of_sagas.py::"
    "test_a_disk_that_keeps_only_what_was_flushed_has_all_that_was_confirmed"
)


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


def waits_without_end() -> None:
    query = sql.query

    def without_limits(name: str) -> str:
        return "SELECT 1" if name == "limit_waiting" else query(name)

    plug(durability, "query", without_limits)


def outage_taken_for_damage() -> None:
    plug(table_reader, "may_be_damage", answering(value=True))
    plug(damage, "_decoding", answering("could not be fetched"))


def server_with_our_environment() -> None:
    def everything(data: int | None = None) -> dict[str, str]:
        return {**os.environ, "PGDATA": f"/proc/self/fd/{data}"}

    plug(server, "server_environment", everything)


def a_reboot_goes_unseen() -> None:
    plug(processes, "_boot", answering(""))


MUTANTS = {
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
    "waits without end": Mutant(
        waits_without_end,
        "tests/integration/postgres/test_database.py::test_no_transaction_may_wait_idle_or_work_without_end",
    ),
    "outage taken for damage": Mutant(
        outage_taken_for_damage,
        "tests/integration/lance/test_damage.py::test_a_missing_object_is_damage_and_a_store_that_is_down_is_not",
    ),
    "server with our environment": Mutant(
        server_with_our_environment,
        "tests/integration/postgres/test_embedded_postgres.py::"
        "test_the_server_has_none_of_our_secrets_and_its_role_cannot_read_files",
    ),
    "a reboot goes unseen": Mutant(
        a_reboot_goes_unseen,
        "tests/unit/test_processes.py::test_a_process_from_before_the_last_boot_is_dead",
    ),
}
