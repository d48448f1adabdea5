"""The example project, copied as a user copies it: listed, scaffolded, checked and run by Dagster's own tools."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from ingest_pipeline.postgres.durability import REQUIRE_FSYNC
from tests.support.dagster.cluster import free_port
from tests.support.dagster.preloaded import preloaded
from tests.support.dagster.web_ui import WebUi, eventually
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.s3 import S3Server

_ROOT = Path(__file__).parents[3]
_TOOLS = Path(sys.executable).parent


@dataclass(slots=True)
class Project:
    directory: Path
    environment: dict[str, str]

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a tool of the virtual environment in the project, as from a shell."""
        return subprocess.run(
            [str(_TOOLS / command[0]), *command[1:]],
            env=preloaded({**self.environment, **environment}),
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    shutil.copytree(_ROOT / "examples" / "two_corpora", tmp_path / "project")
    (tmp_path / "home").mkdir()
    environment = {
        "PATH": f"{_TOOLS}:{os.environ['PATH']}",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(tmp_path / "home"),
        "DAGSTER_HOME": str(tmp_path / "home"),
        "DO_NOT_TRACK": "1",
        "LIBRARY_BUCKET": "s3://documents",
        "LIBRARY_DATABASE_URL": "postgresql://user:hunter2@127.0.0.1:9/library",
        "LIBRARY_OPENAI_API_KEY": "sk-hunter2",
    }
    return Project(tmp_path / "project", environment)


def test_dg_lists_scaffolds_and_checks(project: Project) -> None:
    listed = project.run("dg", "list", "components", "--json")
    assert "ingest_pipeline.IngestPipelineComponent" in listed.stdout, listed.stderr
    name = "ingest_pipeline.IngestPipelineComponent"
    made = project.run("dg", "scaffold", "defs", name, "Legal-Texts", "--source", "s3://documents/legal")
    assert made.returncode == 0, made.stdout + made.stderr
    written = project.directory / "two_corpora" / "defs" / "Legal-Texts" / "defs.yaml"
    assert "corpus: legal_texts" in written.read_text()
    checked = project.run("dg", "check", "defs")  # which begins with `dg check yaml`
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "All component YAML validated" in checked.stdout
    assert "All definitions loaded" in checked.stdout
    for found in written.parents[1].rglob("defs.yaml"):  # of several components of a type, dg checks the last it finds
        found.write_text(found.read_text().replace("source:", "sauce:"))
    refused = project.run("dg", "check", "yaml")
    assert refused.returncode != 0
    assert "sauce" in refused.stdout + refused.stderr


@pytest.fixture
def complete(project: Project, s3_server: S3Server, database_url: str, embeddings: EmbeddingServer) -> Project:
    """With all variables set, and a document in the bucket."""
    s3_server.put("documents/a.md", b"# A\n\nThe first document of the library.")
    project.environment |= {
        **s3_server.env,
        "LIBRARY_DATABASE_URL": database_url,
        "OPENAI_BASE_URL": embeddings.base_url,
        REQUIRE_FSYNC: "false",
    }
    return project


def test_dagster_validates_and_materializes_the_corpus_on_s3(
    complete: Project, database_url: str, embeddings: EmbeddingServer
) -> None:
    project = complete
    valid = project.run("dagster", "definitions", "validate")
    assert valid.returncode == 0, valid.stdout + valid.stderr
    assert "does not match" not in valid.stdout + valid.stderr
    launched = project.run("dg", "launch", "--job", "library_ingest_job")
    assert launched.returncode == 0, launched.stdout + launched.stderr
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT corpus, key FROM ingest_pipeline.current_document").fetchall()
    assert rows == [("library", "a.md")]
    assert embeddings.embedded == 1
    assert database_url not in launched.stdout + launched.stderr


def test_one_run_makes_the_files_ingests_evaluates_and_exports_them(project: Project) -> None:
    launched = project.run("dg", "launch", "--job", "refresh_handbook")
    assert launched.returncode == 0, launched.stdout + launched.stderr
    (exported,) = project.directory.glob("export/version_*")
    assert pq.read_table(exported / "documents.parquet")["key"].to_pylist() == ["leave.md", "travel.md"]


@pytest.mark.soak
def test_dg_dev_brings_both_corpora_up_to_date_with_their_sources(
    complete: Project, embeddings: EmbeddingServer
) -> None:
    for line in (_ROOT / "examples" / "two_corpora" / ".env.example").read_text().splitlines():
        name = line.removeprefix("# ").partition("=")[0]
        assert not name.isupper() or name in complete.environment
    made_files = complete.run("dg", "launch", "--assets", "handbook_files")
    assert made_files.returncode == 0, made_files.stdout + made_files.stderr
    port = free_port()
    log = (complete.directory / "dev.log").open("wb")
    command = [str(_TOOLS / "dg"), "dev", "--port", str(port)]
    with (
        log,
        subprocess.Popen(
            command,
            env=complete.environment,
            cwd=complete.directory,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        web = WebUi(port)
        try:
            eventually(lambda: made(web, "handbook") == 2 and made(web, "library") == 1)
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(300)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # on a busy machine, how long `dg dev` takes to end is its own
    assert embeddings.embedded == 1


def made(web: WebUi, corpus: str) -> int:
    """How many partitions of a corpus are materialized; -1 if the web server does not answer yet, or not all are."""
    with suppress(OSError):
        counts = web.partitions(corpus)
        if counts and counts["numMaterialized"] == counts["numPartitions"]:
            return counts["numMaterialized"]
    return -1
