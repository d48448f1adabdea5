"""The command `erase`: its receipt, what `ingest` and `retry` say afterwards, and what a recovery finishes."""

from __future__ import annotations

import pytest

from ingest_pipeline.failpoints import Boundary
from tests.support.dagster.cli import Cli
from tests.support.world import paragraphs

pytestmark = pytest.mark.promise("erasure")

PERSON = "Wilhelmina Zanzibarova lives at 12 Quince Street"


def test_a_document_is_erased_with_a_receipt_and_only_retry_allows_it_again(cli: Cli) -> None:
    cli.put("a.txt", PERSON)
    cli.put("b.txt", paragraphs("beta", 1))
    assert cli.run("ingest").exit_code == 0
    wrong = cli.run("erase", "nothing.txt", "--reason", "request 1")
    assert wrong.exit_code == 2
    assert "Nothing was erased" in wrong.stderr
    done = cli.run("erase", "a.txt", "--reason", "request 1")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("Erased 1 document of corpus docs; erasure ")
    assert "Dagster's event_logs: " in done.stdout
    assert "\n0 of " in done.stdout
    assert cli.json("status")["documents"] == 1
    again = cli.run("ingest", "a.txt")
    assert again.exit_code == 2
    assert "Document 'a.txt' was erased, and is not ingested again" in again.stderr
    assert cli.run("recover").exit_code == 0
    assert "1 document will be tried again" in cli.run("retry", "a.txt").stdout
    assert cli.json("ingest", "a.txt")["published"] == 1


def test_history_says_which_versions_the_erasure_removed(cli: Cli) -> None:
    cli.put("b.txt", paragraphs("beta", 1))
    assert cli.run("ingest").exit_code == 0
    cli.put("a.txt", PERSON)
    assert cli.run("ingest").exit_code == 0
    assert cli.run("erase", "a.txt", "--reason", "request 1").exit_code == 0
    kept = {row["version"]: (row["retained"], row["removed_by"]) for row in cli.json("history")}
    assert kept == {1: (True, None), 2: (True, None), 3: (False, "erasure"), 4: (True, None)}
    said = "`ingest-pipeline rollback --to VERSION` accepts 1 to 2 and 4. An erasure removed 3."
    assert said in cli.run("history").stdout
    refused = cli.run("rollback", "--to", "3")
    assert refused.exit_code == 2
    assert "Version 3 of corpus 'docs' is no longer retained, because an erasure removed it" in refused.stderr


@pytest.mark.soak
def test_a_recovery_finishes_the_erasure_of_a_process_that_died(cli: Cli) -> None:
    cli.put("a.txt", PERSON)
    assert cli.run("ingest").exit_code == 0
    place = f"{Boundary.VERSIONS_REMOVED}:before=kill"
    assert cli.spawn("erase", "a.txt", "--reason", "request 1", INGEST_FAILPOINTS=place).returncode == -9
    done = cli.run("recover")
    assert done.exit_code == 0, done.stderr
    assert "Erased 1 document of corpus docs" in done.stderr
    assert "\n0 of " in done.stderr
