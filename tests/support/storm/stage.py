"""The stage of a storm: servers, proxies in front of Postgres, a corpus, and its expected contents."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.ingestion.context import find_corpus, open_context
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.durability import REQUIRE_FSYNC
from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
from tests.support.servers.databases import TEST_RIGHTS
from tests.support.servers.embedding_server import TEST_MODEL
from tests.support.servers.s3 import S3Server
from tests.support.servers.tcp_proxy import TcpProxy
from tests.support.storm.contents import QUESTION, Contents
from tests.support.storm.disruptions import Disruptions
from tests.support.storm.driver import Files, FolderFiles, S3Files, keys_of
from tests.support.storm.embeddings import StormyEmbeddings
from tests.support.storm.figures import Figures
from tests.support.storm.ledger import record_blocks
from tests.support.storm.processes import Reaper
from tests.support.world import Address

ROOT = Path(__file__).parents[3]
CORPUS = "docs"
_FAULT_RATE = 0.07
_GOLDEN = 3


@dataclass(slots=True)
class Stage:
    """The state that all threads of a storm share."""

    directory: Path
    seed: int
    figures: Figures
    files: Files
    settings: CorpusConfig
    gates: dict[str, object]
    """Options of the writers that have gates."""
    postgres: EmbeddedPostgres
    database_url: str
    """Url of the server without a proxy."""
    proxies: dict[str, TcpProxy]
    """Proxies in front of Postgres: one for Dagster, one for all other writers."""
    embeddings: StormyEmbeddings
    s3: S3Server | None
    contents: Contents
    reaper: Reaper
    events: str | None = None
    """Address of the queue with the notices of the source, for the processes that read it."""
    disruptions: Disruptions = field(default_factory=Disruptions)
    calm: threading.Event = field(default_factory=threading.Event)
    """Set when the storm is over: every thread ends its work and begins nothing new."""

    def random(self, name: str) -> Random:
        """A generator of choices for one thread, independent of the other threads."""
        return Random(f"{self.seed} {name}")

    def url_through(self, proxy: str) -> str:
        """The url of the database through a proxy."""
        account, _, place = self.database_url.rpartition("@")
        return f"{account}@127.0.0.1:{self.proxies[proxy].port}/{place.rpartition('/')[2]}"

    def environment(self, proxy: str, *, gated: bool = False, events: bool = False) -> dict[str, str]:
        """The environment of a process that works on the corpus as a user would.

        Args:
            proxy: The proxy through which it connects to Postgres.
            gated: Whether its publications have to pass gates.
            events: Whether it reads the queue with the notices of the source.
        """
        gates = {f"INGEST_{name.upper()}": str(value) for name, value in self.gates.items()} if gated else {}
        return {
            **gates,
            **({"INGEST_EVENTS": self.events} if events and self.events else {}),
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "INGEST_SOURCE": self.settings.source,
            "INGEST_STATE": str(self.directory / "state"),
            "INGEST_LANCEDB_URI": self.settings.lancedb_uri,
            "INGEST_DATABASE_URL": self.url_through(proxy),
            "INGEST_CORPUS": CORPUS,
            "INGEST_MIN_AGE_SECONDS": str(self.settings.min_age_seconds),
            "INGEST_EMBEDDING_MODEL": TEST_MODEL,
            "INGEST_EMBEDDING_DIMENSIONS": str(self.embeddings.dimensions),
            "OPENAI_BASE_URL": self.embeddings.base_url,
        }

    @property
    def address(self) -> Address:
        """The corpus' address for writers that use the library."""
        return Address(self.url_through("writers"), self.settings, self.embeddings.base_url)

    @property
    def gated_address(self) -> Address:
        """The same for writers whose publications have to pass gates."""
        return replace(self.address, settings=self.settings.replace(**self.gates))

    @contextmanager
    def corpus(self) -> Generator[Corpus]:
        """The corpus, opened as a reader does."""
        with Database(self.database_url) as database:
            yield find_corpus(database, self.settings)

    def fail_share(self, rate: float = _FAULT_RATE) -> None:
        """Let a share of all requests fail from now on. At a rate of 0, the S3 server's faults are counted."""
        self.embeddings.rate = rate
        if self.s3 is None:
            return
        faults = self.s3.fail_share(rate, self.seed)
        if rate == 0:
            for kind, number in faults.items():
                self.figures.count(f"S3 {'requests' if kind == 'requests' else f'faults: {kind}'}", number)


@contextmanager
def stage(seed: int, *, on_s3: bool) -> Generator[Stage]:
    """Start the servers and create the corpus; at the end, stop the servers."""
    _clean_environment()
    directory = Path(tempfile.mkdtemp(prefix="ingest-pipeline-storm-"))
    directory.chmod(0o755)
    figures = Figures(seed)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        s3 = stack.enter_context(S3Server()) if on_s3 else None
        reaper = Reaper()
        if s3 is not None:
            os.environ.update(s3.env)
            reaper.spare(s3.pid)
        postgres = EmbeddedPostgres(directory / "postgres", prepare=TEST_RIGHTS)
        url = postgres.start()
        stack.callback(postgres.release)
        port = int(url.rpartition(":")[2].partition("/")[0])
        embeddings = stack.enter_context(StormyEmbeddings(0, Random(f"{seed} embeddings"), figures))
        source, lancedb = _places(directory, s3)
        files = S3Files(s3, "source") if s3 is not None else FolderFiles(Path(source), directory / "spool")
        gates = gate_options(directory, keys_of(_GOLDEN))
        made = Stage(
            directory,
            seed,
            figures,
            files,
            CorpusConfig(
                corpus=CORPUS,
                source=source,
                lancedb_uri=lancedb,
                embedding_model=TEST_MODEL,
                embedding_dimensions=embeddings.dimensions,
                min_age_seconds=0,
            ),
            gates,
            postgres,
            url,
            {name: stack.enter_context(TcpProxy("127.0.0.1", port)) for name in ("dagster", "writers")},
            embeddings,
            s3,
            Contents(Chunker(1000, 0)),
            reaper,
        )
        reaper.start()
        stack.callback(reaper.stop)
        with Database(url) as database:
            open_context(database, made.settings)
        record_blocks(url)
        yield made


def gate_options(directory: Path, keys: Sequence[str]) -> dict[str, object]:
    """Options of gates: a golden set that expects some documents, and the expectation that none loses its text."""
    file = directory / "golden.jsonl"
    questions = [{"query": f"{QUESTION} {key} generation", "documents": [key]} for key in keys]
    file.write_text("".join(f"{json.dumps(question)}\n" for question in questions))
    return {"golden_set": str(file), "gate_min_recall": 0.9, "gate_max_lost": 0}


def _places(directory: Path, s3: S3Server | None) -> tuple[str, str]:
    if s3 is not None:
        return s3.url("source"), s3.url("lancedb")
    (directory / "source").mkdir()
    return str(directory / "source"), str(directory / "state" / "lancedb")


def _clean_environment() -> None:
    """Remove all settings of the machine's user from the environment. The servers of a storm flush nothing."""
    for name in list(os.environ):
        if name.startswith(("INGEST_", "OPENAI_", "AWS_", "DAGSTER_")):
            del os.environ[name]
    os.environ[REQUIRE_FSYNC] = "false"
