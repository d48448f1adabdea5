"""A corpus without Dagster, for scripts and services: `ingest_pipeline.open_corpus` and the class that it returns.

It works on the same ledger and catalog as Dagster's runs and the command line, under the same guarantees. Dagster shows
the publications of a script after its recovery sensor has reported them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pyarrow as pa

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.corpus import CorpusSettings
from ingest_pipeline.corpus.opening import open_corpus as open_table
from ingest_pipeline.embedding.create import create_embedder
from ingest_pipeline.erasure.erase import Receipt, erase
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.event_loop import run_blocking
from ingest_pipeline.gates.evaluate import evaluate_configured
from ingest_pipeline.gates.golden_set import GoldenQuestion, read_golden_set
from ingest_pipeline.gates.scores import Scores
from ingest_pipeline.ingestion.context import find_corpus, open_context, release_holds
from ingest_pipeline.ingestion.named_documents import check_keys
from ingest_pipeline.ingestion.outcome import IngestOutcome
from ingest_pipeline.ingestion.run import IngestRun, RunOptions
from ingest_pipeline.ingestion.workers.pool import WorkerSettings
from ingest_pipeline.maintenance.audit import AuditReport, audit
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog import history, reports
from ingest_pipeline.postgres.catalog.history import PublicationRow
from ingest_pipeline.postgres.catalog.pins import Pin
from ingest_pipeline.postgres.catalog.reports import DocumentChange
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.embedded.server import served
from ingest_pipeline.saga.rollback import RolledBack, rollback
from ingest_pipeline.saga.transaction import Transaction, transaction
from ingest_pipeline.search.configured_search import SearchClients, configured_search
from ingest_pipeline.search.corpus_at_head import CorpusAtHead
from ingest_pipeline.search.expand import Expand
from ingest_pipeline.search.search import Hit
from ingest_pipeline.types import SEARCH_MODES, SearchMode


@contextmanager
def open_corpus(config: CorpusConfig | None = None) -> Generator[OpenCorpus]:
    """Open a corpus: connect to Postgres, or start the embedded one, until the block ends.

    Args:
        config: Configuration of the corpus. Default: the variables `INGEST_*` of the environment.

    Raises:
        ConfigurationError: The configuration is wrong.
        DatabaseUnavailableError: No Postgres answers.
        SchemaNewerError: A later release migrated the database.
        MissingExtraError: There is neither a database url nor an embedded Postgres.
    """
    config = config or CorpusConfig.from_environment()
    with served(config.database_url, config.postgres_directory) as url, Database(url) as database:
        yield OpenCorpus(database, config)


class OpenCorpus:
    """An open corpus, created by `open_corpus`.

    Its methods block, also where an event loop runs already, as in a notebook. An async service calls them in threads:
    `await asyncio.to_thread(corpus.search, question)`. Several threads may use one open corpus. After the block of
    `open_corpus`, every method raises `ClosedError`.

    Args:
        database: Database of the catalog.
        config: Configuration of the corpus.
    """

    def __init__(self, database: Database, config: CorpusConfig) -> None:
        self._database = database
        self.config = config

    def __repr__(self) -> str:
        return f"<OpenCorpus {self.config.corpus!r} of {self.config.source} in {self.config.table_uri}>"

    def ingest(
        self,
        keys: str | Sequence[str] = (),
        *,
        confirm_removals: bool = False,
        confirm_recipe: bool = False,
        confirm_columns: bool = False,
        workers: int = 1,
    ) -> IngestOutcome:
        """Bring the corpus, or the named documents, up to date with the source. Creates the corpus if there is none.

        Args:
            keys: Keys of documents, whose whole partitions are ingested, even if they are on hold or failed too often.
                Empty: all documents that differ.
            confirm_removals: Remove documents that the source lacks, even if that is most of the corpus.
            confirm_recipe: Ingest documents of which only the recipe changed, however many they are.
            confirm_columns: Give the corpus the columns of the configuration, even if it loses columns or their values.
            workers: Processes on this machine that share the documents. A few documents are ingested in this process.

        Returns:
            How many documents were published and removed, and which of them failed or were skipped.

        Raises:
            UnknownDocumentError: Neither the source nor the corpus has one of the keys. Nothing was changed.
            RemovalsWithheldError: Most documents would be removed. Everything else was published.
            RecipeWithheldError: Many documents differ by recipe alone. Everything else was published.
            IngestError: A failure concerned all documents. Documents published before it stay published.
        """
        if keys := _listed(keys):
            check_keys(open_context(self._database, self.config, create=False, confirm_columns=confirm_columns), keys)
        context = open_context(self._database, self.config, confirm_columns=confirm_columns)
        options = RunOptions(
            release_holds=False,  # only those of the keys are released, and not all of their partitions
            confirm_removals=confirm_removals,
            confirm_recipe=confirm_recipe,
            skip_unreadable=self.config.on_unreadable == "skip",
        )
        settings = self.config.embedder_settings
        run = IngestRun(
            context,
            lambda: create_embedder(settings, context.recipe.embedding),
            options,
            workers=WorkerSettings.of(workers, self._database.url, self.config, settings),
        )
        release_holds(context.corpus, keys)
        outcome = run.run(_partitions(context, keys) if keys else None)
        for withheld in outcome.others:
            raise withheld.error
        return outcome

    def plan(self, keys: str | Sequence[str] = ()) -> list[DocumentPlan]:
        """List the documents that differ from the source and are not on hold. Reads no document, changes nothing.

        Args:
            keys: Keys of documents, whose whole partitions are compared. Empty: all.

        Raises:
            UnknownDocumentError: Neither the source nor the corpus has one of the keys.
        """
        context, keys = open_context(self._database, self.config, create=False), _listed(keys)
        check_keys(context, keys)
        return Planner(context).plans(_partitions(context, keys) if keys else None)

    def search(
        self,
        question: str,
        *,
        mode: SearchMode = "hybrid",
        where: str | Sequence[str] = (),
        principals: Sequence[str] | None = None,
        limit: int = 10,
        expand: Expand | None = None,
    ) -> list[Hit]:
        """Find the chunks at head that match a question best, best first.

        Args:
            question: The question in words.
            mode: By meaning (`vector`), by words (`text`), or by both (`hybrid`).
            where: Conditions on the documents, such as `key=policies/*`, `size>1000`, `year>=2020` or `tags has x`.
                All must be met.
            principals: Search the documents that one of these may find. If access to the corpus is restricted, a search
                without principals finds nothing.
            limit: Maximum number of chunks.
            expand: The text that each chunk brings with it: its `neighbours`, or the whole `section`.

        Raises:
            ConfigurationError: There is no such corpus or mode, or a condition is malformed.
            TextIndexMissingError: A large corpus has no index of its words yet.
            UnavailableError: A store or the embedding API does not answer.
        """
        if mode not in SEARCH_MODES:
            raise ConfigurationError(f"There is no search mode {mode!r}", f"Use one of {', '.join(SEARCH_MODES)}.")
        corpus = find_corpus(self._database, self.config)
        return run_blocking(
            configured_search(
                SearchClients.of(self.config),
                corpus,
                question,
                limit,
                mode=mode,
                conditions=_listed(where),
                principals=principals,
                expand=expand,
            )
        )

    def evaluate(
        self,
        golden_set: str | Path | Sequence[GoldenQuestion] | None = None,
        *,
        version: int | None = None,
        k: int | None = None,
        mode: SearchMode | None = None,
    ) -> Scores:
        """Score a golden set: recall@k, nDCG@k and mean reciprocal rank. `Scores.changed_since` compares two versions.

        Args:
            golden_set: The questions, or a file of them. Default: the file of the configuration.
            version: A retained version. Default: head.
            k: Chunks of a search that count. Default: that of the configuration.
            mode: How to search. Default: that of the configuration.

        Raises:
            ConfigurationError: There is no golden set, or it is malformed.
            VersionGoneError: Retention or an erasure removed the version.
            UnavailableError: A store or the embedding API does not answer.
        """
        given = golden_set or self.config.golden_set
        if given is None:
            raise ConfigurationError("There is no golden set", "Pass one, or set `golden_set` in the configuration.")
        questions = read_golden_set(str(given)) if isinstance(given, str | Path) else given
        corpus = find_corpus(self._database, self.config)
        versions = [corpus.head().head_version if version is None else version]
        mode, k = mode or self.config.golden_mode, k or self.config.golden_k
        return run_blocking(evaluate_configured(self.config, corpus, questions, versions, k=k, mode=mode))[0]

    def at_head(self) -> CorpusAtHead:
        """The corpus at the version that is head now, which it reads whatever is published meanwhile.

        Retention keeps the version as long as the settings say, and not longer for its readers.
        """
        head = find_corpus(self._database, self.config).head()
        clients = SearchClients.of(self.config)
        pin = Pin(head.name, head.head_version)
        return CorpusAtHead(self.config.corpus, clients, lambda: nullcontext(self._database), pin)

    def history(self, limit: int = 20) -> list[PublicationRow]:
        """List the publications of the corpus, newest first."""
        corpus = find_corpus(self._database, self.config)
        with self._database.transaction() as connection:
            return history.publication_history(connection, corpus.generation, limit)

    def document_history(self, key: str, limit: int = 20) -> list[DocumentChange]:
        """List the publications that changed a document, newest first."""
        corpus = find_corpus(self._database, self.config)
        with self._database.transaction() as connection:
            return reports.history(connection, corpus.generation, key, limit)

    def rollback(
        self, version: int, keys: str | Sequence[str] = (), *, confirm_removals: bool = False
    ) -> list[RolledBack]:
        """Roll documents, or the whole corpus, back to an earlier publication. Embeds nothing.

        Args:
            version: Version of a retained publication, see `history`.
            keys: Keys of documents, or partitions. Empty: the whole corpus.
            confirm_removals: Remove documents that did not exist then, even if that is most of the corpus.

        Raises:
            RollbackRefusedError: The version is not a publication that is retained, or there is no such document.
            RemovalsWithheldError: Most documents would be removed. Nothing was changed.
            ConflictError, FencedError: Another writer published one of the documents. Nothing was changed.
            UnavailableError: A store failed. Documents rolled back before stay rolled back; call again for the rest.
        """
        corpus = find_corpus(self._database, self.config)
        recipe = self.config.with_embedding(corpus.head().embedding).recipe
        return rollback(corpus, version, _listed(keys), recipe=recipe, confirm_removals=confirm_removals)

    def erase(self, keys: str | Sequence[str], *, reason: str) -> Receipt:
        """Erase documents from both stores, all versions and all indices, and search for what is left of them.

        This cannot be undone. The objects in the source are not touched, and are not ingested again. What Dagster has
        of the documents is not erased: `ingest-pipeline erase` and the job do that, too.

        Args:
            keys: Keys of the documents.
            reason: Why, for the ledger, which keeps it.

        Raises:
            UnknownDocumentError: Neither store has one of the documents. Nothing was erased.
            ConfigurationError: A version with a tag contains one of them. Nothing was erased.
            UnavailableError, ConflictError: The erasure was begun, and the next recovery continues it.
        """
        return erase(find_corpus(self._database, self.config), _listed(keys), reason=reason)

    def audit(self) -> AuditReport:
        """Check that LanceDB and Postgres agree at head. The report lists all violations."""
        return audit(find_corpus(self._database, self.config))

    @contextmanager
    def transaction(self, table: str, schema: pa.Schema) -> Generator[Transaction]:
        """A transaction on a table of your own, in both stores. Creates the table if it does not exist.

        For example::

            with corpus.transaction("products", schema) as change:
                change.delete("sku = 'A-1'")
                change.add(rows)

        Args:
            table: Name of the table: lower-case letters, digits and underscores.
            schema: Columns of the table.

        Raises:
            ConflictError: Another transaction was published during the block. Run it again.
            CorpusMismatchError, TableInUseError, NotOurTableError: The name belongs to something else.
            UnavailableError: A store failed. Nothing was published unless the message says otherwise.
        """
        settings = CorpusSettings.of_table(self.config.lancedb_uri, table, schema)
        with transaction(open_table(self._database, settings)) as change:
            yield change


def _listed(names: str | Sequence[str]) -> Sequence[str]:
    """One name or several as a sequence: a string is a sequence of its characters."""
    return [names] if isinstance(names, str) else names


def _partitions(context: IngestContext, keys: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(map(context.scheme.partition_of, keys)))
