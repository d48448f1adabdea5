"""What commands print for the user: it fits the terminal, counts agree with their nouns, and hints say what to do."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from tests.support.dagster.cli import Cli
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.world import paragraphs


@pytest.fixture
def narrow(cli: Cli) -> Cli:
    """A corpus with one document, of which one other cannot be read, on a terminal of 80 columns."""
    cli.environment |= {"COLUMNS": "80", "INGEST_CORPUS": "a_corpus_with_a_long_name"}
    cli.put("handbook/a rather long name of a document about travel.md", "# Hotels\n\n" + paragraphs("hotel", 2))
    (cli.directory / "source" / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert cli.run("ingest").exit_code == 0
    return cli


def printed(cli: Cli, *arguments: str) -> str:
    done = cli.run(*arguments)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def fits(text: str) -> bool:
    return all(len(line) <= 80 for line in text.splitlines())


def test_what_is_printed_fits_80_columns_and_is_in_words(narrow: Cli, embeddings: EmbeddingServer) -> None:
    key = "handbook/a rather long name of a document about travel.md"
    narrow.environment["INGEST_EMBEDDING_PRICES"] = "test-embedding 20 USD 2026-11-01"
    narrow.put(key, paragraphs("hotel", 3))
    assert "1 document published, 0 removed" in " ".join(narrow.run("ingest").stdout.split())

    again = " ".join(printed(narrow, "ingest").split())
    assert again.startswith("Corpus a_corpus_with_a_long_name agrees with") or "0 documents of corpus" in again
    assert "1 more document cannot be read or failed too often, and is skipped" in again
    assert "Nothing was published; run" in again

    history = printed(narrow, "history")
    assert "True" not in history
    assert "False" not in history
    assert "returns to any of these" in history
    assert fits(history)
    assert all(len(line.split()[-1]) == 8 for line in history.splitlines()[2:-1]), history
    assert re.search(r"\d\d \w+ \d\d:\d\d +ingest", printed(narrow, "history", key))

    assert "nothing to do" not in printed(narrow, "maintain")
    again = " ".join(printed(narrow, "maintain").split())
    assert "There was nothing to do. The table has" in again
    assert "There was nothing to settle; head is version" in printed(narrow, "recover")
    assert "There was nothing to remove" in printed(narrow, "sweep")

    status = printed(narrow, "status")
    assert fits(status)
    assert len(status.splitlines()) <= 24
    assert "1 unreadable" in status
    assert "1 document cannot be read: 1 binary" in status

    plan = " ".join(printed(narrow, "plan").split())
    assert "1 document differs; 1 of them skipped" in plan
    hits = printed(narrow, "search", "hotel words", "--limit", "2")
    assert fits(hits)
    assert hits.startswith("1. handbook/a rather long name")


def test_empty_results_say_why_and_what_to_do(narrow: Cli) -> None:
    assert "fewer --where conditions" in printed(narrow, "search", "hotel", "--where", "key=none/*")
    assert "--mode hybrid searches by meaning too" in printed(narrow, "search", "zebra", "--mode", "text")
    assert "No document failed" not in printed(narrow, "retry")
    assert "No document failed or is on hold" in printed(narrow, "retry")
    assert printed(narrow, "batch", "--collect").startswith("0 batch jobs ended")


def test_following_a_run_needs_a_terminal(cli: Cli) -> None:
    done = cli.run("status", "--watch")
    assert (done.exit_code, "--watch needs a terminal" in done.stderr) == (2, True)


def test_following_begins_before_the_first_ingest_and_shows_what_comes(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ingest_pipeline.cli.commands.queries.status.time", SimpleNamespace(sleep=interrupt))
    cli.environment |= {"COLUMNS": "80", "FORCE_COLOR": "1", "TERM": "xterm"}
    assert "There is no corpus 'docs'" in printed(cli, "status", "--watch")
    cli.put("a.md", paragraphs("hotel", 2))
    assert cli.run("ingest").exit_code == 0
    shown = printed(cli, "status", "--watch")
    assert "1 document, " in shown
    assert "again every 2 s until Ctrl-C" in shown
