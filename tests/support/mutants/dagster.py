"""What runs and sensors report to Dagster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg

from ingest_pipeline.assets import ingest as ingest_step
from ingest_pipeline.assets import markdown, run_report
from ingest_pipeline.assets.run_report import RunReport
from ingest_pipeline.orchestration import sensors
from ingest_pipeline.reporting import head
from tests.support.mutants.mutant import Mutant, answering, plug

_HEAD = "tests/acceptance/dagster/head/test_head.py::"


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


def fence_of_fixed_length() -> None:
    plug(markdown, "_fence", answering("````"))


MUTANTS = {
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
    "fence of fixed length": Mutant(
        fence_of_fixed_length,
        "tests/unit/assets/test_markdown.py::test_a_text_of_backticks_does_not_leave_its_code_block[4]",
    ),
}
