"""The checks of the command `doctor`: each names what it found, and what to do if that is not good."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from ingest_pipeline.cli import _session
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import ConfigurationError, IngestError
from ingest_pipeline.events.queue import EventQueue
from ingest_pipeline.ingestion.context import find_corpus
from ingest_pipeline.lance.storage import table_uri
from ingest_pipeline.lance.versions.store_check import check_store
from ingest_pipeline.postgres.catalog.documents import count_documents
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.failures import read_failures
from ingest_pipeline.postgres.url import place_of
from ingest_pipeline.private_folder import local_path, others_may_read
from ingest_pipeline.sandbox.confinement import unavailable
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.types import counted

_TEXT = "ingest-pipeline doctor"
# Stores refuse requests whose time is 15 minutes wrong; the age of files is compared with this machine's clock.
_MAX_SKEW_SECONDS = 5


class Verdict(StrEnum):
    """How good what a check found is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    verdict: Verdict
    said: str
    remedy: str = ""


def examine(settings: CorpusConfig) -> Iterator[Finding]:
    """Yield what each check finds. A check that depends on a failed one is skipped."""
    yield from checked("source", lambda: _source(settings))
    if settings.events:
        events = settings.events
        yield from checked("events", lambda: _events(events))
    yield from checked("embedding", lambda: _embedding(settings))
    yield from checked("parsers", _parsers)
    yield from checked("table", lambda: examine_table(settings))
    try:
        with _session.postgres(settings) as running, Database(running.database_url or "") as database:
            yield from _database(database, settings)
            yield from checked("corpus", lambda: _corpus(database, running))
            yield from checked("sensors", lambda: _sensors(running))
    except IngestError as error:
        yield _problem("database", error)


def checked(check: str, found: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a check finds; an error that it meets is a problem."""
    try:
        yield from found()
    except IngestError as error:
        yield _problem(check, error)


def _problem(check: str, error: IngestError) -> Finding:
    return Finding(check, Verdict.PROBLEM, error.message, error.advice)


def _source(settings: CorpusConfig) -> Iterator[Finding]:
    first = next(ObjectSource(settings.source, settings.follow_links).list(), None)
    if first is None:
        yield Finding(
            "source", Verdict.WARNING, f"{settings.source} has no files.", "Correct INGEST_SOURCE, or put files there."
        )
        return
    yield Finding("source", Verdict.OK, f"{settings.source} can be listed.")


def _events(address: str) -> Iterator[Finding]:
    queue = EventQueue(address)
    queue.check_rights()
    yield Finding("events", Verdict.OK, f"{address} can be read, and its messages can be deleted: {queue.depth()}.")


def _embedding(settings: CorpusConfig) -> Iterator[Finding]:
    asyncio.run(_embed(settings))
    where = "in this process, at no cost" if settings.uses_local_model else "and its endpoint answers"
    width = settings.embedding_dimensions
    model = settings.recipe.embedding
    yield Finding("embedding", Verdict.OK, f"{model} embeds {where}; a vector has {width} numbers.")


async def _embed(settings: CorpusConfig) -> None:
    """Embed one text. The embedder raises an error if the vector has another width."""
    async with _session.embedder(settings, None) as embedder:
        await embedder.embed([_TEXT], purpose="query")


def _parsers() -> Iterator[Finding]:
    if find_spec("kreuzberg") is None:
        yield Finding(
            "parsers",
            Verdict.WARNING,
            "PDF, DOCX, PPTX, XLSX, HTML and EPUB cannot be read.",
            "Run `pip install 'ingest-pipeline[documents]'` if you have such files.",
        )
    if lacking := unavailable():
        yield Finding(
            "parsers",
            Verdict.WARNING,
            f"Parsers run without {' and '.join(lacking)}, so a hostile file could do more harm.",
            "Ingest files that you do not trust on a kernel that has it.",
        )
    elif find_spec("kreuzberg") is not None:
        yield Finding("parsers", Verdict.OK, "All formats can be read, in confined processes.")


def examine_table(settings: CorpusConfig) -> Iterator[Finding]:
    """Whether the table's folder can be written and read by its owner alone, or its store is safe."""
    uri = table_uri(settings.lancedb_uri, settings.corpus)
    folder = local_path(uri)
    if folder is None:
        check_store(uri)
        yield Finding("table", Verdict.OK, f"{uri} is in an object store, which was checked for conditional writes.")
        return
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        yield Finding(
            "table",
            Verdict.PROBLEM,
            f"This user cannot write to {existing}.",
            "Change its owner or INGEST_LANCEDB_URI.",
        )
    elif folder.exists() and others_may_read(folder):
        yield Finding(
            "table",
            Verdict.WARNING,
            f"Other accounts of this machine can read the documents' text in {folder}.",
            f"Run `chmod 700 {folder}`.",
        )
    else:
        yield Finding("table", Verdict.OK, f"{folder} can be written, and only by this user.")


def _database(database: Database, settings: CorpusConfig) -> Iterator[Finding]:
    before = datetime.now(UTC)
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT clock_timestamp() AS at, current_setting('server_version') AS version"
        ).fetchone()
    assert row is not None  # noqa: S101  a SELECT without FROM
    where = place_of(settings.database_url) if settings.database_url else f"embedded, in {settings.postgres_directory}"
    yield Finding("database", Verdict.OK, f"Postgres {row['version'].partition(' ')[0]} answers ({where}).")
    skew = (row["at"] - before).total_seconds()
    if abs(skew) > _MAX_SKEW_SECONDS:
        yield Finding(
            "clocks",
            Verdict.WARNING,
            f"The database's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's.",
            "Synchronize both with NTP.",
        )
    else:
        yield Finding("clocks", Verdict.OK, "The clocks of this machine and of the database agree.")


