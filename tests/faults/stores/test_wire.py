"""Connections to Postgres break at the worst moments: the outcome is found out, never guessed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from functools import partial

import psycopg
import pytest

from ingest_pipeline.errors import IngestError, UnavailableError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.postgres import database as database_module
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
from tests.support.crash.meanwhile import once_at
from tests.support.servers.tcp_proxy import Direction, TcpProxy
from tests.support.world import World, paragraphs
from tools import figures

pytestmark = pytest.mark.promise("honest-reports")

OLD, NEW = paragraphs("old", 3), paragraphs("new", 2)


@pytest.fixture
def writer(world: World, proxy: TcpProxy) -> Generator[World]:
    """Works on the same corpus as ``world``, through the proxy, and is about to replace a document."""
    world.put("a.txt", OLD)
    world.ingest()
    world.put("a.txt", NEW)
    with Database(proxy.instead_of(world.database.url)) as database:
        yield World(database, world.settings, world.embeddings)
        proxy.forward()


def is_commit(block: bytes, direction: Direction) -> bool:
    return direction == "to_server" and b"COMMIT" in block


def shows(world: World, text: str) -> bool:
    return "".join(world.text_at("a.txt").split()) == "".join(text.split())


BEFORE_COMMIT = (Boundary.VERSION_CHECKED, "after")


@pytest.mark.promise("lost-commit")
def test_a_cut_before_commit_arrives_undoes_the_saga_and_fails_the_run(
    world: World, writer: World, proxy: TcpProxy
) -> None:
    with (
        once_at(BEFORE_COMMIT, lambda: proxy.cut_when(is_commit)),
        pytest.raises(UnavailableError, match="rolled back"),
    ):
        writer.ingest()
    assert shows(world, OLD)
    assert world.corpus.table.latest_version() == world.head
    world.check_nothing_left()
    writer.ingest()
    assert shows(world, NEW)


@pytest.mark.promise("lost-commit")
def test_a_cut_after_commit_was_executed_lets_the_run_succeed(world: World, writer: World, proxy: TcpProxy) -> None:
    with once_at(BEFORE_COMMIT, lambda: proxy.cut_when(is_commit, after=True)):
        summary = writer.ingest()
    assert [publication.version for publication in summary.publications] == [world.head]
    assert shows(world, NEW)
    world.check_nothing_left()


@pytest.mark.promise("lost-commit")
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_connection_lost_at_commit_leaves_the_saga_in_doubt_until_settled(
    world: World, writer: World, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    monkeypatch.setattr(database_module, "_POOL_SECONDS", 1.0)

    def cut_off() -> None:
        proxy.refuse()
        proxy.cut_when(is_commit, after=done)

    with once_at(BEFORE_COMMIT, cut_off), pytest.raises(UnavailableError, match="in doubt"):
        reopened(writer).ingest()
    assert shows(world, NEW if done else OLD)
    world.check()
    world.recover()
    assert world.corpus.table.latest_version() == world.head
    assert shows(world, NEW if done else OLD)
    world.check_nothing_left()


def reopened(writer: World) -> World:
    """With the limits as the test has set them."""
    writer.database.close()
    writer.database.open()
    return writer


@pytest.mark.promise("postgres-faults")
def test_a_backend_ended_while_it_holds_the_lock_undoes_the_saga(world: World, writer: World) -> None:
    with (
        once_at((Boundary.LANCE_COMMIT, "after"), lambda: end_other_backends(world)),
        pytest.raises(UnavailableError, match="rolled back"),
    ):
        writer.ingest()
    assert shows(world, OLD)
    world.check_nothing_left()
    writer.ingest()
    assert shows(world, NEW)


def end_other_backends(world: World) -> None:
    with psycopg.connect(world.database.url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
        )


@pytest.mark.promise("postgres-faults")
@pytest.mark.parametrize("place", [(Boundary.LANCE_COMMIT, "before"), (Boundary.LANCE_COMMIT, "after"), BEFORE_COMMIT])
def test_a_restart_of_postgres_during_a_publication_undoes_the_saga(
    world: World, writer: World, postgres_server: EmbeddedPostgres, place: tuple[Boundary, str]
) -> None:
    with (
        once_at(place, partial(restart, postgres_server)),
        pytest.raises(UnavailableError, match="rolled back"),
    ):
        writer.ingest()
    assert shows(world, OLD)
    assert world.corpus.table.latest_version() == world.head
    world.recover()
    world.check_nothing_left()
    writer.ingest()
    assert shows(world, NEW)


def restart(server: EmbeddedPostgres) -> None:
    server.restart(immediate=True)
    figures.count("Postgres restarts")


@pytest.mark.promise("postgres-faults")
def test_a_pool_survives_a_restart_of_postgres(world: World, postgres_server: EmbeddedPostgres) -> None:
    world.put("a.txt", OLD)
    world.ingest()
    restart(postgres_server)
    assert shows(world, OLD)


@pytest.mark.promise("lost-commit")
def test_a_server_that_goes_silent_at_commit_times_out_and_the_saga_is_settled_later(
    world: World, writer: World, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(database_module, "_POOL_SECONDS", 1.0)
    with once_at(BEFORE_COMMIT, proxy.deaf), pytest.raises(UnavailableError, match="in doubt"):
        reopened(writer).ingest()
    assert shows(world, OLD)
    # What was held back arrives after all: a COMMIT whose sender gave up long ago, or the end of its connection.
    proxy.forward()
    monkeypatch.undo()
    world.recover()
    assert world.corpus.table.latest_version() == world.head
    assert shows(world, OLD) or shows(world, NEW)
    world.check_nothing_left()
    writer.ingest()
    assert shows(world, NEW)


@pytest.mark.promise("cut-connections")
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_cut_at_any_message_of_a_publications_end_is_reported_correctly(
    world: World, writer: World, proxy: TcpProxy, done: bool
) -> None:
    cut_at_each_message_after((Boundary.LANCE_COMMIT, "before"), world, writer, proxy, done=done)


@pytest.mark.promise("cut-connections")
@pytest.mark.soak
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_cut_at_any_message_of_a_publication_is_reported_correctly(
    world: World, writer: World, proxy: TcpProxy, done: bool
) -> None:
    cut_at_each_message_after((Boundary.LOCK_TAKEN, "before"), world, writer, proxy, done=done)


@pytest.mark.promise("cut-connections")
@pytest.mark.parametrize("direction", ["to_server", "to_client"])
def test_a_cut_between_bytes_of_a_commit_or_its_answer_is_reported_correctly(
    world: World, writer: World, proxy: TcpProxy, direction: Direction
) -> None:
    cut_at_bytes_after(BEFORE_COMMIT, world, writer, proxy, direction, step=2)


@pytest.mark.promise("cut-connections")
@pytest.mark.soak
@pytest.mark.parametrize("direction", ["to_server", "to_client"])
def test_a_cut_at_any_byte_of_a_publications_end_is_reported_correctly(
    world: World, writer: World, proxy: TcpProxy, direction: Direction
) -> None:
    cut_at_bytes_after((Boundary.LANCE_COMMIT, "before"), world, writer, proxy, direction, step=1)


def cut_at_each_message_after(
    place: tuple[Boundary, str], world: World, writer: World, proxy: TcpProxy, *, done: bool
) -> None:
    number, cut = 0, True
    while cut:
        message, fired = nth_message(number)
        with once_at(place, partial(proxy.cut_when, message, after=done)):
            publishes_or_changes_nothing(f"cut at message {number}", world, writer, proxy)
        cut = bool(fired)
        number += 1
    assert number > 2
    world.check_nothing_left()


def cut_at_bytes_after(
    place: tuple[Boundary, str], world: World, writer: World, proxy: TcpProxy, direction: Direction, *, step: int
) -> None:
    byte, cut = 0, True
    while cut:
        fired: list[threading.Event] = []
        with once_at(place, lambda at_byte=byte, armed=fired: armed.append(proxy.cut_at(at_byte, direction))):
            publishes_or_changes_nothing(f"cut at byte {byte}", world, writer, proxy)
        cut = fired[0].is_set()
        byte += step
    assert byte > 5 * step
    world.check_nothing_left()


def publishes_or_changes_nothing(text: str, world: World, writer: World, proxy: TcpProxy) -> None:
    """One publication under a fault: its run is told what readers see, before and after it was settled."""
    before = world.text_at("a.txt")
    world.put("a.txt", text)
    published = told(writer)
    proxy.forward()
    settled = shows(world, text)
    assert settled or world.text_at("a.txt") == before, text
    assert published in {settled, None}, text
    world.recover()
    world.check()
    assert shows(world, text) == settled, f"{text}, recovered"


def told(writer: World) -> bool | None:
    """Whether a run says that it published; None if it says that it does not know, as when the settling is cut too."""
    try:
        return bool(writer.ingest().publications)
    except IngestError as error:
        return None if "in doubt" in str(error) else False


def nth_message(number: int) -> tuple[Callable[[bytes, Direction], bool], list[int]]:
    """A match for the n-th block that goes to the server, and a list that is filled when it matched."""
    seen: list[int] = []
    fired: list[int] = []

    def match(_: bytes, direction: Direction) -> bool:
        if direction == "to_server":
            seen.append(1)
            if len(seen) == number + 1:
                fired.append(number)
        return bool(fired)

    return match, fired
