"""The demonstration: ingest, edit, kill a publication, recover, search and audit. All figures are measured."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule

from ingest_pipeline.cli import _runs, _session
from ingest_pipeline.cli._hits import print_hits
from ingest_pipeline.cli.demo.sample_documents import write_python_topics, write_samples
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.base import EmbeddingSettings
from ingest_pipeline.embedding.local import LOCAL_DIMENSIONS, LOCAL_MODEL, LocalEmbedder
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.maintenance.audit import audit
from ingest_pipeline.maintenance.sweep import sweep
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
from ingest_pipeline.saga.recover import recover
from ingest_pipeline.search.search import search
from ingest_pipeline.types import counted

# Not the command itself, which would work on the corpora of a project around the current folder.
_INGEST = "import sys; from ingest_pipeline.cli.demo.run import ingest_once; ingest_once(sys.argv[1])"
_QUESTIONS = (
    "How do I catch an exception and clean up afterwards?",
    "Which compensation runs when a step of a saga fails?",
    "Who releases a row lock when its holder dies?",
)


def run_demo(directory: Path) -> int:
    """Run the whole demonstration in a fresh folder, and return the exit status."""
    settings = _session.demo_settings(directory)
    _check_unused(settings)
    # One Postgres server serves all steps, as in a deployment.
    with _session.postgres(settings) as running:
        _forget(running)
        return _Demo(running, Console()).run()


def ingest_once(directory: str) -> None:
    """Bring the demonstration's corpus up to date, in a process that may be killed."""
    _runs.ingest(_session.demo_settings(Path(directory)), [], Console(stderr=True))


def _check_unused(settings: CorpusConfig) -> None:
    """Refuse to drop a database that another demonstration is using.

    Raises:
        ConfigurationError: Another demonstration uses the database.
    """
    server = EmbeddedPostgres(settings.postgres_directory)
    server.start()
    server.release()
    if server.postmaster_pid() is not None:
        raise ConfigurationError("The demonstration's database is in use", "Stop `ingest-pipeline ui --demo` first.")


def _forget(settings: CorpusConfig) -> None:
    """Delete the data of an earlier demonstration. No other program uses its database."""
    with Database(settings.database_url or "") as database, database.transaction() as connection:
        connection.execute("DROP SCHEMA ingest_pipeline CASCADE; DROP SCHEMA IF EXISTS ingest_pipeline_dagster CASCADE")
    for name in ("documents", "lancedb", "dagster"):
        shutil.rmtree(Path(settings.state) / name, ignore_errors=True)
    Database(settings.database_url or "").open().close()


