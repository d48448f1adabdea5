"""Postgres aborts a publication to break a deadlock: the publication is repeated without help."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.postgres.database import Database
from tests.support.world import World, paragraphs

_PATIENCE_SECONDS = 300
Work = Callable[[psycopg.Connection, threading.Event], None]


class Rival:
    """A transaction of somebody else that gets in a publication's way once, when it is about to pass a boundary."""

    def __init__(self, world: World, place: tuple[Boundary, str], work: Work) -> None:
        self._url = world.database.url
        self._place = place
        self._work = work
        self._stands = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def meet(self, world: World) -> list[int]:
        """Let it meet an ingest; returns the versions that this published."""
        assert world.corpus
        failpoints.install(self._at)
        try:
            summary = world.ingest()
        finally:
            failpoints.install(None)
        self._thread.join(_PATIENCE_SECONDS)
        assert not self._thread.is_alive()
        return [publication.version for publication in summary.publications]

    def _at(self, name: Boundary, side: str) -> None:
        if (name, side) == self._place:
            failpoints.install(None)
            self._thread.start()
            assert self._stands.wait(_PATIENCE_SECONDS)

    def _run(self) -> None:
        with psycopg.connect(self._url) as connection:
            self._work(connection, self._stands)


@pytest.mark.promise("postgres-faults")
def test_a_publication_ended_by_a_deadlock_begins_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def want_the_corpus_and_hold_the_saga(connection: psycopg.Connection, stands: threading.Event) -> None:
        connection.execute("SET deadlock_timeout = '60s'")  # so that it is the publication which finds out, and ends
        connection.execute("SELECT FROM ingest_pipeline.saga WHERE state = 'prepared' FOR UPDATE")
        stands.set()
        connection.execute("SELECT FROM ingest_pipeline.generation FOR NO KEY UPDATE")

    world.put("a.txt", paragraphs("alpha", 2))
    rival = Rival(world, (Boundary.LOCK_TAKEN, "after"), want_the_corpus_and_hold_the_saga)
    assert rival.meet(world) == [world.head]
    assert "deadlock detected" in caplog.text
    world.check_nothing_left()


@pytest.mark.promise("postgres-faults")
def test_a_publication_that_cannot_be_serialized_begins_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Under a stricter isolation than the usual one, it sees that the row it waited for was changed meanwhile."""

    def change_the_row_that_is_waited_for(connection: psycopg.Connection, stands: threading.Event) -> None:
        connection.execute("UPDATE ingest_pipeline.generation SET source = source")
        stands.set()
        waiting: object = None
        while waiting is None:
            waiting = connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone()

    name = world.database.url.rpartition("/")[2]
    world.put("a.txt", paragraphs("alpha", 2))
    with psycopg.connect(world.database.url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'repeatable read'".encode())
        try:
            with Database(world.database.url) as strict:
                writer = World(strict, world.settings, world.embeddings)
                rival = Rival(world, (Boundary.LOCK_TAKEN, "before"), change_the_row_that_is_waited_for)
                assert rival.meet(writer) == [world.head]
        finally:
            connection.execute(f'ALTER DATABASE "{name}" RESET default_transaction_isolation'.encode())
    assert "could not serialize access" in caplog.text
    world.check_nothing_left()
