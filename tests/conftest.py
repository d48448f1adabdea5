"""What every test may ask for: a Postgres of their own, a corpus, a source folder and an embedding server."""

from __future__ import annotations

import gc
import itertools
import multiprocessing.util
import os
import signal
import tempfile
from collections.abc import Generator
from contextlib import suppress
from multiprocessing import parent_process
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import settings

from ingest_pipeline.planning import backoff, run_backoff
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.durability import REQUIRE_FSYNC
from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
from tests.support.dagster.preloaded import end_of_start, fork_test_processes
from tests.support.environment import restored_environment
from tests.support.memory import keep_temporary_files_in_memory
from tests.support.mutants import apply_from_environment
from tests.support.servers import pooler
from tests.support.servers.databases import (
    NEW_SERVER,
    copy_new_server,
    copy_of,
    empty_database,
    has_ended,
    hash_password_once,
)
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.s3 import S3Server
from tests.support.servers.tcp_proxy import TcpProxy
from tests.support.world import World
from tools import figures

apply_from_environment()
end_of_start()
_memory = keep_temporary_files_in_memory()
_FAILED = pytest.StashKey[int]()

# A shell starts background jobs with SIGINT ignored. Dagster gives SIGTERM the same handler at the end of a run, and
# the servers that a test starts would inherit it and not stop.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, wherever it is, and without a limit of time. Only `make soak` draws others each time.
settings.load_profile("ci")

gc.disable()  # until the tests begin: what imports and the collection create stays to the end

_buckets = itertools.count()
_SHOWN_REQUESTS = 200

_LONG_FILES = (
    "ui/test_ui",
    "ui/test_composed",
    "ui/test_browser",
    "ui/test_dagster_deaths",
    "deaths/test_crash",
    "deaths/test_columns",
    "definitions/test_example",
    "definitions/test_user_code_example",
    "cli/test_cli",
    "deaths/test_zombie",
    "deaths/test_reembed",
    "soak/test_storm",
    "stores/test_object_store",
    "runs/test_dagster",
    "runs/test_rollback",
    "postgres/test_embedded_postgres",
    "postgres/test_embedded_users",
    "property/test_model",
    "sensors/test_source_sensor",
    "deaths/test_batch_jobs",
    "deaths/test_binding",
    "deaths/test_user_code",
    "stores/test_wire",
    "faults/test_mutants",
    "sources/test_s3",
    "maintenance/test_retention",
    "saga/test_rollback",
    "restore/test_rebuild",
    "restore/test_relocate",
    "preparation/test_edits_stay_local",
    "concurrency/test_crowds",
    "deaths/test_resume",
    "search/test_search",
    "integrations/test_mcp",
    "lance/test_damage",
    "maintenance/test_maintain",
    "maintenance/test_audit",
    "maintenance/test_drop",
    "saga/test_recover",
    "parsing/test_parser_children",
    "cli/test_rollback",
    "parsing/test_parsing",
    "property/test_access",
    "cli/test_unreadable",
    "cli/test_wrong_inputs",
    "ingestion/test_reembed",
    "cli/test_main",
    "head/test_partition_schemes",
    "postgres/test_roles",
    "preparation/test_user_code",
    "docs/test_code_blocks",
)
"""Folder and name of the files that take longest, longest first: by the CPU of their processes, and by what they wait
for. All others take a few seconds."""


@pytest.fixture(autouse=True)
def _environment() -> Generator[None]:
    """Restore the environment, which the command line changes when a test calls it in this process."""
    with restored_environment():
        yield


@pytest.fixture(autouse=True, scope="session")
def _clean_environment() -> Generator[None]:
    """No setting of the machine's user reaches a test."""
    with restored_environment():
        for name in list(os.environ):
            if name.startswith(("INGEST_", "OPENAI_", "AWS_", "DAGSTER_")):
                del os.environ[name]
        os.environ[REQUIRE_FSYNC] = "false"
        yield


@pytest.fixture(autouse=True, scope="session")
def _long_backoff() -> Generator[None]:
    """What failed waits for hours, not seconds, so that no test depends on how long its next step takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backoff, "_FIRST_DELAY", 120 * backoff._FIRST_DELAY)  # pyright: ignore[reportPrivateUsage]
        for name in ("_FIRST_DELAY", "_MAX_DELAY"):
            patch.setattr(run_backoff, name, 60 * getattr(run_backoff, name))
        yield


@pytest.fixture(scope="session")
def postgres_folder() -> Generator[Path]:
    """The folder of a server that the tests may restart, or of the one that `tools.mutants` runs already."""
    if running := os.environ.get("TEST_POSTGRES"):
        yield Path(running)
        return
    directory = Path(tempfile.mkdtemp(prefix="server-"))
    yield directory / "postgres"
    # Many databases are many thousand files. Nobody has to wait until they are gone.
    os.posix_spawnp("rm", ["rm", "-rf", str(directory)], os.environ, setsid=True)


@pytest.fixture(scope="session")
def postgres_server(postgres_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[EmbeddedPostgres]:
    """A server that the tests may restart."""
    if "PYTEST_XDIST_WORKER" in os.environ and not postgres_folder.exists():
        copy_new_server(tmp_path_factory.getbasetemp().parent / "new-server", postgres_folder)
    server = EmbeddedPostgres(postgres_folder, prepare=NEW_SERVER)
    hash_password_once(server.start())
    yield server
    if not os.environ.get("TEST_POSTGRES") and (pid := server.postmaster_pid()):
        os.kill(pid, signal.SIGQUIT)  # at once: a checkpoint of a hundred databases takes long and is not needed
    server.release()


@pytest.fixture(scope="session")
def postgres(postgres_server: EmbeddedPostgres) -> str:
    """The url of the server's maintenance database."""
    return postgres_server.start()


