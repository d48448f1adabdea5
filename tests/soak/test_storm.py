"""Storms in processes of their own, so that nothing they hurt, adopt or leave behind is the test run's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.dagster.preloaded import without_preloaded

ROOT = Path(__file__).parents[2]


def blow(directory: Path, *arguments: str, timeout: float) -> dict[str, Any]:
    """Run a storm; its figures, once it is clear that no promise was broken."""
    figures = directory / "storm.json"
    done = subprocess.run(
        [sys.executable, "-m", "tools.storm", "--json", str(figures), *arguments],
        cwd=ROOT,
        env=without_preloaded({**os.environ, "PYTHONPATH": str(ROOT)}),  # a storm finds its processes below its own
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    found: dict[str, Any] = json.loads(figures.read_text())
    return found


@pytest.mark.promise("any-order")
@pytest.mark.timeout(900)
def test_a_minute_of_deaths_cuts_and_restarts_breaks_no_promise(tmp_path: Path) -> None:
    counts = blow(tmp_path, "--short", "--seed", "20", timeout=840)["counts"]
    assert counts["sagas: published"] >= 3
    assert counts["reads: of a new head"] >= 3
    assert any(name.startswith("killed") for name in counts)
    assert any(name.startswith("embedding faults") for name in counts)


@pytest.mark.promise("any-order")
@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_storm_over_real_dagster_and_s3_breaks_no_promise(tmp_path: Path) -> None:
    minutes = os.environ.get("STORM_MINUTES", "20")
    counts = blow(tmp_path, "--minutes", minutes, timeout=3500)["counts"]
    assert counts["killed: run worker"] >= 1
