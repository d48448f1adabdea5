"""A publication that does not pass its gates, in Dagster: a failed blocking check, the sensor, the job that decides."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.orchestration.build import build_definitions
from tests.support.crash.migrating import WIDTH
from tests.support.dagster.world import HEAD, DagsterWorld
from tests.support.servers.embedding_server import NARROWING_MODEL

pytestmark = pytest.mark.promise("gates")


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "golden.jsonl"
    file.write_text(
        "\n".join(json.dumps({"query": f"{name} words", "documents": [f"{name}.txt"]}) for name in ("alpha", "beta"))
    )
    return {"INGEST_GOLDEN_SET": str(file), "INGEST_GOLDEN_K": "1", "INGEST_GATE_MIN_RECALL": "0.8"}


@pytest.fixture
def gated(dagster: DagsterWorld) -> DagsterWorld:
    for name in ("alpha", "beta", "gamma"):
        dagster.put(f"{name}.txt", f"{name} words")
    done = dagster.run()
    assert done.success
    check = evaluation(done, dagster)
    assert (check.passed, check.metadata["recall"].value, check.metadata["recall_limit"].value) == (True, 1.0, 0.8)
    return dagster


def evaluation(result: dg.ExecuteInProcessResult, dagster: DagsterWorld) -> dg.AssetCheckEvaluation:
    """What the run said about the check."""
    records = dagster.instance.get_records_for_run(
        result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ).records
    events = [record.event_log_entry.dagster_event for record in records]
    evaluations = [event.asset_check_evaluation_data for event in events if event is not None]
    (found,) = (one for one in evaluations if one.check_name == "gate")
    assert (found.asset_key, found.blocking, found.severity) == (HEAD, True, dg.AssetCheckSeverity.ERROR)
    return found


def decide(dagster: DagsterWorld, action: str) -> dg.ExecuteInProcessResult:
    job = dagster.definitions.resolve_job_def("docs_gate_job")
    config = {"ops": {"docs_gate": {"config": {"action": action}}}}
    return job.execute_in_process(run_config=config, instance=dagster.instance, raise_on_error=False)


def published(dagster: DagsterWorld) -> tuple[int, int]:
    """How often the partition of the document and the head were materialized."""
    heads = dagster.instance.fetch_materializations(HEAD, limit=100).records
    return len(dagster.data_versions("beta.txt")), len(heads)


def test_a_blocked_publication_fails_its_check_and_is_released_from_the_launchpad(gated: DagsterWorld) -> None:
    gated.put("beta.txt", "nothing of the kind")
    blocked = gated.run()
    assert not blocked.success
    assert published(gated) == (1, 1)
    failed = evaluation(blocked, gated)
    assert (failed.passed, failed.metadata["recall"].value, failed.metadata["blocked"].value) == (False, 0.5, 1)
    table = failed.metadata["found"]
    assert isinstance(table, dg.TableMetadataValue)
    (row,) = (record.data for record in table.records)
    assert (row["figure"], row["value"], row["limit"], row["ids"]) == ("recall", "0.5", "0.8", "beta words")
    assert gated.follow() == [], "the sensor does not request it again"
    again = gated.run()
    assert (again.success, evaluation(again, gated).passed, published(gated)) == (True, False, (1, 1))
    before = gated.embeddings.embedded
    released = decide(gated, "RELEASE")
    assert released.success
    assert evaluation(released, gated).passed
    assert published(gated) == (2, 2)
    assert gated.embeddings.embedded == before
    assert gated.follow() == []
    assert not decide(gated, "RELEASE").success, "nothing waits any more"


def test_a_dropped_publication_is_planned_again_and_the_next_good_one_is_published(gated: DagsterWorld) -> None:
    gated.put("beta.txt", "nothing of the kind")
    assert not gated.run().success
    dropped = decide(gated, "DROP")
    assert dropped.success
    assert evaluation(dropped, gated).passed
    gated.put("beta.txt", "beta words, once more")
    (done,) = gated.follow()
    assert done.success
    assert evaluation(done, gated).passed
    assert published(gated) == (2, 2)


def test_steps_after_the_corpus_wait_for_the_check(gated: DagsterWorld) -> None:
    ran: list[bool] = []

    @dg.asset(deps=[HEAD])
    def report() -> None:
        ran.append(True)

    everything = dg.define_asset_job("everything", dg.AssetSelection.all())
    after = dg.Definitions(assets=[report], jobs=[everything])
    job = dg.Definitions.merge(build_definitions(gated.settings), after).resolve_job_def("everything")
    gated.put("gamma.txt", "gamma words, changed")
    assert job.execute_in_process(instance=gated.instance, raise_on_error=False).success
    assert ran == [True]
    gated.put("beta.txt", "nothing of the kind")
    assert not job.execute_in_process(instance=gated.instance, raise_on_error=False).success
    assert ran == [True]


def test_a_reembedding_that_does_not_pass_fails_the_check(gated: DagsterWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is dropped, and the next one passes."""
    golden = Path(gated.settings.golden_set or "")
    good = golden.read_text()
    golden.write_text(f'{good}\n{{"query": "beta words", "documents": ["gamma.txt"]}}')
    for name, value in {"MODEL": NARROWING_MODEL, "DIMENSIONS": str(WIDTH)}.items():
        monkeypatch.setenv(f"INGEST_EMBEDDING_{name}", value)
    gated.settings = CorpusConfig.from_environment()
    job = gated.definitions.resolve_job_def("docs_reembed_job")
    refused = job.execute_in_process(instance=gated.instance, raise_on_error=False)
    failed = evaluation(refused, gated)
    assert (refused.success, failed.passed, failed.metadata["blocked"].value) == (False, False, 1)
    assert failed.metadata["recall"].value == pytest.approx(2 / 3, abs=1e-4)
    assert evaluation(decide(gated, "DROP"), gated).passed
    golden.write_text(good)
    done = job.execute_in_process(instance=gated.instance, raise_on_error=False)
    assert done.success
    assert evaluation(done, gated).metadata["recall"].value == 1.0