@pytest.fixture(scope="session")
def entrance(postgres: str) -> Generator[str]:
    """The url by which the package reaches that database: straight, or through a pooler if POOLER is set."""
    if not pooler.WANTED:
        yield postgres
        return
    between = pooler.Pooler(postgres)
    yield between.url
    between.stop()


@pytest.fixture(scope="session")
def migrated(postgres: str, entrance: str) -> str:
    """The url of a database with the package's tables, of which tests get copies: that is quicker than a migration."""
    url = empty_database(postgres, entrance)
    with Database(url):
        pass
    return url


@pytest.fixture
def database_url(postgres: str, entrance: str, migrated: str) -> Generator[str]:
    """The url of a database with the package's tables, and nothing in them."""
    if pooler.WANTED:  # connections to the template remain, which forbid a copy
        yield empty_database(postgres, entrance)
        return
    url = copy_of(postgres, migrated)
    yield url
    has_ended(url)


@pytest.fixture
def database(database_url: str) -> Generator[Database]:
    with Database(database_url) as opened:
        yield opened


@pytest.fixture
def proxy(entrance: str) -> Generator[TcpProxy]:
    """A proxy before Postgres, for tests whose connections have to fail."""
    port = urlsplit(entrance).port
    assert port is not None
    with TcpProxy("127.0.0.1", port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def s3_server() -> Generator[S3Server]:
    """An S3 server, which takes seconds to start."""
    with S3Server() as server:
        yield server


@pytest.fixture(scope="module")
def s3(s3_server: S3Server) -> S3Server:
    """An S3 server with one empty bucket, for each file of tests that asks."""
    return s3_server.with_bucket(f"documents-{next(_buckets)}")


@pytest.fixture
def embeddings() -> Generator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


@pytest.fixture
def corpus_name() -> str:
    return "docs"


@pytest.fixture
def world(database: Database, embeddings: EmbeddingServer, tmp_path: Path, corpus_name: str) -> World:
    """A source folder, a corpus over it, and what a test does to both."""
    return World.over(tmp_path, database, embeddings, corpus_name)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Exclude all that was imported and collected from the work of the garbage collector: it stays to the end."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, so that the last minutes of a run are not one file in one process."""
    rank = {name: number for number, name in enumerate(_LONG_FILES)}
    items.sort(key=lambda item: rank.get(f"{item.path.parent.name}/{item.path.stem}", len(rank)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the S3 server of a test that failed has, and the last requests to it."""
    report = yield
    server = getattr(item, "funcargs", {}).get("s3")
    if report.failed and isinstance(server, S3Server):
        with suppress(OSError, ValueError):  # the server is gone
            report.sections.append(("Requests to the S3 server", "\n".join(server.requests()[-_SHOWN_REQUESTS:])))
            report.sections.append(("Keys in the bucket", "\n".join(map(repr, server.keys()))))
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let multiprocessing remove its folder now: some processes of pytest-xdist end without Python's exit.

    A mutant's test runs in a forked process, which shares the folder with its parent. The files of the tests are
    removed too, unless one failed; a later run removes those then.
    """
    if parent_process() is None:
        multiprocessing.util._exit_function()  # type: ignore[attr-defined]  # it does nothing when called again
    if _memory is not None and not config.stash.get(_FAILED, 0):
        # Nobody has to wait until so many files are gone.
        os.posix_spawnp("rm", ["rm", "-rf", str(_memory)], os.environ, setsid=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep the figures of a whole run; a part of one says nothing."""
    session.config.stash[_FAILED] = session.testsfailed
    told_to: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if told_to is not None:
        told_to["figures"] = figures.counted()
        return
    whole = session.config.args == session.config.getini("testpaths") and not session.config.option.collectonly
    if whole and not os.environ.get("MUTANT"):
        soak = session.config.option.markexpr == "soak"
        figures.write(session.testscollected - session.testsfailed, session.testsfailed, soak=soak)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Import what the tests need once, instead of once in each process of pytest-xdist."""
    fork_test_processes()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take in what a process that ran a share of the tests counted; one that crashed counted for nothing."""
    if counted := getattr(node, "workeroutput", {}).get("figures"):
        figures.add(counted)
