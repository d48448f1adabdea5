"""The figures of the catalog that `ingest-pipeline metrics` serves, and what the files in deploy/ make of them."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from ingest_pipeline.cli.main import main
from ingest_pipeline.errors import EmbeddingUnavailableError
from ingest_pipeline.integrations.prometheus.serve import metrics_server, metrics_text
from ingest_pipeline.planning.lag import record_comparison
from ingest_pipeline.postgres.gauges import figures
from ingest_pipeline.telemetry.metrics import declared
from tests.integration.telemetry.test_observed_work import run
from tests.support.servers.embedding_server import TEST_MODEL, Fault
from tests.support.world import World, paragraphs

DEPLOY = Path(__file__).parents[3] / "deploy"


def read(world: World) -> dict[tuple[str, ...], float]:
    """The values by name and label values."""
    families = text_string_to_metric_families(metrics_text(world.database))
    return {(sample.name, *sample.labels.values()): sample.value for one in families for sample in one.samples}


def test_the_figures_are_those_of_the_catalog(world: World) -> None:
    world.settings = world.settings.replace(embedding_prices=f"{TEST_MODEL} 2 USD 2026-11-01")
    world.put("a.txt", paragraphs("alpha", 3))
    world.put("broken.txt", "").write_bytes(b"\xff\xff")
    run(world)
    world.put("b.txt", paragraphs("beta", 1))
    world.embeddings.fail_next(Fault.SERVER_ERROR, times=9)
    with pytest.raises(EmbeddingUnavailableError):
        run(world)
    found = read(world)
    prefix = "ingest_pipeline_corpus_"
    of = {name.removeprefix(prefix): value for (name, *labels), value in found.items() if labels == ["docs"]}
    assert of["documents"] == 1
    assert of["chunks"] == 3
    assert of["tokens_total"] == world.embeddings.tokens
    assert of["requests_total"] == world.embeddings.requests
    assert of["retries_total"] == 2
    assert 0 <= of["compared_timestamp_seconds"] - of["head_timestamp_seconds"] < 60
    assert found[f"{prefix}head_version", "docs", "docs"] == world.head
    assert found[f"{prefix}held_back_documents", "docs", "unreadable"] == 1
    assert found[f"{prefix}sagas_total", "docs", "ingest", "published"] == 1
    assert found[f"{prefix}sagas_total", "docs", "ingest", "failed"] == 1
    assert found[f"{prefix}cost_total", "docs", "USD"] == pytest.approx(2e-6 * world.embeddings.tokens)


def test_an_active_saga_of_a_silent_writer_is_in_doubt(world: World) -> None:
    world.put("a.txt", "alpha")
    world.ingest()
    assert active(world) == {("docs", "running"): 0, ("docs", "in_doubt"): 0}
    with world.database.transaction() as connection:
        for silent in ("0", "1 hour"):
            connection.execute(
                "INSERT INTO ingest_pipeline.saga (id, generation, kind, base_version, writer, seen_at) "
                "VALUES (gen_random_uuid(), 'docs', 'ingest', 1, 'of the test', now() - %s::interval)",
                (silent,),
            )
    assert active(world) == {("docs", "running"): 1, ("docs", "in_doubt"): 1}


def active(world: World) -> dict[tuple[str, ...], float]:
    return {key[1:]: value for key, value in read(world).items() if key[0] == "ingest_pipeline_corpus_active_sagas"}


def lag(world: World) -> tuple[float, float]:
    found = read(world)
    return found["ingest_pipeline_corpus_behind_documents", "docs"], found["ingest_pipeline_corpus_lag_seconds", "docs"]


def test_the_lag_counts_from_the_oldest_change_that_is_not_published(world: World) -> None:
    world.put("a.txt", "alpha")
    run(world)
    assert lag(world) == (0, 0)
    now = datetime.now(UTC)
    with world.database.transaction() as connection:
        connection.execute("UPDATE ingest_pipeline.source_comparison SET compared_at = now() - interval '1 hour'")
    # A file of last year that appeared since the last comparison is no year late.
    record_comparison(world.corpus, 2, now - timedelta(days=365))
    assert lag(world)[0] == 2
    assert lag(world)[1] == pytest.approx(3600, abs=60)
    # What is missing from the source has no time: the lag goes on from where it was.
    record_comparison(world.corpus, 1)
    assert lag(world)[1] == pytest.approx(3600, abs=60)
    record_comparison(world.corpus, 1, now - timedelta(seconds=600))
    assert lag(world)[1] == pytest.approx(600, abs=60)
    run(world)
    assert lag(world) == (0, 0)


def test_a_run_that_leaves_documents_behind_says_so(world: World) -> None:
    world.put("a.txt", "alpha")
    run(world)
    world.put("b.txt", "beta")
    world.embeddings.fail_next(Fault.QUOTES_INPUT)
    run(world)
    behind, seconds = lag(world)
    assert (behind, seconds < 60) == (1, True)


def test_the_server_answers_scrapes_and_refuses_other_paths(world: World) -> None:
    world.put("a.txt", "alpha")
    world.ingest()
    server = metrics_server(world.database, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        with urllib.request.urlopen(f"{url}/metrics") as answer:  # noqa: S310  an address of this test
            assert 'ingest_pipeline_corpus_documents{corpus="docs"} 1.0' in answer.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/other")  # noqa: S310  likewise
        world.database.close()
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{url}/metrics")  # noqa: S310  likewise
    finally:
        server.shutdown()
        server.server_close()


def test_the_command_prints_the_figures_once(world: World, tmp_path: Path) -> None:
    world.put("a.txt", "alpha")
    world.ingest()
    environment = {
        "INGEST_DATABASE_URL": world.database.url,
        "INGEST_STATE": str(tmp_path),
        "INGEST_SOURCE": world.settings.source,
    }
    done = CliRunner().invoke(main, ["metrics", "--once"], env=environment, catch_exceptions=False)
    assert done.exit_code == 0
    assert 'ingest_pipeline_corpus_documents{corpus="docs"} 1.0' in done.output.splitlines()


def exported() -> set[str]:
    """The names under which Prometheus gets the figures of the catalog, and the metrics of runs from a collector."""
    names = {figure.name for figure in figures()}
    for one in declared():
        name = one.name.replace(".", "_")
        if one.kind == "counter":
            names.add(f"{name}_total")
        else:
            unit = "_seconds" if one.unit == "s" else ""
            names |= {f"{name}{unit}_{part}" for part in ("bucket", "count", "sum")}
    return names


def _used(expression: str) -> set[str]:
    return set(
        re.findall(r"\b(?:ingest_pipeline|gen_ai)_[a-z_]+(?=[\[{ )]|$)", re.sub(r"by \([^)]*\)", "", expression))
    )


def test_the_alert_rules_use_figures_that_exist() -> None:
    groups: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())["groups"]
    rules: list[dict[str, Any]] = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 10
    for rule in rules:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}, rule
        assert rule["annotations"].keys() == {"summary", "description"}
        assert _used(rule["expr"]), rule["expr"]
        assert _used(rule["expr"]) <= exported(), rule["expr"]
        labels = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert labels <= {label for figure in figures() if figure.name in rule["expr"] for label in figure.labels}


def test_the_dashboard_uses_metrics_that_exist() -> None:
    dashboard: dict[str, Any] = json.loads((DEPLOY / "grafana" / "ingest_pipeline.json").read_text())
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= dashboard.keys()
    panels = cast("list[dict[str, Any]]", dashboard["panels"])
    assert len({panel["id"] for panel in panels}) == len(panels) >= 12
    asked: set[str] = set()
    for panel in panels:
        assert panel["title"]
        assert panel["gridPos"].keys() == {"h", "w", "x", "y"}
        for target in panel.get("targets", []):
            asked |= _used(target["expr"])
            assert _used(target["expr"]) <= exported(), target["expr"]
    assert _overlaps([panel["gridPos"] for panel in panels]) == []
    # Of the catalog, the dashboard shows everything.
    assert {figure.name for figure in figures()} - asked == set()


def _overlaps(places: list[Mapping[str, int]]) -> list[tuple[int, int]]:
    taken: set[tuple[int, int]] = set()
    twice: list[tuple[int, int]] = []
    for one in places:
        for cell in (
            (x, y) for x in range(one["x"], one["x"] + one["w"]) for y in range(one["y"], one["y"] + one["h"])
        ):
            if cell in taken or cell[0] >= 24:
                twice.append(cell)
            taken.add(cell)
    return twice
