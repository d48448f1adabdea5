"""`ingest-pipeline listen` is killed, and the next listener continues with the same notice."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.dagster.cli import Cli
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.notices import NoticeQueue
from tests.support.servers.s3 import S3Server
from tests.support.world import paragraphs

pytestmark = [pytest.mark.promise("events", "sigkill"), pytest.mark.soak]
_LAST = "notices deleted:after"


@pytest.mark.parametrize(
    "place",
    [
        "notices received:after",
        "batch recorded:after",
        "prepared:after",
        "lance commit:after",
        "manifest installed:before",
        "acknowledged:after",
        "notices deleted:before",
        _LAST,
    ],
)
def test_a_listener_that_is_killed_leaves_its_notice_to_the_next(  # noqa: PLR0917  pytest's parameters come as arguments
    place: str, s3: S3Server, database_url: str, corpus_name: str, embeddings: EmbeddingServer, tmp_path: Path
) -> None:
    queue = NoticeQueue(s3, f"{tmp_path.name}/")
    queue.bodies()  # the test event
    cli = Cli.over(tmp_path, database_url, embeddings)
    cli.environment |= {**s3.env, "INGEST_SOURCE": s3.url(tmp_path.name), "INGEST_EVENTS": queue.address}
    cli.environment["INGEST_CORPUS"] = corpus_name  # the tests of a module share a database
    assert cli.run("ingest").exit_code == 0  # creates the corpus
    s3.put(f"{tmp_path.name}/a.txt", paragraphs(corpus_name, 2).encode())
    assert cli.spawn("listen", INGEST_FAILPOINTS=f"{place}=kill").returncode == -signal.SIGKILL
    assert sum(queue.counts()) == (0 if place == _LAST else 1)
    queue.send(queue.notice(f"{tmp_path.name}/a.txt"))  # as it appears again after a minute
    assert cli.spawn("listen", INGEST_FAILPOINTS=f"{_LAST}=kill").returncode == -signal.SIGKILL
    assert json.loads(cli.run("plan", "--json").output)["documents"] == []
    assert cli.run("recover").exit_code == 0  # an audit on a slow machine reports the saga of the killed listener
    audit = cli.run("audit")
    assert audit.exit_code == 0, audit.output
    assert max(embeddings.texts.values()) == 1
