"""Boundaries: silent when off, and where they are told to be when on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator

import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.failpoints import Boundary, boundary


@pytest.fixture(autouse=True)
def _off() -> Generator[None]:
    yield
    failpoints.install(None)


def test_both_sides_are_reached_in_order() -> None:
    seen: list[str] = []
    failpoints.install(lambda name, side: seen.append(f"{name}:{side}"))
    with boundary(Boundary.COMMIT):
        seen.append("effect")
    assert seen == ["commit:before", "effect", "commit:after"]


def test_the_side_after_of_an_effect_that_raises_is_not_reached() -> None:
    seen: list[str] = []
    failpoints.install(lambda _, side: seen.append(side))
    with pytest.raises(RuntimeError), boundary(Boundary.COMMIT):
        raise RuntimeError
    assert seen == ["before"]


def test_the_environment_kills_at_the_nth_passage() -> None:
    program = (
        "from ingest_pipeline.failpoints import boundary, Boundary\n"
        "for number in range(3):\n"
        "    with boundary(Boundary.COMMIT): print(number, flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "INGEST_FAILPOINTS": "commit:after=kill@2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "0\n1\n"
