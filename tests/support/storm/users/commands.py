"""Commands of `ingest-pipeline` that a user runs beside ingests, each in a process that may be killed at any time."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.support.storm.stage import Stage
from tests.support.storm.users.writers import CLI_SECONDS, Victims, failpoint_of


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended."""

    status: int | None
    """Exit status. None: it did not end, and was killed."""
    text: str
    """What it printed."""


def run_command(stage: Stage, victims: Victims, kind: str, arguments: Sequence[str], random: Random) -> Said:
    """Run a command, which sometimes dies at a boundary of the engine. It has to end without a traceback."""
    with tempfile.TemporaryFile("w+", dir=stage.directory) as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ingest_pipeline.cli.main", *arguments],
            env=stage.environment("writers") | {"INGEST_FAILPOINTS": failpoint_of(random)},
            cwd=stage.directory,
            stdout=output,
            stderr=output,
        )
        stage.reaper.spare(process.pid)
        with victims.offer(kind, process.pid):
            try:
                status: int | None = process.wait(CLI_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                status = None
                stage.figures.violation(f"`{arguments[0]}` did not end within {CLI_SECONDS:g} s")
        output.seek(0)
        said = Said(status, output.read())
    stage.figures.count(f"{kind} by command: exit {status}")
    if status != 0:
        stage.disruptions.moment()
    if "Traceback" in said.text:
        stage.figures.count(f"{kind} by command: ended in a traceback")
        stage.figures.note(f"`{arguments[0]}` exit {status} with a traceback: {said.text[-250:]}")
    elif status == 1:
        stage.figures.note(f"`{arguments[0]}` exit 1: {said.text[-250:]}")
    return said
