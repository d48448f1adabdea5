"""A person at the web pages, in a real browser: files come, change and go in a bucket; a backfill meets a bad file."""

from __future__ import annotations

import pytest

from tests.support.dagster.browser import Person, needs_browser
from tests.support.dagster.cli import Cli
from tests.support.dagster.web_ui import WebUi, eventually
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.s3 import S3Server
from tests.support.world import paragraphs

# `test_ui.py` sees the same over a folder, and a failed partition that is repeated.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.soak, needs_browser]


@pytest.fixture
def cli(cli: Cli, s3: S3Server) -> Cli:
    cli.environment |= {
        **s3.env,
        "INGEST_SOURCE": s3.url("handbook"),
        "INGEST_ON_UNREADABLE": "fail",  # so that a page shows a failed partition
        "INGEST_LANCEDB_URI": s3.url("lancedb"),
    }
    return cli


def test_a_user_watches_a_bucket_and_backfills_it(cli: Cli, s3: S3Server, embeddings: EmbeddingServer) -> None:
    with WebUi.over(cli) as web, Person.at(web) as person:
        for number in range(6):
            s3.put(f"handbook/chapter-{number}.txt", paragraphs(f"chapter{number}", 4).encode())
        person.open_partitions()
        person.sees(materialized=6, failed=0, missing=0)

        before = cli.json("history", "chapter-1.txt")[0]["version"]
        s3.put("handbook/chapter-1.txt", paragraphs("rewritten", 4).encode())
        s3.delete("handbook/chapter-5.txt")
        s3.put("handbook/broken.pdf", b"%PDF-1.7 and then nothing")
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
