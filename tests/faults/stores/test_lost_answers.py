"""A call takes effect and then raises: this is how a time-out or a lost reply looks to the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from ingest_pipeline.errors import (
    DatabaseUnavailableError,
    EmbeddingResponseError,
    TableUnavailableError,
    UnavailableError,
)
from ingest_pipeline.lance import table
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.postgres.catalog import corpora
from ingest_pipeline.postgres.database import Connection, Database
from ingest_pipeline.postgres.ledger import embedding_cache, sagas
from tests.support.servers.embedding_server import Fault
from tests.support.world import World, leave_version_above_head, paragraphs, staged_manifests

OLD, NEW = paragraphs("old", 3), paragraphs("new", 2)


@pytest.fixture
def world(world: World) -> World:
    """About to replace a document."""
    world.put("a.txt", OLD)
    world.ingest()
    world.put("a.txt", NEW)
    world.embeddings.reset_counters()
    return world


class Flaky:
    """Wraps a call so that it fails some times before or after it was carried out, and then works."""

    def __init__(self, call: Callable[..., Any], error: Exception, *, times: int, done: bool) -> None:
        self.call, self.error, self.left, self.done = call, error, times, done

    def __get__(self, owner: object, _: type) -> Callable[..., Any]:
        return lambda *arguments, **named: self(owner, *arguments, **named)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not self.left:
            return self.call(*arguments, **named)
        self.left -= 1
        if self.done:
            self.call(*arguments, **named)
        raise self.error


def shows(world: World, text: str) -> bool:
    return "".join(world.text_at("a.txt").split()) == "".join(text.split())


def check_settled(world: World, text: str) -> None:
    assert shows(world, text)
    world.check()
    world.recover()
    assert world.corpus.table.latest_version() == world.head
    assert shows(world, text)
    world.check_nothing_left()


@pytest.mark.promise("lance-faults")
@pytest.mark.parametrize("done", [False, True], ids=["not_done", "done"])
@pytest.mark.parametrize(
    ("place", "call"), [(LanceTable, "stage_version"), (table, "commit_staged"), (LanceTable, "latest_version")]
)
def test_a_failing_call_to_lance_ends_the_run_and_not_the_document(
    world: World, monkeypatch: pytest.MonkeyPatch, place: Any, call: str, done: bool
) -> None:
    failing = Flaky(getattr(place, call), TableUnavailableError("503 Slow Down"), times=1, done=done)
    with monkeypatch.context() as patch:
        patch.setattr(place, call, failing)
        with pytest.raises(UnavailableError, match="503"):
            world.ingest()
    check_settled(world, OLD)
    world.ingest()
    check_settled(world, NEW)
    assert world.embeddings.embedded == len(world.chunks("a.txt"))


@pytest.mark.promise("lance-faults")
@pytest.mark.parametrize("done", [False, True], ids=["not_done", "done"])
@pytest.mark.parametrize("times", [1, 2, 99])
def test_a_failed_restore_changes_nothing_until_it_is_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch, done: bool, times: int
) -> None:
    leave_version_above_head(world)
    restoring = Flaky(LanceTable.stage_restore, TableUnavailableError("503"), times=times, done=done)
    with monkeypatch.context() as patch:
        patch.setattr(LanceTable, "stage_restore", restoring)
        with pytest.raises(UnavailableError, match="503"):
            world.ingest()
    assert world.corpus.table.latest_version() > world.head
    assert shows(world, OLD)
    world.ingest()
    check_settled(world, NEW)


@pytest.mark.promise("lance-faults")
@pytest.mark.parametrize("done", [False, True], ids=["not_done", "done"])
@pytest.mark.parametrize("call", ["find_staged", "put_manifest", "remove_staged"])
def test_a_publication_whose_manifest_was_not_installed_is_acknowledged_and_installed_later(
    world: World, monkeypatch: pytest.MonkeyPatch, call: str, done: bool
) -> None:
    before, failing = world.head, Flaky(getattr(table, call), OSError("503"), times=1, done=done)
    with monkeypatch.context() as patch:
        patch.setattr(table, call, failing)
        [publication] = world.ingest().publications
    is_visible = call == "remove_staged" or (call == "put_manifest" and done)
    assert world.corpus.table.latest_version() == (publication.version if is_visible else before)
    assert len(staged_manifests(world.settings.table_uri)) == (not (call == "remove_staged" and done))
    check_settled(world, NEW)
    assert world.corpus.table.latest_version() == publication.version


@pytest.mark.parametrize("done", [False, True], ids=["not_done", "done"])
def test_a_data_file_whose_write_was_reported_as_failed_is_swept(
    world: World, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            LanceTable,
            "stage_batches",
            Flaky(LanceTable.stage_batches, TableUnavailableError("503"), times=1, done=done),
        )
        with pytest.raises(UnavailableError):
            world.ingest()
    check_settled(world, OLD)
    world.ingest()
    check_settled(world, NEW)
    assert world.embeddings.embedded == len(world.chunks("a.txt"))


@pytest.mark.promise("in-flight-only")
@pytest.mark.parametrize("recording", ["record_batch", "record_fragment", "mark_prepared", "mark_published"])
def test_a_record_whose_confirmation_is_lost_ends_the_run_and_embeds_nothing_twice(
    world: World, monkeypatch: pytest.MonkeyPatch, recording: str
) -> None:
    """The record itself was rolled back with its transaction."""
    with monkeypatch.context() as patch:
        module = embedding_cache if recording == "record_batch" else sagas
        failing = Flaky(getattr(module, recording), DatabaseUnavailableError("lost"), times=1, done=True)
        patch.setattr(module, recording, failing)
        with pytest.raises(UnavailableError):
            world.ingest()
    check_settled(world, OLD)
    world.ingest()
    check_settled(world, NEW)
    in_flight = len(world.chunks("a.txt")) if recording == "record_batch" else 0
    assert world.embeddings.embedded == len(world.chunks("a.txt")) + in_flight


@pytest.mark.promise("in-flight-only")
def test_a_recorded_batch_with_an_unconfirmed_commit_is_not_embedded_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_commit_after(monkeypatch, embedding_cache, "record_batch")
    with pytest.raises(UnavailableError):
        world.ingest()
    world.ingest()
    check_settled(world, NEW)
    assert world.embeddings.embedded == len(world.chunks("a.txt"))


@pytest.mark.promise("honest-reports")
def test_a_committed_publication_with_an_unconfirmed_commit_is_acknowledged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_commit_after(monkeypatch, corpora, "move_head")
    assert len(world.ingest().publications) == 1
    check_settled(world, NEW)


def lose_commit_after(monkeypatch: pytest.MonkeyPatch, module: Any, call: str) -> None:
    """Let the COMMIT of the transaction in which a call is made be carried out, and its answer be lost."""
    marked: list[Connection] = []
    original, commit = getattr(module, call), Connection.commit

    def mark(connection: Connection, *arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(module, call, original)
        marked.append(connection)
        return original(connection, *arguments, **named)

    def commit_and_lose(connection: Connection) -> None:
        commit(connection)
        if connection in marked:
            marked.remove(connection)
            connection.pgconn.finish()
            raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(module, call, mark)
    monkeypatch.setattr(psycopg.Connection, "commit", commit_and_lose)


@pytest.mark.promise("embedding-faults")
@pytest.mark.parametrize("fault", [Fault.REPLY_LOST, Fault.RESET, Fault.SERVER_ERROR, Fault.TRUNCATED_JSON])
@pytest.mark.parametrize("times", [2, 99])
def test_a_request_to_the_embedding_api_is_repeated_but_not_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: Fault, times: int
) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)  # seconds, which no setting shortens
    world.embeddings.fail_next(fault, times)
    if times == 2:
        world.ingest()
        check_settled(world, NEW)
    else:
        with pytest.raises((UnavailableError, EmbeddingResponseError)):
            world.ingest()
        check_settled(world, OLD)


@pytest.mark.parametrize("times", [1, 99])
def test_a_database_that_cannot_be_reached_at_the_start_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    with monkeypatch.context() as patch:
        failing = Flaky(Database.transaction, DatabaseUnavailableError("too many connections"), times=times, done=False)
        patch.setattr(Database, "transaction", failing)
        with pytest.raises(UnavailableError):
            world.ingest()
    check_settled(world, OLD)