class _Demo:
    def __init__(self, settings: CorpusConfig, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._documents = Path(settings.source)

    def run(self) -> int:
        steps: list[Callable[[], bool]] = [
            self._first_ingest,
            self._edit_one_file,
            self._die_in_the_middle,
            self._recover,
            self._search,
            self._audit,
        ]
        for step in steps:
            if not step():
                self._console.print(f"[red]The demonstration failed at: {step.__doc__}[/red]")
                return 1
        self._console.print(
            "\nSee it in Dagster: [b]make ui[/b], or [b]ingest-pipeline ui --demo[/b], then open http://127.0.0.1:3000"
        )
        return 0

    def _first_ingest(self) -> bool:
        """Ingest all files."""
        self._title("1. Python's own documentation, and a file of each format, through Dagster")
        self._documents.mkdir(parents=True, exist_ok=True)
        files = [*write_python_topics(self._documents / "topics"), *write_samples(self._documents / "samples")]
        self._say(f"{len(files)} files in {self._documents}")
        self._say("The local model embeds: no key is needed.")
        done = self._ingest()
        return not done.problems and done.progress.published == len(files)

    def _edit_one_file(self) -> bool:
        """Ingest one edited file."""
        self._title("2. A paragraph is inserted at the top of one file")
        self._edit("topics/try.txt", "A paragraph that was not here before, about cleaning up after a failure.")
        done = self._ingest()
        return not done.problems and done.progress.published == 1 and done.progress.embedded < done.progress.chunks

    def _die_in_the_middle(self) -> bool:
        """Kill a run between its commit to LanceDB and its COMMIT to Postgres."""
        self._title("3. kill -9 between the commit to LanceDB and the one to Postgres")
        self._edit("topics/with.txt", "Another new paragraph, whose publication will be interrupted.")
        with _session.corpus(self._settings) as corpus:
            before = corpus.head().head_version
        status = self._ingest_and_die()
        with _session.corpus(self._settings) as corpus:
            head, latest = corpus.head().head_version, corpus.table.latest_version()
        self._say(
            f"The run's process was killed by signal {-status}. Its version {head + 1} is in LanceDB, under a private "
            "name."
        )
        self._say(f"Latest is {latest}, and Postgres names {head}: readers see the old document, in both stores.")
        return status == -signal.SIGKILL and head == before == latest

    def _recover(self) -> bool:
        """Recover, and ingest again."""
        self._title("4. Recovery, and the same run again")
        with _session.corpus(self._settings) as corpus:
            report = recover(corpus, silence=0)
            ended = counted(len(report.abandoned), "saga")
            self._say(f"{ended} ended. Nothing had to be undone: head is {report.head_after}.")
        done = self._ingest()
        with _session.corpus(self._settings) as corpus:
            swept = sweep(corpus)
        self._say(f"The sweep removed {counted(len(swept.files), 'orphan file')}.")
        return len(report.abandoned) == 1 and not done.problems and done.progress.embedded == 0

    def _search(self) -> bool:
        """Search at head."""
        self._title("5. Searches at head")
        return all(asyncio.run(self._ask(question)) for question in _QUESTIONS)

    async def _ask(self, question: str) -> bool:
        with _session.corpus(self._settings) as corpus:
            async with LocalEmbedder(EmbeddingSettings(LOCAL_MODEL, LOCAL_DIMENSIONS)) as embedder:
                hits = await search(corpus, embedder, question, 3)
        self._say(f"\n$ ingest-pipeline search {question!r}")
        print_hits(self._console, question, hits)
        return len(hits) == 3  # noqa: PLR2004  the limit of the search

    def _audit(self) -> bool:
        """Audit both stores."""
        self._title("6. Audit")
        with _session.corpus(self._settings) as corpus:
            report = audit(corpus)
        self._say(
            f"{counted(report.documents, 'document')}, {counted(report.chunks, 'chunk')} in both stores at version "
            f"{report.head_version}: {counted(len(report.violations), 'violation')}, "
            f"{counted(report.files, 'orphan file')}."
        )
        return not report.violations

    def _ingest(self) -> _runs.Run:
        done = _runs.ingest(self._settings, [], self._console)
        self._say(
            f"{counted(done.progress.published, 'document')} published in "
            f"{counted(done.progress.publications, 'publication')}, {counted(done.progress.chunks, 'chunk')}: "
            f"{done.progress.embedded:,} embedded in {counted(done.progress.requests, 'request')}, "
            f"{done.progress.cached:,} cached."
        )
        for problem in done.problems:
            self._console.print(f"[red]{escape(problem)}[/red]")
        return done

    def _ingest_and_die(self) -> int:
        environment = os.environ | {"INGEST_FAILPOINTS": "lance commit:after=kill"}
        command = [sys.executable, "-c", _INGEST, self._settings.state]
        self._say("$ INGEST_FAILPOINTS='lance commit:after=kill' ingest-pipeline ingest")
        done = subprocess.run(command, env=environment, capture_output=True, check=False)  # noqa: S603  our own arguments
        return done.returncode

    def _edit(self, name: str, paragraph: str) -> None:
        path = self._documents / name
        path.write_text(f"{paragraph}\n\n{path.read_text()}")

    def _title(self, text: str) -> None:
        self._console.print(Rule(f"[b]{text}[/b]", align="left"))

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False)
