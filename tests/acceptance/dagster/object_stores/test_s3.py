"""Source and table both on S3: the same pipeline, through the sensor, a run and the reports."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from ingest_pipeline.assets.skipped import SkippedDocuments
from tests.support.dagster.cli import Cli
from tests.support.dagster.world import METADATA, DagsterWorld
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.s3 import S3Server
from tests.support.world import paragraphs

HOSTILE = [
    "a'b\"c.txt",
    "a...b.txt",
    "a,b.txt",
    "h\u00e9llo/\u65e5\u672c.txt",
    "n" * 300,
    " lead.txt",
    "a%2Fb.txt",
    "{x}*[y]|z.txt",
]
UNREADABLE = ["../x", "a\tb"]


@pytest.fixture
def variables(s3: S3Server, tmp_path: Path) -> dict[str, str]:
    locations = {"INGEST_SOURCE": s3.url(tmp_path.name), "INGEST_LANCEDB_URI": s3.url(f"lancedb/{tmp_path.name}")}
    return s3.env | locations


def test_objects_are_found_published_and_removed(dagster: DagsterWorld, s3: S3Server, tmp_path: Path) -> None:
    s3.put(f"{tmp_path.name}/a.txt", paragraphs("alpha", 3).encode())
    s3.put(f"{tmp_path.name}/b.txt", paragraphs("beta", 2).encode())
    request = dagster.tick("docs_source_sensor")
    assert isinstance(request, dg.SensorResult)
    assert dagster.run().success
    assert dagster.materialized(METADATA) == {"a.txt", "b.txt"}
    assert dagster.audit().violations == []

    s3.put(f"{tmp_path.name}/a.txt", paragraphs("omega", 2).encode())
    s3.delete(f"{tmp_path.name}/b.txt")
    assert dagster.run().success
    report = dagster.audit()
    assert (report.documents, report.violations) == (1, [])
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SkipReason)


def test_hostile_names_are_published_or_reported_as_unreadable(
    dagster: DagsterWorld, s3: S3Server, tmp_path: Path
) -> None:
    for number, key in enumerate([*HOSTILE, *UNREADABLE]):
        s3.put(f"{tmp_path.name}/{key}", paragraphs(f"topic {number}", 1).encode())
    result = dagster.run()
    assert result.success
    report = dagster.audit()
    assert (report.documents, report.violations) == (len(HOSTILE), [])
    skipped = SkippedDocuments.reported_by(result)
    assert skipped.reasons == {"inaccessible": len(UNREADABLE)}
    assert all("has a name that cannot be addressed" in document.problem for document in skipped.listed)
    for partition in dagster.materialized(METADATA):
        assert dagster.run(partition=partition).success, partition


@pytest.mark.parametrize(
    ("setting", "value", "status"),
    [("INGEST_SOURCE", "s3://no-such-bucket/x", 1), ("INGEST_LANCEDB_URI", "s3://no-such-bucket/x", 1)],
)
def test_a_bucket_that_does_not_exist_is_named(  # noqa: PLR0917  pytest's fixtures come as arguments
    s3: S3Server,
    tmp_path: Path,
    database_url: str,
    embeddings: EmbeddingServer,
    setting: str,
    value: str,
    status: int,
) -> None:
    cli = Cli.over(tmp_path, database_url, embeddings)
    cli.put("a.txt", paragraphs("alpha", 1))
    done = cli.run("ingest", **s3.env, **{setting: value})
    assert done.exit_code == status
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert "no-such-bucket" in line
    assert setting in line
