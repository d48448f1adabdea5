"""Gates at the command line: what a blocked ingest says, `gate status`, `release` and `drop`."""

from __future__ import annotations

import pytest

from tests.support.dagster.cli import Cli
from tests.support.world import paragraphs

pytestmark = pytest.mark.promise("gates")


def test_a_blocked_publication_is_shown_released_and_dropped(cli: Cli) -> None:
    cli.environment["INGEST_GATE_MAX_LOST"] = "0"
    for name in "ab":
        cli.put(f"{name}.txt", paragraphs(name, 1))
    assert cli.run("ingest").exit_code == 0
    assert "No publication waits for a decision" in cli.run("gate", "status").stdout
    nothing = cli.run("gate", "release")
    assert (nothing.exit_code, "has nothing that did not pass its gates" in nothing.stderr) == (2, True)
    cli.put("a.txt", "")
    blocked = cli.run("ingest")
    assert blocked.exit_code == 1
    assert "did not pass its gates: lost 1 (limit 0): a.txt" in blocked.stderr
    assert "gate release" in blocked.stderr
    (found,) = cli.json("gate", "status")
    assert (found["findings"][0]["figure"], found["documents"], found["removed"]) == ("lost", 1, 0)
    assert found["id"][:8] in cli.run("gate", "status").stdout
    assert cli.json("status")["blocked_publications"] == 1
    assert [(row["document"], row["change"]) for row in cli.json("plan")["documents"]] == [("a.txt", "blocked")]
    assert "1 of them blocked by gates" in cli.run("plan").stdout
    assert cli.run("ingest").exit_code == 0, "nothing is left to do"
    head = cli.json("status")["head_version"]
    dropped = cli.run("gate", "drop", found["id"][:8])
    assert (dropped.exit_code, f"was dropped; head is version {head}" in dropped.stdout) == (0, True)
    assert cli.run("ingest").exit_code == 1
    released = cli.json("gate", "release")
    assert (released["head_version"] > head, released["problems"]) == (True, [])
    assert cli.json("status")["blocked_publications"] == 0
    assert cli.json("plan")["documents"] == []
