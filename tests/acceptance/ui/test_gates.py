"""A user at the web pages, in a real browser: a re-embedding with a worse model is blocked by its golden set."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from ingest_pipeline.embedding.local import LOCAL_MODEL
from tests.support.dagster.browser import PATIENCE_MS, Person, needs_browser
from tests.support.dagster.cli import Cli
from tests.support.dagster.web_ui import WebUi
from tests.support.servers.databases import copy_of
from tests.support.servers.embedding_server import EmbeddingServer

pytestmark = [pytest.mark.promise("gates"), pytest.mark.soak, pytest.mark.timeout(1200), needs_browser]

HANDBOOK = {
    "leave.md": "Every employee has thirty days of vacation in a year. Ask your manager before you book a holiday.",
    "travel.md": "The head of the department approves each journey. Trains are preferred to flights.",
    "expenses.md": "Receipts are handed in within a month. Money is paid back with the next salary.",
    "security.md": "Lock your screen. Choose a long password, and never tell it to anybody.",
    "health.md": "A first aid kit hangs in the kitchen. Call the emergency number if somebody is hurt.",
    "parking.md": "Cars are parked behind the building. Bicycles have a shed of their own.",
    "kitchen.md": "Wash your cups. The coffee machine is cleaned on Fridays.",
    "printing.md": "Printers are on every floor. Toner is kept in the storage room.",
}
QUESTIONS = {
    "How many days off do I get?": "leave.md",
    "Who has to agree to a business trip?": "travel.md",
    "When do I get reimbursed for what I bought?": "expenses.md",
    "What makes a good passphrase?": "security.md",
    "Someone is bleeding, where are bandages?": "health.md",
    "Where can I leave my bike?": "parking.md",
}


@pytest.fixture
def database_url(postgres: str, template: str) -> str:
    return copy_of(postgres, template)


@pytest.fixture
def cli(cli: Cli) -> Cli:
    """A handbook at head, embedded by a real model that finds nearly all of its golden set."""
    for key, text in HANDBOOK.items():
        cli.put(key, text)
    golden = cli.directory / "golden.jsonl"
    golden.write_text("".join(f"{json.dumps({'query': q, 'documents': [key]})}\n" for q, key in QUESTIONS.items()))
    cli.environment |= {
        "INGEST_GOLDEN_SET": str(golden),
        "INGEST_GOLDEN_K": "2",
        "INGEST_GOLDEN_MODE": "vector",
        "INGEST_GATE_MIN_RECALL": "0.8",
    }
    cli.environment["INGEST_EMBEDDING_MODEL"] = LOCAL_MODEL
    del cli.environment["INGEST_EMBEDDING_DIMENSIONS"]
    return cli


def test_a_worse_model_does_not_reach_readers(cli: Cli, embeddings: EmbeddingServer) -> None:
    assert cli.run("ingest").exit_code == 0
    before = cli.json("status")
    good = cli.json("eval")
    worse = {
        "INGEST_EMBEDDING_MODEL": "test-embedding",
        "INGEST_EMBEDDING_DIMENSIONS": str(embeddings.dimensions),
    }
    refused = cli.run("reembed", "--yes", **worse)
    assert (good["recall"], refused.exit_code) == (1.0, 1)
    assert "did not pass the gates: recall " in refused.stderr
    now = cli.json("status")
    assert (now["head_version"], now["embedding"]) == (before["head_version"], before["embedding"])
    (hit,) = cli.json("search", next(iter(QUESTIONS)), "--limit", "1")
    assert hit["document"] == "leave.md", "readers stay on the old generation"
    with WebUi.over(cli) as web, Person.at(web) as person:
        person.page.goto(f"{web.url}/assets/docs/head?view=checks&checkDetail=gate", wait_until="domcontentloaded")
        person.skip_invitation()
        expect(person.page.get_by_text("Failed", exact=True).first).to_be_visible(timeout=PATIENCE_MS)
        for shown in ("recall", "recall_limit", "0.8", "blocked"):
            expect(person.page.get_by_text(shown, exact=True).first).to_be_visible(timeout=PATIENCE_MS)
        person.picture("gate")
