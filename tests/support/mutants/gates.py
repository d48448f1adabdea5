"""Publications that gates block."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID

from ingest_pipeline.gates import judge
from ingest_pipeline.maintenance import sweep
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres import sql
from ingest_pipeline.postgres.catalog import gates
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.saga import blocked
from tests.support.mutants.mutant import Mutant, answering, plug

_GATES = "tests/integration/gates/test_blocked.py::"


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


MUTANTS = {
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
