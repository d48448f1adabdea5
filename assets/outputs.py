"""Outputs of the ingest step, without which Dagster skips the steps that depend on it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import dagster as dg

# An `Output` would materialize every partition of the run, or none at all in a run without partitions. The step logs
# its materializations itself, after each publication. For an output without a materialization there is no public API.
from dagster._core.events import DagsterEvent
from dagster._core.execution.plan.objects import TypeCheckData
from dagster._core.execution.plan.outputs import StepOutputData, StepOutputHandle


def outputs(context: dg.AssetExecutionContext, assets: Collection[dg.AssetKey]) -> Iterator[DagsterEvent]:
    """The outputs of those assets that are selected, and of their blocking check. A step that fails has none.

    Args:
        context: Dagster's context of the step.
        assets: Assets that changed. The steps after the others are skipped.
    """
    step_context = context.op_execution_context.get_step_execution_context()
    names = [
        context.assets_def.get_output_name_for_asset_key(key)
        for key in sorted(context.selected_asset_keys & set(assets))
    ]
    # Steps after an asset with a blocking check wait for the output of the check, too.
    checks = context.assets_def.check_specs_by_output_name if names else {}
    names += [name for name, spec in checks.items() if spec.blocking and spec.key in context.selected_asset_check_keys]
    for name in names:
        handle = StepOutputHandle(step_context.step.key, name)
        # Dagster's UI shows no log of a run that has an output without a type check.
        checked = TypeCheckData(success=True, label=handle.output_name)  # type: ignore[no-untyped-call]
        yield DagsterEvent.step_output_event(step_context, StepOutputData(handle, checked))
