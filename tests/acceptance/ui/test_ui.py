"""Dagster's real daemon and web server, started as a user starts them, watching a folder.

All tests share them, because they take many seconds of CPU to start. The source sensor skips files younger than a
day, so only the test decides what happens to a new file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import nullcontext
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from playwright.sync_api import Request, expect

from ingest_pipeline.cli import _session
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.partitioning import PartitionScheme
from tests.support.dagster.browser import PATIENCE_MS, Person, needs_browser
from tests.support.dagster.cli import Cli
from tests.support.dagster.preloaded import preloaded
from tests.support.dagster.web_ui import WebUi, eventually
from tests.support.servers.databases import empty_database
from tests.support.servers.embedding_server import POISON, EmbeddingServer
from tests.support.world import paragraphs

pytestmark = pytest.mark.timeout(1200)

_DAY_SECONDS = 86400


@dataclass(frozen=True, slots=True)
class WatchedFolder:
    """A folder and the web server and daemon that watch it."""

    cli: Cli
    web: WebUi
    embeddings: EmbeddingServer

    def put_for_the_sensor(self, key: str, text: str) -> None:
        """Write a file that is old enough for the source sensor."""
        path = self.cli.put(key, text)
        written = time.time() - 2 * _DAY_SECONDS
        os.utime(path, (written, written))

    def counts(self) -> tuple[int, int, int]:
        """How many partitions are materialized, how many failed, and how many there are."""
        found = self.web.partitions()
        return found["numMaterialized"], found["numFailed"], found["numPartitions"]

    def partitions(self) -> set[str]:
        query = '{ assetNodeOrError(assetKey: {path: ["docs", "metadata"]}) { ... on AssetNode { partitionKeys } } }'
        return set(self.web.ask(query)["assetNodeOrError"]["partitionKeys"])


@pytest.fixture(scope="module")
def watched(postgres: str, entrance: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[WatchedFolder]:
    with EmbeddingServer() as embeddings:
        cli = Cli.over(tmp_path_factory.mktemp("watched"), empty_database(postgres, entrance), embeddings)
        cli.environment["INGEST_MIN_AGE_SECONDS"] = str(_DAY_SECONDS)
        with WebUi.over(cli, brisk=True) as web:
            yield WatchedFolder(cli, web, embeddings)


@pytest.mark.parametrize("browser", [False, pytest.param(True, marks=[pytest.mark.soak, needs_browser])])
def test_a_user_sees_files_come_change_fail_and_go_and_repeats_what_failed(
    watched: WatchedFolder, browser: bool
) -> None:
    """The sensor, the daemon and the pages; without a browser, what the pages ask for."""
    cli, web, embeddings = watched.cli, watched.web, watched.embeddings
    changed, removed, bad = (f"{name}-{browser}.txt" for name in ("changed", "removed", "bad"))
    with Person.at(web) if browser else nullcontext() as person:

        def seen(materialized: int, failed: int) -> None:
            eventually(lambda: watched.counts() == (materialized, failed, materialized + failed))
            if person is not None:
                person.sees(materialized=materialized, failed=failed, missing=0)

        others, failed, partitions = watched.counts()
        assert (others, failed) == (partitions, 0)
        for key in (changed, removed):
            watched.put_for_the_sensor(key, paragraphs(key, 2))
        eventually(lambda: watched.counts() == (others + 2, 0, others + 2))
        if person is not None:
            person.open_partitions()
        seen(others + 2, 0)

        before = cli.json("history", changed)[0]["version"]
        watched.put_for_the_sensor(changed, paragraphs("omega", 2))
        watched.put_for_the_sensor(bad, f"{POISON} is refused by the API.")
        (cli.directory / "source" / removed).unlink()
        seen(others + 1, 1)
        eventually(lambda: cli.json("history", changed)[0]["version"] > before)

        embedded = embeddings.embedded
        cli.put(bad, paragraphs(f"mended {bad}", 2))  # the sensor leaves it alone, because it was just written
        if person is not None:
            person.open_partitions()  # a page that still knows the removed file would ask for it
            person.launches_a_backfill_of_all()
        else:
            web.backfill(watched.partitions())
        seen(others + 2, 0)
        eventually(web.no_run_is_open)
        if person is not None:
            person.picture("partitions")
    assert embeddings.embedded - embedded == cli.json("history", bad)[0]["chunks"], "unchanged ones cost nothing"
    assert cli.json("audit")["violations"] == []


def test_a_run_repeated_from_its_failure_does_the_rest(watched: WatchedFolder) -> None:
    cli, web, embeddings = watched.cli, watched.web, watched.embeddings
    materialized, _, partitions = watched.counts()
    cli.put("a.txt", paragraphs("alpha", 2))
    cli.put("b.txt", POISON)
    run = web.launch()
    eventually(lambda: web.status(run) == "FAILURE")
    assert watched.counts() == (materialized + 1, 1, partitions + 2)
    embedded = embeddings.embedded
    cli.put("b.txt", paragraphs("beta", 2))
    again = web.execute_again(run)
    eventually(lambda: web.status(again) == "SUCCESS")
    assert watched.counts() == (materialized + 2, 0, partitions + 2)
    assert embeddings.embedded - embedded == cli.json("history", "b.txt")[0]["chunks"]
    assert len(cli.json("history", "a.txt")) == 1


def test_a_backfill_from_dagsters_own_command_line_goes_partition_by_partition(watched: WatchedFolder) -> None:
    cli, web = watched.cli, watched.web
    cli.put("a.txt", paragraphs("alpha", 3))
    cli.put("b.txt", paragraphs("beta", 3))
    cli.json("ingest")
    materialized, failed, partitions = watched.counts()
    assert (materialized, failed) == (partitions, 0)
    cli.put("a.txt", POISON)
    job = ["-m", "ingest_pipeline.definitions", "-j", "docs_ingest_job"]
    chosen = ["--partitions", "a.txt,b.txt", "--noprompt"]
    command = [sys.executable, "-m", "dagster", "job", "backfill", *job, *chosen]
    environment = cli.environment | _session.dagster_environment(CorpusConfig.from_environment(cli.environment))
    subprocess.run(command, env=preloaded({**os.environ, **environment}), check=True)
    # Each partition is a run of its own there, and to the backfill all have ended alike.
    eventually(lambda: {"status": "COMPLETED", "numPartitions": 2} in web.backfills())
    eventually(lambda: watched.counts() == (partitions - 1, 1, partitions))


@pytest.mark.promise("shown-in-dagster")
def test_runs_of_the_command_line_are_on_the_page_of_their_job_and_on_the_timeline(watched: WatchedFolder) -> None:
    cli, web = watched.cli, watched.web
    place = '{key: ".dagster/repository", value: "__repository__@ingest_pipeline.definitions"}'

    def listed(job: str) -> list[str]:
        return [run["runId"] for run in web.runs(f'{{pipelineName: "{job}", tags: [{place}]}}')]

    before = {job: set(listed(job)) for job in ("docs_ingest_job", "docs_rollback_job")}
    cli.put("a.txt", paragraphs("alpha", 4))
    cli.put("b.txt", paragraphs("beta", 4))
    whole, one = cli.json("ingest")["run_id"], cli.json("ingest", "a.txt")["run_id"]
    version = cli.json("history")[0]["version"]
    cli.put("a.txt", paragraphs("omega", 2))
    again = cli.json("ingest")["run_id"]
    done = cli.run("rollback", "--to", str(version))
    assert done.exit_code == 0, done.stderr
    assert set(listed("docs_ingest_job")) - before["docs_ingest_job"] == {whole, one, again}
    assert set(listed("docs_rollback_job")) - before["docs_rollback_job"]
    # The timeline has a row for each job of a code location, and leaves out runs that belong to none.
    for run in web.runs("{statuses: [SUCCESS]}"):
        assert run["repositoryOrigin"] == {
            "repositoryName": "__repository__",
            "repositoryLocationName": "ingest_pipeline.definitions",
        }
    assert web.runs('{tags: [{key: "dagster/partition", value: "a.txt"}]}')[0]["runId"] == one


@pytest.mark.soak  # the first test sees the same on the pages
def test_added_changed_bad_and_removed_files_are_shown(watched: WatchedFolder) -> None:
    cli = watched.cli
    documents = cli.json("status")["documents"] if watched.partitions() else 0
    materialized, failed, partitions = watched.counts()
    watched.put_for_the_sensor("c.txt", paragraphs("gamma", 2))
    watched.put_for_the_sensor("d.txt", paragraphs("delta", 2))
    watched.put_for_the_sensor("bad.txt", f"{POISON} is refused by the API.")
    eventually(lambda: watched.counts() == (materialized + 2, failed + 1, partitions + 3))
    before = cli.json("history", "c.txt")[0]["version"]
    watched.put_for_the_sensor("c.txt", paragraphs("omega", 2))
    (cli.directory / "source" / "bad.txt").unlink()
    (cli.directory / "source" / "d.txt").unlink()
    eventually(
        lambda: cli.json("history", "c.txt")[0]["version"] > before and cli.json("status")["documents"] == documents + 1
    )
    assert cli.json("audit")["violations"] == []


def _attack(name: str) -> str:
    """Markdown of an image whose address makes Dagster's UI add a partition, as soon as a page shows the image."""
    place = 'repositoryLocationName:"ingest_pipeline.definitions",repositoryName:"__repository__"'
    added = f'repositorySelector:{{{place}}},partitionsDefName:"docs_documents",partitionKey:"owned-{name}"'
    return f"![](/graphql?query=mutation{{addDynamicPartition({added}){{__typename}}}})"


