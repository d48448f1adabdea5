"""A corpus as readers saw it at one version, and the choice of that version for a Dagster run."""

from __future__ import annotations

from collections.abc import Callable

from ingest_pipeline.corpus.corpus import Corpus, open_table
from ingest_pipeline.corpus.head_manifest import install_head
from ingest_pipeline.errors import ConfigurationError, VersionGoneError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.postgres.catalog import corpora, history, pins
from ingest_pipeline.postgres.catalog.pins import Pin
from ingest_pipeline.postgres.database import Connection, Database
from ingest_pipeline.postgres.ledger import sagas


def pinned_corpus(database: Database, pin: Pin) -> Corpus:
    """Open a generation for reading, with the version of the pin as its head.

    Raises:
        ConfigurationError: The database has no such generation.
    """
    with database.transaction() as connection:
        row = corpora.read_generation(connection, pin.generation)
    if row is None:
        raise ConfigurationError(f"There is no corpus {pin.generation!r}", "Run `ingest-pipeline ingest` first.")
    table = open_table(database, row.name, row.table_uri)
    install_head(table, row)
    return Corpus(row.name, database, table, row.corpus, pinned_version=pin.version)


def pin_for_run(
    database: Database, corpus: str, run_id: str, named: Callable[[], Pin | None], *, again: str | None = None
) -> Pin:
    """The version that a run reads. All inputs of one run get the same one, and retention keeps it for a day.

    Args:
        database: Database of the catalog.
        corpus: Name of the corpus.
        run_id: The run.
        named: Returns the version that started the run, as an event names it. None: no event does.
        again: The run that failed, if this one executes its remaining steps. It reads the same version.

    Raises:
        ConfigurationError: Nothing was ever published.
        VersionGoneError: Retention or an erasure removed the version that the failed run has read.
    """
    with database.transaction() as connection:
        found = pins.read_pin(connection, corpus, run_id)
        if found is None and again is not None:
            earlier = pins.read_pin(connection, corpus, again)
            found = None if earlier is None else _inserted(connection, corpus, run_id, earlier)
    if found is not None:
        return found
    pin = named()
    with database.transaction() as connection:
        return _inserted(connection, corpus, run_id, _readable(connection, corpus, pin))


def _readable(connection: Connection, corpus: str, pin: Pin | None) -> Pin:
    """The head, if it has the documents of the named version, or if that one is gone; otherwise the named version.

    Maintenance moves head without a change of documents, and retention removes the versions before. An event may name a
    version of a database that was replaced.
    """
    row = corpora.read_current(connection, corpus)
    if row is None:
        raise ConfigurationError(f"There is no corpus {corpus!r}", "Run `ingest-pipeline ingest` first.")
    head = Pin(row.name, row.head_version)
    if pin is None or not history.is_retained(connection, pin.generation, pin.version):
        return head
    change = sagas.last_change(connection, row.name)
    is_head = change is not None and Pin(change.generation, change.published_version or 0) == pin
    return head if is_head else pin


def _inserted(connection: Connection, corpus: str, run_id: str, pin: Pin) -> Pin:
    # Under the lock, so that retention does not remove the version before it sees the pin.
    with boundary(Boundary.LOCK_TAKEN):
        row = corpora.lock_generation(connection, pin.generation)
    if row is None or not history.is_retained(connection, pin.generation, pin.version):
        raise VersionGoneError(f"Version {pin.version} of corpus {corpus!r}, which the run reads, is gone")
    return pins.insert_pin(connection, corpus, run_id, pin)
