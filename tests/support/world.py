"""A whole pipeline in miniature, without Dagster: a source folder, a corpus, and operations that tests use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock
from uuid import UUID

from ingest_pipeline import failpoints
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.corpus.table_identity import mark_for
from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.embedding.create import create_embedder
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.ingestion.batch import batch_jobs
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.ingestion.ingest import Ingestion
from ingest_pipeline.ingestion.summary import Summary
from ingest_pipeline.lance.changes import Change, Removal, TableChange
from ingest_pipeline.lance.erasing import NOTES
from ingest_pipeline.lance.files.spool import spool_name
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.lance.versions.version_mark import VersionMark
from ingest_pipeline.maintenance.audit import AuditReport, audit
from ingest_pipeline.maintenance.sweep import SweepReport, sweep
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog import corpora, documents, gates
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import embedding_cache, sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.preparation import prepare
from ingest_pipeline.saga import heartbeat
from ingest_pipeline.saga.recover import RecoveryReport, recover
from ingest_pipeline.saga.rollback import RolledBack, rollback
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.types import ChunkRow
from tests.support.servers.embedding_server import TEST_MODEL, EmbeddingServer
from tools import figures

Passages = dict[tuple[Boundary, str], int]
"""How often each side of each boundary was passed."""


def paragraphs(topic: str, count: int) -> str:
    """Text of some paragraphs, each about as long as a chunk and unlike all others."""
    return "\n\n".join(f"{topic} {number}. " + f"{topic}-{number} words " * 50 for number in range(count))


@dataclass(frozen=True, slots=True)
class Address:
    """The settings with which another process can work on the same corpus."""

    database_url: str
    settings: CorpusConfig
    embeddings_url: str

    @property
    def embedding_settings(self) -> OpenAISettings:
        return OpenAISettings(
            self.settings.embedding_model,
            self.settings.embedding_dimensions,
            base_url=self.embeddings_url,
            batch_inputs=8,
            max_retries=2,
            embedder=self.settings.user_embedder,
            prompts=self.settings.prompts,
        )


def ingest(context: IngestContext, embedding: OpenAISettings, partitions: list[str] | None = None) -> Summary:
    """Bring the corpus, or some partitions, up to date with the source."""
    plans = Planner(context).plans(partitions)

    async def run() -> Summary:
        async with create_embedder(embedding) as embedder:
            return await Ingestion(context, embedder).run(plans)

    return asyncio.run(run())


def mark_served(database: Database, embedding: OpenAISettings) -> None:
    """Record that the endpoint serves the model, so that the client does not send one text alone first."""
    with database.transaction() as connection:
        endpoint = OpenAIEmbedder(embedding).endpoint
        embedding_cache.mark_served(connection, endpoint, f"{embedding.model}/{embedding.dimensions}")


def mark(corpus: Corpus, saga: UUID, *, prepared: bool = True) -> VersionMark:
    """The mark of a version that a test commits itself under a saga, which is recorded as prepared."""
    with corpus.database.transaction() as connection:
        row = corpora.read_generation(connection, corpus.generation)
        assert row is not None
        if prepared:
            connection.execute(
                "UPDATE ingest_pipeline.saga SET prepared_at = now() WHERE id = %s AND prepared_at IS NULL", (saga,)
            )
        return mark_for(connection, row, saga)


def commit_above(table: LanceTable, base: int, change: TableChange, mark: VersionMark) -> int:
    """Make a version that every reader sees and no publication, as another writer does; returns its number."""
    made = table.stage_version(base, change, mark)
    assert table.install(made.number, made.manifest, mark.saga)
    return made.number


def leave_version_above_head(world: World) -> UUID:
    """Make a version of a saga that is prepared and whose writer is gone, as if Postgres had lost its COMMIT."""
    head = world.head
    with world.database.transaction() as connection:
        dead = sagas.begin(connection, generation=world.corpus.generation, kind=SagaKind.INGEST, base_version=head)
        sagas.mark_prepared(connection, dead)
    rows = world.corpus.table.rows(head, world.corpus.table.schema.names)
    staged = [world.corpus.table.stage(f"{dead}-0.lance", rows)] if len(rows) else []
    commit_above(world.corpus.table, head, Change(staged, Removal("document = 'a.txt'")), mark(world.corpus, dead))
    return dead


def staged_manifests(table: str) -> set[str]:
    """Names of the manifests of a local table that wait for COMMIT, or were left by writers that are gone."""
    return {path.name for path in (Path(table) / "_versions").glob("*.manifest-*")}


def ended_saga(world: World) -> UUID:
    """A saga that failed, so that its files and rows are orphans."""
    with world.database.transaction() as connection:
        saga = sagas.begin(connection, generation=world.corpus.generation, kind=SagaKind.INGEST, base_version=1)
        sagas.mark_failed(connection, saga, "for the test")
    return saga


def submit_all(context: IngestContext, embedding: OpenAISettings) -> list[UUID]:
    """Submit batch jobs for the missing vectors of all documents that differ."""
    plans = Planner(context).plans()

    async def run() -> list[UUID]:
        async with OpenAIEmbedder(embedding) as embedder:
            return await batch_jobs.submit(context, embedder, plans)

    return asyncio.run(run())


def collect_all(context: IngestContext, embedding: OpenAISettings) -> list[batch_jobs.Collected]:
    """Collect the vectors of batch jobs that have ended."""

    async def run() -> list[batch_jobs.Collected]:
        async with OpenAIEmbedder(embedding) as embedder:
            return await batch_jobs.collect(context, embedder)

    return asyncio.run(run())


@dataclass(slots=True)
class World:
    database: Database
    settings: CorpusConfig
    embeddings: EmbeddingServer
    confirm_columns: bool = False
    """Whether the corpus may lose columns when it is opened."""

    _context: IngestContext | None = None

    @classmethod
    def over(cls, directory: Path, database: Database, embeddings: EmbeddingServer, corpus: str = "docs") -> World:
        """A world whose source and tables are in a folder."""
        source = directory / "source"
        source.mkdir()
        settings = CorpusConfig(
            corpus=corpus,
            source=str(source),
            lancedb_uri=str(directory / "lancedb"),
            embedding_model=TEST_MODEL,
            embedding_dimensions=embeddings.dimensions,
            min_age_seconds=0,
        )
        return cls(database, settings, embeddings)

    @property
    def context(self) -> IngestContext:
        if self._context is None:
            self._context = open_context(self.database, self.settings, confirm_columns=self.confirm_columns)
        return self._context

    @property
    def corpus(self) -> Corpus:
        return self.context.corpus

    @property
    def head(self) -> int:
        return self.corpus.head().head_version

    @property
    def address(self) -> Address:
        return Address(self.database.url, self.settings, self.embeddings.base_url)

    @property
    def embedding_settings(self) -> OpenAISettings:
        return self.address.embedding_settings

    def put(self, key: str, text: str) -> Path:
        path = Path(self.settings.source) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def remove(self, key: str) -> None:
        (Path(self.settings.source) / key).unlink()

    def ingest(self, partitions: list[str] | None = None) -> Summary:
        """Bring the corpus, or some partitions, up to date with the source."""
        summary = ingest(self.context, self.embedding_settings, partitions)
        figures.count("publications acknowledged", len(summary.publications))
        return summary

    def roll_back(self, version: int, *names: str) -> list[RolledBack]:
        """Roll documents, or the whole corpus, back to a version."""
        recipe = self.settings.recipe
        done = rollback(self.corpus, version, names, recipe=recipe, confirm_removals=True)
        figures.count("publications acknowledged", len(done))
        return done

    @property
    def recorded_vectors(self) -> int:
        """Number of vectors of the corpus in the recorded batches."""
        with self.database.transaction() as connection:
            row = connection.execute(
                "SELECT coalesce(sum(cardinality(b.text_hashes)), 0)::int AS n FROM ingest_pipeline.embedded_batch b "
                "JOIN ingest_pipeline.saga s ON s.id = b.saga WHERE s.generation = %s",
                (self.corpus.generation,),
            ).fetchone()
        assert row is not None
        return int(row["n"])

    def recover(self) -> RecoveryReport:
        """Recover as if every other writer were dead."""
        with figures.recovery():
            report = recover(self.corpus, silence=0)
        figures.count("sagas compensated by a recovery", len(report.compensated))
        figures.count("sagas abandoned by a recovery", len(report.abandoned))
        return report

    def sweep(self) -> SweepReport:
        return sweep(self.corpus)

    def audit(self) -> AuditReport:
        figures.count("audits")
        return audit(self.corpus)

    def check(self) -> None:
        """Check that both stores agree at head, and that no orphans remain after a sweep."""
        report = self.audit()
        wrong = [violation for violation in report.violations if violation.invariant != "no orphan files"]
        figures.count("violations", len(wrong))
        assert wrong == []

    def check_nothing_left(self) -> None:
        """Sweep, then check that every file, version and row belongs to a publication."""
        self.sweep()
        assert self.audit().violations == [], self.audit()
        again = self.sweep()
        assert (again.files, again.versions, again.rows) == ([], [], 0)
        self._check_folder()
        self._check_rows()

    def _check_folder(self) -> None:
        sizes = self._stored_files()
        spooled = {name for name in sizes if name.startswith("_spool/")}
        assert spooled == self._recorded_files(), "each file of the spool has a row, and each row its file"
        notes = {name for name in sizes if name.startswith(f"{NOTES}/")}
        with self.database.transaction() as connection:
            blocked = {str(saga) for saga in gates.blocked_sagas(connection, self.corpus.generation)}
        kept = {name for name in sizes if name.startswith("data/") and name[5:41] in blocked}
        left = sizes.keys() - self.corpus.table.tracked_files() - spooled - kept - notes
        figures.count("bytes left after recovery and sweep", sum(sizes[name] for name in left if "hint" not in name))
        assert left <= {"_versions/latest_version_hint.json"}
        unpublished = set(self.corpus.table.versions()) - self.published_versions()
        makers = {self.corpus.table.saga_of(version) for version in unpublished}
        assert makers <= self._adopted_sagas(), "versions of another database are removed by retention"

    def _stored_files(self) -> dict[str, int]:
        """Files under the table and their sizes, found without Lance."""
        if "://" in self.corpus.table.uri:
            return {obj.key: obj.size for obj in ObjectSource(self.corpus.table.uri).list()}
        table = Path(self.corpus.table.uri)
        return {str(path.relative_to(table)): path.stat().st_size for path in table.rglob("*") if path.is_file()}

    def _recorded_files(self) -> set[str]:
        with self.database.transaction() as connection:
            recorded = embedding_cache.spooled_batches(connection, self.corpus.generation)
        return {spool_name(*batch) for batch in recorded}

    def _check_rows(self) -> None:
        with self.database.transaction() as connection:
            for table in ("staged_fragment", "document"):
                found = connection.execute(
                    f"SELECT count(*) AS n FROM ingest_pipeline.{table} t "  # noqa: S608  names from the line above
                    "JOIN ingest_pipeline.saga s ON s.id = t.saga "
                    "WHERE s.generation = %s AND s.state NOT IN ('published', 'adopted', 'blocked')",
                    (self.corpus.generation,),
                ).fetchone()
                assert found == {"n": 0}, table
            unmarked = connection.execute(
                "SELECT count(*) AS n FROM ingest_pipeline.saga s LEFT JOIN ingest_pipeline.retired_publication r "
                "ON r.saga = s.id WHERE (s.retired_by IS NOT NULL AND r.saga IS NULL) "
                "OR (r.saga IS NOT NULL AND s.retired_by IS NULL AND s.state <> 'published')"
            ).fetchone()
            assert unmarked == {"n": 0}, (
                "each retired publication has a row in retired_publication; another with a row is published, "
                "and the maintenance that counted its documents died before it retired it"
            )

    def published_versions(self) -> set[int]:
        with self.database.transaction() as connection:
            rows = connection.execute(
                "SELECT published_version FROM ingest_pipeline.saga WHERE generation = %s AND state = 'published'",
                (self.corpus.generation,),
            )
            return {row["published_version"] for row in rows}

    def _adopted_sagas(self) -> set[UUID | None]:
        with self.database.transaction() as connection:
            rows = connection.execute("SELECT id FROM ingest_pipeline.saga WHERE state = 'adopted'")
            return {row["id"] for row in rows}

    def chunks(self, key: str, version: int | None = None) -> list[ChunkRow]:
        with self.database.transaction() as connection:
            return documents.chunks_at(connection, self.corpus.generation, version or self.head, [key])

    def text_at(self, key: str, version: int | None = None) -> str:
        """The text of a document as a reader of the table sees it: the texts of its chunks, joined in order."""
        return self.texts(version).get(key, "")

    def texts(self, version: int | None = None) -> dict[str, str]:
        """The texts of all documents as a reader of the table sees them at a version, by default head."""
        rows = self.corpus.table.rows(version or self.head, ["document", "ordinal", "text"]).to_pylist()
        found: dict[str, str] = {}
        for document, _, text in sorted((row["document"], row["ordinal"], row["text"]) for row in rows):
            found[document] = found.get(document, "") + text
        return found


def passages_of(work: Callable[[], object]) -> Passages:
    """Run a function in this process without heartbeats, which COMMIT too; counts the boundaries that it passes."""
    passed: Passages = {}

    def count(name: Boundary, side: str) -> None:
        passed[name, side] = passed.get((name, side), 0) + 1

    failpoints.install(count)
    try:
        with (
            mock.patch.object(heartbeat, "HEARTBEAT_SECONDS", 3600.0),
            mock.patch.object(prepare, "HEARTBEAT_SECONDS", 3600.0),
        ):
            work()
    finally:
        failpoints.install(None)
    return passed
