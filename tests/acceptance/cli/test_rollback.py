"""Rollbacks by command: shown, confirmed, put on hold and released."""

from __future__ import annotations

import signal

import pytest

from tests.support.dagster.cli import Cli
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.world import paragraphs


def test_a_rollback_is_shown_executed_put_on_hold_and_released(cli: Cli, embeddings: EmbeddingServer) -> None:
    cli.put("a.txt", paragraphs("alpha", 2))
    cli.put("b.txt", paragraphs("beta", 2))
    good = cli.json("ingest")["version"]
    cli.put("a.txt", paragraphs("spoilt", 2))
    cli.put("c.txt", paragraphs("gamma", 1))
    bad = cli.json("ingest")["version"]
    embedded = embeddings.embedded

    shown = cli.json("rollback", "--to", str(good), "--dry-run")
    assert {row["document"]: row["change"] for row in shown} == {"a.txt": "replace", "c.txt": "remove"}
    assert cli.json("status")["head_version"] == bad

    done = cli.json("rollback", "--to", str(good))
    assert (done["documents"], done["removed"], done["on_hold"], done["problems"]) == (1, 1, 2, [])
    status = cli.json("status")
    assert (status["documents"], status["head_version"]) == (2, done["head_version"])
    assert [(hold["key"], hold["version"]) for hold in status["holds"]] == [("a.txt", good), ("c.txt", good)]
    assert {row["change"] for row in cli.json("plan")["documents"]} == {"on hold"}
    assert cli.json("ingest")["published"] == 0
    assert [row["what"] for row in cli.json("history", "--limit", "2")] == [f"rollback to {good}", "ingest"]
    assert [row["what"] for row in cli.json("history", "c.txt")] == [f"rollback to {good}", "ingest"]
    assert "0 documents rolled back" in cli.run("rollback", "--to", str(good)).stdout

    assert "1 document will be tried again" in cli.run("retry", "c.txt").stdout
    assert cli.json("ingest")["published"] == 1
    assert cli.json("ingest", "a.txt")["published"] == 1, "the user named it"
    assert (cli.json("status")["documents_on_hold"], embeddings.embedded) == (0, embedded)
    assert cli.json("audit")["violations"] == []


def test_one_document_alone_is_rolled_back(cli: Cli) -> None:
    for text in ("first", "second"):
        cli.put("a.txt", paragraphs(text, 1))
        cli.put("b.txt", paragraphs(f"other {text}", 1))
        cli.json("ingest")
    done = cli.json("rollback", "--to", "2", "a.txt")
    assert [row["document"] for row in done["changes"]] == ["a.txt"]
    assert [len(cli.json("history", key)) for key in ("a.txt", "b.txt")] == [3, 2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--to", "99"), "Version 99 of corpus 'docs' is no publication"),
        (("--to", "2", "ghost.txt"), "never had a document 'ghost.txt'"),
    ],
)
def test_a_rollback_to_an_unknown_version_changes_nothing(cli: Cli, arguments: tuple[str, ...], says: str) -> None:
    cli.put("a.txt", paragraphs("alpha", 1))
    cli.json("ingest")
    done = cli.run("rollback", *arguments)
    assert done.exit_code == 2
    assert says in done.stderr
    assert "ingest-pipeline history" in done.stderr
    assert cli.json("status")["head_version"] == 2


def test_a_killed_rollback_is_settled_and_done_again(cli: Cli) -> None:
    cli.put("a.txt", paragraphs("alpha", 2))
    cli.json("ingest")
    cli.put("a.txt", paragraphs("omega", 2))
    cli.json("ingest")
    died = cli.spawn("rollback", "--to", "2", INGEST_FAILPOINTS="lance commit:after=kill")
    assert died.returncode == -signal.SIGKILL
    assert len(cli.json("recover")["abandoned"]) == 1
    assert cli.json("ingest")["published"] == 0
    assert cli.json("rollback", "--to", "2")["documents"] == 1
    cli.json("sweep")
    assert cli.json("audit")["violations"] == []


def test_a_rollback_that_removes_most_documents_needs_a_confirmation(cli: Cli) -> None:
    cli.put("a.txt", paragraphs("alpha", 1))
    cli.json("ingest")
    asked = cli.run("rollback", "--to", "1")
    assert asked.exit_code == 1
    assert "would remove 1 of its 1 document;" in asked.stderr
    assert "--confirm-removals" in cli.run("rollback", "--to", "1", "--dry-run").stderr
    assert cli.json("status")["documents"] == 1
    assert cli.json("rollback", "--to", "1", "--confirm-removals")["removed"] == 1
