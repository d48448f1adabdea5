"""What users see of the embedding bill: before, in `plan`; after, in `status`, in the UI and by each run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from ingest_pipeline.cli.main import main
from tests.support.dagster.cli import Cli
from tests.support.dagster.world import EMBEDDINGS, DagsterWorld
from tests.support.servers.embedding_server import POISON, TEST_MODEL, EmbeddingServer
from tests.support.world import paragraphs

PRICE = f"{TEST_MODEL} 20 USD 2026-11-01"


@pytest.fixture
def variables() -> dict[str, str]:
    return {"INGEST_EMBEDDING_PRICES": PRICE}


def run_totals(dagster: DagsterWorld) -> list[dict[str, Any]]:
    """What runs said that they spent, oldest first."""
    found = dagster.instance.fetch_observations(EMBEDDINGS, limit=9).records
    observations = [record.asset_observation for record in reversed(found)]
    return [
        {name: value.value for name, value in observation.metadata.items()}
        for observation in observations
        if observation is not None and "run_tokens" in observation.metadata
    ]


def test_the_command_line_shows_the_cost_before_and_after(
    tmp_path: Path, database_url: str, embeddings: EmbeddingServer
) -> None:
    cli = Cli.over(tmp_path, database_url, embeddings)
    cli.environment["INGEST_EMBEDDING_PRICES"] = PRICE
    for number in range(6):
        cli.put(f"{number}.txt", paragraphs(f"topic{number}", 4))
    rough, exact = cli.json("plan"), cli.json("plan", "--exact")
    assert (rough["sensor_runs"], rough["estimate"]["documents"]) == (1, 6)
    assert embeddings.requests == 0
    done = cli.json("ingest")
    assert exact["estimate"]["to_embed"] == done["embedded"] == embeddings.embedded <= rough["estimate"]["to_embed"]
    assert done["tokens"] == embeddings.tokens
    (cost,) = cli.json("status")["costs"]
    assert float(cost["amount"]) == pytest.approx(embeddings.tokens * 20 / 1e6)
    assert (cost["currency"], cost["as_of"]) == ("USD", "2026-11-01")
    assert float(exact["estimate"]["cost"]) == pytest.approx(float(cost["amount"]), rel=0.1)
    assert "USD at prices of 2026-11-01" in cli.run("status").output
    assert "0 documents differ" in cli.run("plan").output


def test_a_partition_shows_its_share_as_numbers(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 3))
    dagster.put("b.txt", paragraphs("beta", 6))
    assert dagster.run().success
    shown = [dagster.latest(EMBEDDINGS, partition) for partition in ("a.txt", "b.txt")]
    assert sum(int(str(one["tokens"])) for one in shown) == dagster.embeddings.tokens
    for one in shown:
        assert one["cost_USD"] == pytest.approx(int(str(one["tokens"])) * 20 / 1e6)
        assert isinstance(one["seconds"], float)
        assert one["retries"] == 0
    # The first text goes alone, since the endpoint was never seen.
    assert sorted(int(str(one["requests"])) for one in shown) == [1, 2]


def test_each_run_reports_its_usage_even_if_it_fails(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 3))
    assert dagster.run().success
    first = dagster.embeddings.tokens
    dagster.put("b.txt", f"{paragraphs('beta', 9)}\n\n{POISON} is refused by the API.")
    assert not dagster.run().success
    good, bad = run_totals(dagster)
    assert good["run_tokens"] == first
    assert good["run_cost_USD"] == pytest.approx(first * 20 / 1e6)
    assert bad["run_tokens"] == dagster.embeddings.tokens - first > 0
    assert (good["run_documents"], bad["run_documents"]) == (1, 0)
    assert isinstance(good["run_seconds"], float)


def test_without_a_price_no_cost_is_shown(dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INGEST_EMBEDDING_PRICES")
    dagster.settings = type(dagster.settings).from_environment()
    dagster.put("a.txt", paragraphs("alpha", 3))
    assert dagster.run().success
    assert not [name for name in dagster.latest(EMBEDDINGS, "a.txt") if name.startswith("cost")]
    assert not [name for name in run_totals(dagster)[0] if name.startswith("run_cost")]


def test_metadata_of_numbers_are_numbers(dagster: DagsterWorld) -> None:
    """Only these are plotted."""
    dagster.put("a.txt", paragraphs("alpha", 3))
    dagster.run()
    (record,) = dagster.instance.fetch_observations(EMBEDDINGS, limit=1).records
    assert record.asset_observation is not None
    for value in record.asset_observation.metadata.values():
        assert isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue)


@pytest.mark.promise("billed")
def test_what_an_enricher_took_is_shown_by_the_run_and_by_the_commands(
    dagster: DagsterWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costly = "tests.support.user_code.Costly"
    enricher = {"class": costly, "arguments": {"calls": str(tmp_path / "calls"), "tokens": 300}}
    monkeypatch.setenv("INGEST_ENRICHER", json.dumps(enricher))
    monkeypatch.setenv("INGEST_ENRICHER_PRICES", f"{costly} 5 USD 2026-10-01")
    dagster.settings = type(dagster.settings).from_environment()
    dagster.put("a.txt", paragraphs("alpha", 3))
    assert dagster.run().success
    (shown,) = run_totals(dagster)
    embedded = dagster.embeddings.tokens
    assert (shown["run_tokens"], shown["run_enricher_tokens"], shown["run_enricher_requests"]) == (embedded, 300, 1)
    assert shown["run_cost_USD"] == pytest.approx((embedded * 20 + 300 * 5) / 1e6)
    status, history = (CliRunner().invoke(main, [name, "--json"]) for name in ("status", "history"))
    totals, (publication, *_) = json.loads(status.stdout), json.loads(history.stdout)
    assert (totals["enricher_tokens"], totals["enricher_requests"]) == (300, 1)
    assert {cost["as_of"] for cost in totals["costs"]} == {"2026-10-01", "2026-11-01"}
    assert (publication["enricher_tokens"], publication["enricher_cost"]) == (300, "0.001500 USD")
    assert "enricher_cost" in CliRunner().invoke(main, ["history"], env={"COLUMNS": "300"}).stdout
