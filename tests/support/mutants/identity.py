"""Which table, database and generation a writer may change."""

from __future__ import annotations

from uuid import UUID

from ingest_pipeline.corpus import table_identity
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.ingestion import ingest
from ingest_pipeline.maintenance import drop, sweep
from ingest_pipeline.postgres.catalog import corpora
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.url import parts_of, write_url
from ingest_pipeline.restore import relocate
from tests.support.mutants.mutant import Mutant, answering, plug

_IDENTITY = "tests/integration/corpus/test_table_identity.py::"


def unknown_saga_undone() -> None:
    def not_ours(here: object, sagas: object, mark: object) -> str:
        return "foreign" if mark is None else "ours"

    plug(table_identity, "_origin", not_ours)


def sweep_takes_unknown_files() -> None:
    def is_orphan(name: str, live: set[UUID], ended: set[UUID]) -> bool:
        return name.startswith("data/") and sweep.saga_of_file(name) not in {None, *live}

    plug(sweep, "_is_orphan", is_orphan)


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


def no_generation_check() -> None:
    plug(Corpus, "check_generation", answering(None))
    plug(sagas, "abandon_live", answering([]))


def no_comparison_at_the_switch() -> None:
    plug(corpora, "generation_differences", answering([]))


def no_model_check() -> None:
    plug(ingest.Ingestion, "_check_model", answering(None))


MUTANTS = {
    "unknown saga undone": Mutant(
        unknown_saga_undone,
        f"{_IDENTITY}test_a_database_set_back_in_place_undoes_nothing_that_was_published_since",
    ),
    "sweep takes unknown files": Mutant(
        sweep_takes_unknown_files,
        f"{_IDENTITY}test_files_of_unknown_sagas_are_kept_and_reported",
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
    "no generation check": Mutant(
        no_generation_check,
        "tests/faults/deaths/test_reembed.py::test_an_active_writer_on_the_old_generation_gets_an_error",
    ),
    "no comparison at the switch": Mutant(
        no_comparison_at_the_switch,
        "tests/integration/ingestion/test_reembed.py::test_publications_during_the_comparison_of_generations_are_included",
    ),
    "no model check": Mutant(
        no_model_check,
        "tests/integration/ingestion/test_reembed.py::test_another_model_in_the_settings_changes_nothing_by_itself",
    ),
}