def _corpus(database: Database, settings: CorpusConfig) -> Iterator[Finding]:
    try:
        corpus = find_corpus(database, settings)
    except ConfigurationError as error:
        yield Finding("corpus", Verdict.WARNING, error.message, error.advice)
        return
    yield from _state(corpus, settings)


def _state(corpus: Corpus, settings: CorpusConfig) -> Iterator[Finding]:
    head = corpus.head()
    with corpus.database.transaction() as connection:
        documents = count_documents(connection, corpus.generation)
        unfinished = sagas.unfinished(connection, corpus.generation)
        failed = read_failures(connection, corpus.generation)
    if head.embedding not in (None, settings.recipe.embedding):
        yield Finding(
            "corpus",
            Verdict.WARNING,
            f"The corpus has vectors of {head.embedding}, and the settings name {settings.recipe.embedding}.",
            "Run `ingest-pipeline reembed`, or set INGEST_EMBEDDING_MODEL back.",
        )
    if unfinished:
        yield Finding(
            "corpus",
            Verdict.WARNING,
            f"{counted(len(unfinished), 'saga')} unfinished: a run is active, or its writer died.",
            "If no run is active, run `ingest-pipeline recover`.",
        )
    if final := sum(one.is_final for one in failed):
        yield Finding(
            "corpus",
            Verdict.WARNING,
            f"{counted(final, 'document')} will not be tried again before a change.",
            "`ingest-pipeline status` says why; `ingest-pipeline retry` tries again.",
        )
    where = f"{counted(documents, 'document')} at version {head.head_version}"
    yield Finding("corpus", Verdict.OK, f"{corpus.name} has {where}.")


def _sensors(settings: CorpusConfig) -> Iterator[Finding]:
    if not (Path(settings.dagster_home) / "dagster.yaml").exists():
        yield Finding(
            "sensors",
            Verdict.WARNING,
            "Dagster was never used here, so no sensor watches the source.",
            "Run `ingest-pipeline ui`, or ingest with `ingest-pipeline ingest`.",
        )
        return
    from ingest_pipeline.cli._sensor_checks import examine_sensors  # noqa: PLC0415  imports Dagster

    for is_good, said, remedy in examine_sensors(settings):
        yield Finding("sensors", Verdict.OK if is_good else Verdict.WARNING, said, remedy)
