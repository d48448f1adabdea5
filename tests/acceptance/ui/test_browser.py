"""A person at the web pages, in a real browser: files come, change and go in a bucket; a backfill meets a bad file.

And pages that show texts, names and errors which try to operate Dagster.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, Request, expect, sync_playwright

from ingest_pipeline.partitioning import PartitionScheme
from tests.support.dagster.cli import Cli
from tests.support.dagster.web_ui import WebUi, eventually
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.s3 import S3Server
from tests.support.world import paragraphs

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_PICTURES = os.environ.get("PICTURES")
_PATIENCE_MS = 480_000

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium is installed; no package registry of Python brings one"),
]


@dataclass(slots=True)
class Person:
    """Someone at the page that lists the partitions of the corpus."""

    page: Page
    url: str

    def open_partitions(self, asset: str = "metadata") -> None:
        self.page.goto(f"{self.url}/assets/docs/{asset}?view=partitions", wait_until="domcontentloaded")
        self.skip_invitation()

    def skip_invitation(self) -> None:
        """Dagster invites everybody to its community, once."""
        invitation = self.page.get_by_text("Skip", exact=True)
        counts = self.page.get_by_text(re.compile(r"^Materialized"))
        expect(invitation.or_(counts).first).to_be_visible(timeout=_PATIENCE_MS)
        self.page.wait_for_timeout(1500)
        if invitation.is_visible():
            invitation.click()

    def sees(self, **counts: int) -> None:
        """Wait until the page shows these numbers of partitions; it follows by itself."""
        for name, count in counts.items():
            label = self.page.get_by_text(f"{name.capitalize()} ({count})", exact=True)
            expect(label.first).to_be_visible(timeout=_PATIENCE_MS)

    def launches_a_backfill_of_all(self) -> None:
        self.page.get_by_role("button", name="Materialize").first.click()
        self.page.get_by_role("button", name="All", exact=True).click()
        self.picture("backfill")
        self.page.get_by_role("button", name="Launch backfill").click()
        expect(self.page.get_by_role("button", name="Launch backfill")).to_be_hidden(timeout=_PATIENCE_MS)

    def looks_at(self, url: str) -> None:
        """Open a page, and what it shows only when asked."""
        self.page.goto(url, wait_until="domcontentloaded")
        self.page.wait_for_timeout(1500)
        for button in self.page.get_by_text(re.compile(r"(Show|View) (Markdown|Table|more)", re.IGNORECASE)).all():
            if button.is_visible():
                button.dispatch_event("click")  # another element of the page may lie over it
                self.page.wait_for_timeout(500)
                self.page.keyboard.press("Escape")
        self.picture(f"page-{len(url)}")

    def picture(self, name: str) -> None:
        if _PICTURES:
            self.page.wait_for_timeout(2000)
            self.page.screenshot(path=Path(_PICTURES) / f"{name}.png")


@pytest.fixture
def bucket() -> Generator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def cli(cli: Cli, bucket: S3Server) -> Cli:
    cli.environment |= {
        **bucket.env,
        "INGEST_SOURCE": bucket.url("handbook"),
        "INGEST_ON_UNREADABLE": "fail",  # so that a page shows a failed partition
        "INGEST_LANCEDB_URI": bucket.url("lancedb"),
    }
    return cli


@pytest.fixture
def web(cli: Cli) -> Generator[WebUi]:
    with WebUi.over(cli) as running:
        yield running


@pytest.fixture
def person(web: WebUi) -> Generator[Person]:
    with _person(web) as someone:
        yield someone


@contextmanager
def _person(web: WebUi) -> Generator[Person]:
    with sync_playwright() as playwright:
        # As root, which CI is, Chromium runs without its sandbox or not at all.
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield Person(browser.new_page(viewport={"width": 1500, "height": 950}), web.url)
        browser.close()


def test_a_user_watches_a_bucket_and_backfills_it(
    cli: Cli, web: WebUi, bucket: S3Server, person: Person, embeddings: EmbeddingServer
) -> None:
    for number in range(6):
        bucket.put(f"handbook/chapter-{number}.txt", paragraphs(f"chapter{number}", 4).encode())
    person.open_partitions()
    person.sees(materialized=6, failed=0, missing=0)

    before = cli.json("history", "chapter-1.txt")[0]["version"]
    bucket.put("handbook/chapter-1.txt", paragraphs("rewritten", 4).encode())
    bucket.delete("handbook/chapter-5.txt")
    bucket.put("handbook/broken.pdf", b"%PDF-1.7 and then nothing")
    person.sees(materialized=5, failed=1, missing=0)
    eventually(lambda: cli.json("history", "chapter-1.txt")[0]["version"] > before)
    # Dagster fails a backfill whose partitions go before it begins: chapter-5 may still be on its way out.
    eventually(lambda: web.partitions() == {"numMaterialized": 5, "numFailed": 1, "numPartitions": 6})

    embedded = embeddings.embedded
    person.open_partitions()  # a page that knows chapter-5 still would ask for it
    person.sees(materialized=5, failed=1, missing=0)
    person.launches_a_backfill_of_all()
    _until_backfill_ended(web)
    person.open_partitions()
    person.sees(materialized=5, failed=1, missing=0)
    person.picture("partitions")
    assert web.partitions() == {"numMaterialized": 5, "numFailed": 1, "numPartitions": 6}
    assert embeddings.embedded == embedded, "a backfill over unchanged documents buys nothing"
    audit = cli.json("audit")
    assert (audit["documents"], audit["violations"]) == (5, [])


def _until_backfill_ended(web: WebUi) -> None:
    """Its runs have ended; Dagster's word that the whole has comes half a minute later."""

    def ended() -> bool:
        found = web.ask("{ runsOrError { ... on Runs { results { status tags { key } } } } }")["runsOrError"]["results"]
        statuses = [run["status"] for run in found if "dagster/backfill" in {tag["key"] for tag in run["tags"]}]
        return bool(statuses) and set(statuses) <= {"SUCCESS", "FAILURE"}

    eventually(ended)


