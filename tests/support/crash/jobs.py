"""Jobs of child processes. Each job opens its own connections and returns something small."""

from __future__ import annotations

import resource
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta

import ingest_pipeline.erasure.erase
import ingest_pipeline.erasure.unfinished
import ingest_pipeline.maintenance.drop
import ingest_pipeline.maintenance.maintain
import ingest_pipeline.maintenance.sweep
import ingest_pipeline.saga.generations
import ingest_pipeline.saga.recover
import tests.support.crash.migrating
from ingest_pipeline.corpus.corpus import CorpusSettings
from ingest_pipeline.corpus.opening import open_corpus
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.lance.indices import IndexKind
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.restore.lost_corpus import open_for_rebuild
from ingest_pipeline.restore.rebuild import rebuild_catalog
from ingest_pipeline.restore.relocate import move_tables
from ingest_pipeline.saga.blocked import blocked_publications, drop_publication, release_publication
from ingest_pipeline.saga.rollback import rollback
from ingest_pipeline.saga.transaction import transaction
from ingest_pipeline.types import Retention
from tests.support.crash.tables import rows_of
from tests.support.mutants import apply_from_environment
from tests.support.world import Address, collect_all, submit_all
from tests.support.world import ingest as ingest_documents

apply_from_environment()


def ingest(address: Address, partitions: list[str] | None = None) -> list[int]:
    """Bring the corpus up to date with the source; returns the acknowledged versions."""
    with _opened(address) as context:
        summary = ingest_documents(context, address.embedding_settings, partitions)
    return [publication.version for publication in summary.publications]


def ingest_in_turn(address: Address, partitions: list[str]) -> list[int]:
    """Ingest partition after partition, as a backfill does; returns the acknowledged versions."""
    with _opened(address) as context:
        summaries = [ingest_documents(context, address.embedding_settings, [partition]) for partition in partitions]
    return [publication.version for summary in summaries for publication in summary.publications]


def ingest_again_and_again(address: Address, times: int) -> int:
    """Bring the corpus up to date several times. A file that changes meanwhile is ingested the next time."""
    with _opened(address) as context:
        return sum(len(ingest_documents(context, address.embedding_settings).publications) for _ in range(times))


def again_and_again(job: Callable[[Address], int], address: Address, times: int) -> int:
    """Run a job several times; returns the sum of its results."""
    return sum(job(address) for _ in range(times))


def ingest_with_little_room(address: Address, largest_file: int) -> list[int]:
    """Ingest with a limit on the size of files: writing more fails as it does on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    return ingest(address)


def submit_missing(address: Address) -> int:
    """Submit batch jobs for the missing vectors of all documents that differ; returns the number of batch jobs."""
    with _opened(address) as context:
        return len(submit_all(context, address.embedding_settings))


def collect_vectors(address: Address) -> int:
    """Collect the vectors of batch jobs that have ended; returns how many vectors."""
    with _opened(address) as context:
        return sum(one.collected for one in collect_all(context, address.embedding_settings))


def recover(address: Address, silence: float = 0) -> int:
    """Settle the sagas of other writers; returns head."""
    with _opened(address) as context:
        return ingest_pipeline.saga.recover.recover(context.corpus, silence=silence).head_after


def erase(address: Address, keys: list[str]) -> int:
    """Erase documents; returns how many fingerprints were found afterwards."""
    with _opened(address) as context:
        return ingest_pipeline.erasure.erase.erase(context.corpus, keys, reason="a request").found


def continue_erasures(address: Address) -> list[int]:
    """Finish the erasures of dead processes; returns how many fingerprints were found after each."""
    with _opened(address) as context:
        done = ingest_pipeline.erasure.unfinished.continue_erasures(context.corpus, compare_keys=True)
    return [receipt.found for receipt in done]


def roll_back(address: Address, version: int) -> list[int]:
    """Roll the corpus back to a version; returns the acknowledged versions."""
    with _opened(address) as context:
        done = rollback(context.corpus, version, recipe=context.recipe, confirm_removals=True)
    return [publication.version for publication in done]


def release_blocked(address: Address) -> int:
    """Release the only blocked publication; returns the published version."""
    with _opened(address) as context:
        return release_publication(context.corpus, blocked_publications(context.corpus)[0].saga)


def drop_blocked(address: Address) -> None:
    """Drop the only blocked publication."""
    with _opened(address) as context:
        drop_publication(context.corpus, blocked_publications(context.corpus)[0].saga)


def rebuild(address: Address) -> int:
    """Bring the catalog to the state of the table; returns head."""
    with Database(address.database_url) as database:
        context = open_for_rebuild(database, address.settings)
        rebuild_catalog(context)
        return context.corpus.head().head_version


def sweep(address: Address) -> int:
    """Sweep; returns how many files and versions were removed."""
    with _opened(address) as context:
        report = ingest_pipeline.maintenance.sweep.sweep(context.corpus)
    return len(report.files) + len(report.versions)


def maintain(address: Address, publications: int = 1_000_000) -> int:
    """Rewrite fragmented data files, index all words, and remove all but the last publications; returns head."""
    words = IndexKind("text", "INVERTED", least=1, tail=1)
    with _opened(address) as context:
        return ingest_pipeline.maintenance.maintain.maintain(
            context.corpus, Retention(0, publications), [words]
        ).head_version


def migrate(address: Address) -> None:
    """Re-embed the corpus with the model of the address' settings."""
    with Database(address.database_url) as database:
        tests.support.crash.migrating.migrate(database, address)


def drop_retired(address: Address) -> list[str]:
    """Drop the retired generations; returns their names."""
    with _opened(address) as context:
        return ingest_pipeline.saga.generations.drop_retired(context.corpus, kept=timedelta())


def drop_corpus(database_url: str, corpus: str) -> int:
    """Delete a corpus; returns how many tables were deleted."""
    with Database(database_url) as database:
        return len(ingest_pipeline.maintenance.drop.drop_corpus(database, corpus).tables)


def relocate(database_url: str, corpus: str, folder: str) -> list[str]:
    """Point a corpus to its tables in another folder; returns their URIs."""
    with Database(database_url) as database:
        return move_tables(database, corpus, folder)


def create(database_url: str, settings: CorpusSettings) -> int:
    """Open a corpus for a user's own table, and create it if there is none; returns head."""
    with Database(database_url) as database:
        return open_corpus(database, settings).head().head_version


def add_rows(database_url: str, settings: CorpusSettings, ids: list[str]) -> int | None:
    """Add rows in one versioned transaction; returns the version."""
    with Database(database_url) as database, transaction(open_corpus(database, settings)) as change:
        change.add(rows_of(ids))
    return change.published_version


@contextmanager
def _opened(address: Address) -> Generator[IngestContext]:
    with Database(address.database_url) as database:
        yield open_context(database, address.settings)