@pytest.mark.promise("markdown")
@needs_browser
def test_no_text_name_or_error_can_operate_dagster(watched: WatchedFolder) -> None:
    cli, web = watched.cli, watched.web
    before = watched.partitions()
    text, name, bad = _attack("text"), f"{_attack('name')}.txt", f"{_attack('bad')}.pdf"
    cli.put(name, f"Before.\n````\n{text}\n```\n{text}\n`````\n\n{text}\n")
    cli.put(bad, "%PDF-1.7 and then nothing")
    run = cli.json("ingest")["run_id"]
    added = PartitionScheme.parse("file").partition_of(name)
    with Person.at(web) as person:
        requests: list[Request] = []
        person.page.on("request", lambda request: requests.append(request))  # noqa: PLW0108  a builtin takes no mark
        person.open_partitions("chunks")
        assets = f"{web.url}/assets/docs"
        partition = f"partitions&partition={quote(added, safe='')}"
        person.looks_at(f"{assets}/chunks?view={partition}")
        expect(person.page.get_by_text(text).first).to_be_visible(timeout=PATIENCE_MS)
        views = ("chunks?view=overview", f"metadata?view={partition}", "metadata?view=events", "metadata?view=checks")
        for page in (*(f"{assets}/{view}" for view in views), f"{web.url}/runs/{run}"):
            person.looks_at(page)
        expect(person.page.get_by_text("owned-bad").first).to_be_visible(timeout=PATIENCE_MS)
        sent = [one.url for one in requests if "/graphql" in one.url and one.method == "GET"]
        images = [one.url for one in requests if one.resource_type == "image" and not one.url.startswith("data:")]
        assert sent == []
        assert [url for url in images if not url.startswith(f"{web.url}/_next/static/")] == [], "not Dagster's own"
        assert watched.partitions() - before == {added}, "none was added, and a file that cannot be read has none"