def _attack(name: str) -> str:
    """Markdown of an image whose address makes Dagster's UI add a partition, as soon as a page shows the image."""
    place = 'repositoryLocationName:"ingest_pipeline.definitions",repositoryName:"__repository__"'
    added = f'repositorySelector:{{{place}}},partitionsDefName:"docs_documents",partitionKey:"owned-{name}"'
    return f"![](/graphql?query=mutation{{addDynamicPartition({added}){{__typename}}}})"


@pytest.mark.promise("markdown")
def test_no_text_name_or_error_can_operate_dagster(
    tmp_path: Path, database_url: str, embeddings: EmbeddingServer
) -> None:
    cli = Cli.over(tmp_path, database_url, embeddings)
    text, name, bad = _attack("text"), f"{_attack('name')}.txt", f"{_attack('bad')}.pdf"
    cli.put(name, f"Before.\n````\n{text}\n```\n{text}\n`````\n\n{text}\n")
    cli.put(bad, "%PDF-1.7 and then nothing")
    cli.run("ingest")
    with WebUi.over(cli) as web, _person(web) as person:
        runs = web.ask("{ runsOrError { ... on Runs { results { runId } } } }")["runsOrError"]["results"]
        requests: list[Request] = []
        person.page.on("request", lambda request: requests.append(request))  # noqa: PLW0108  a builtin takes no mark
        person.open_partitions("chunks")
        assets = f"{web.url}/assets/docs"
        partition = f"partitions&partition={quote(PartitionScheme.parse('file').partition_of(name), safe='')}"
        person.looks_at(f"{assets}/chunks?view={partition}")
        expect(person.page.get_by_text(text).first).to_be_visible(timeout=_PATIENCE_MS)
        views = ("chunks?view=overview", f"metadata?view={partition}", "metadata?view=events", "metadata?view=checks")
        for page in (*(f"{assets}/{view}" for view in views), f"{web.url}/runs/{runs[-1]['runId']}"):
            person.looks_at(page)
        expect(person.page.get_by_text("owned-bad").first).to_be_visible(timeout=_PATIENCE_MS)
        sent = [one.url for one in requests if "/graphql" in one.url and one.method == "GET"]
        images = [one.url for one in requests if one.resource_type == "image" and not one.url.startswith("data:")]
        assert sent == []
        assert [url for url in images if not url.startswith(f"{web.url}/_next/static/")] == [], "not Dagster's own"
        assert web.partitions()["numPartitions"] == 1, "none was added, and a file that cannot be read has none"
