"""Notices of S3 in Dagster: the listener's runs, the sensor of the queue, and how rarely the source is then listed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.cli import _listener as listener_module
from ingest_pipeline.cli import _session
from ingest_pipeline.cli._listener import Listener
from ingest_pipeline.errors import EmbeddingAccessError, EventQueueUnavailableError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.orchestration import cursor_position, queue_readers
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.url import parts_of, write_url
from tests.support.crash.meanwhile import once_at
from tests.support.dagster.cli import Cli, environment_of
from tests.support.dagster.world import HEAD, METADATA, DagsterWorld
from tests.support.servers.embedding_server import EmbeddingServer, Fault
from tests.support.servers.notices import NoticeQueue
from tests.support.servers.s3 import S3Server
from tests.support.servers.tcp_proxy import TcpProxy
from tests.support.world import paragraphs

pytestmark = pytest.mark.promise("events")


@pytest.fixture
def queue(s3: S3Server, tmp_path: Path) -> NoticeQueue:
    found = NoticeQueue(s3, f"{tmp_path.name}/")
    assert len(found.bodies()) == 1  # the test event
    return found


@pytest.fixture
def variables(s3: S3Server, queue: NoticeQueue, tmp_path: Path) -> dict[str, str]:
    return {
        **s3.env,
        "INGEST_SOURCE": s3.url(tmp_path.name),
        "INGEST_EVENTS": queue.address,
        "INGEST_MIN_AGE_SECONDS": "3600",  # what notices name is not waited for
    }


@dataclass(slots=True)
class Stage:
    dagster: DagsterWorld
    s3: S3Server
    queue: NoticeQueue
    prefix: str
    database: Database
    lines: list[str] = field(default_factory=list[str])
    listener: Any = None

    def put(self, key: str, text: str) -> None:
        self.s3.put(f"{self.prefix}/{key}", text.encode())

    def delete(self, key: str) -> None:
        self.s3.delete(f"{self.prefix}/{key}")

    def notice(self, key: str) -> str:
        return self.queue.notice(f"{self.prefix}/{key}")

    def turn(self) -> int:
        """One turn of the listener, which does not wait; returns the number of messages it deleted."""
        if self.listener is None:
            self.listener = Listener(self.dagster.settings, lambda line, _: self.lines.append(line))
        return int(self.listener.turn(self.dagster.instance, self.database, 0))

    def check_equal(self) -> None:
        with _session.context(self.dagster.settings) as context:
            assert Planner(context).plans() == []
        assert self.dagster.audit().violations == []


@pytest.fixture
def stage(dagster: DagsterWorld, s3: S3Server, queue: NoticeQueue, tmp_path: Path) -> Generator[Stage]:
    with Database(dagster.settings.database_url or "") as database:
        yield Stage(dagster, s3, queue, tmp_path.name, database)


def reason(result: object) -> str:
    assert isinstance(result, dg.SkipReason), result
    return str(result.skip_message)


def test_the_listener_publishes_in_runs_that_dagster_shows(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    dagster, extended = stage.dagster, list[str]()
    monkeypatch.setattr(listener_module, "_EXTEND_SECONDS", 0.01)
    failpoints.install(lambda passed, side: extended.append(side) if passed is Boundary.NOTICES_EXTENDED else None)
    try:
        for key in ("a.txt", "b c+ü.txt"):
            stage.put(key, paragraphs(key[0], 1))
        assert stage.turn() == 2
    finally:
        failpoints.install(None)
    assert "after" in extended  # the messages stayed hidden during the run
    stage.check_equal()
    assert dagster.materialized(METADATA) == {"a.txt", "b c+ü.txt"}
    assert dagster.latest(HEAD, None)
    stage.put("a.txt", paragraphs("omega", 1))
    stage.delete("b c+ü.txt")
    assert stage.turn() == 2
    stage.check_equal()
    assert stage.queue.counts() == (0, 0)
    assert [line.partition(", in ")[0] for line in stage.lines] == [
        "2 documents published, 0 removed",
        "1 document published, 1 removed",
    ]
    runs = dagster.instance.get_runs()
    assert [run.is_success for run in runs] == [True, True]
    config: Any = runs[0].run_config
    assert config["ops"]["docs_ingest"]["config"]["documents"] == ["a.txt", "b c+ü.txt"]

    # The sensor rests while a listener reads the queue.
    assert reason(dagster.tick("docs_event_sensor")) == "`ingest-pipeline listen` reads the queue."
    now = time.time()
    with monkeypatch.context() as later:
        later.setattr(queue_readers, "time", lambda: now + 100)
        assert reason(dagster.tick("docs_event_sensor")) == "The queue has no notices."
    stage.listener.stop()
    assert reason(dagster.tick("docs_event_sensor")) == "The queue has no notices."


def test_sigterm_stops_a_listener_in_the_background_after_a_run(stage: Stage) -> None:
    # A shell script starts its background processes with SIGINT ignored.
    interrupt, termination = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        stage.put("a.txt", paragraphs("alpha", 1))
        assert stage.turn() == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, termination)


def test_notices_stay_while_something_fails_that_all_documents_need(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "_BACKOFF_SECONDS", 0.0)
    stage.put("a.txt", paragraphs("alpha", 1))
    stage.dagster.embeddings.fail_next(Fault.UNAUTHORIZED)
    assert stage.turn() == 0
    assert stage.queue.counts() == (0, 1)
    assert "refused the key" in stage.lines[1]
    assert stage.turn() == 0
    assert "The last run failed as a whole" in stage.lines[2]
    assert len(stage.dagster.instance.get_runs()) == 1


def test_a_queue_that_does_not_answer_is_tried_again_after_growing_pauses(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.turn()
    pauses: list[float] = []
    turns: list[Sequence[object]] = []

    def turn(*arguments: object) -> int:
        turns.append(arguments)
        if len(turns) == 3:
            raise EmbeddingAccessError("enough")
        raise EventQueueUnavailableError("The queue sqs://a cannot be read: 503")

    monkeypatch.setattr(stage.listener, "turn", turn)
    monkeypatch.setattr(listener_module.time, "sleep", pauses.append)
    with pytest.raises(EmbeddingAccessError):
        stage.listener.listen()
    assert pauses == [1.0, 2.0]
    assert sum("The queue sqs://a cannot be read: 503" in line for line in stage.lines) == 1


@pytest.mark.parametrize("seconds", [1.0, 3.0], ids=["restart", "outage"])
def test_a_listener_that_loses_postgres_says_so_in_two_lines_and_publishes_what_it_had_begun(
    stage: Stage, seconds: float, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def report(line: str, _: bool) -> None:
        stage.lines.append(line)
        if any("1 document published" in one for one in stage.lines) and any("is back" in one for one in stage.lines):
            ended.append(True)

    def briefly(instance: dg.DagsterInstance, database: Database, _: int) -> int:
        if ended or time.monotonic() > latest:
            raise KeyboardInterrupt
        return turn(instance, database, 1)

    def lose() -> None:
        proxy.refuse()
        proxy.cut()
        threading.Timer(seconds, proxy.forward).start()

    ended, latest = list[bool](), time.monotonic() + 120
    monkeypatch.setattr(listener_module, "_EXTEND_SECONDS", 0.1)
    settings, parts = stage.dagster.settings, parts_of(stage.dagster.settings.database_url or "")
    with TcpProxy("127.0.0.1", int(parts["port"])) as proxy:
        through = settings.replace(database_url=write_url(parts | {"port": str(proxy.port)}))
        listener = Listener(through, report)
        turn = listener.turn
        monkeypatch.setattr(listener, "turn", briefly)
        stage.put("a.txt", paragraphs("alpha", 1))
        with once_at((Boundary.BATCH_RECORDED, "before"), lose), pytest.raises(KeyboardInterrupt):
            listener.listen()
    assert len([line for line in stage.lines if "The connection to Postgres was lost (" in line]) == 1
    assert len([line for line in stage.lines if "The connection to Postgres is back after" in line]) == 1
    assert not any("psycopg2" in line or "\n" in line for line in stage.lines), stage.lines
    shown = capfd.readouterr().err
    assert "Traceback" not in shown
    assert "psycopg2" not in shown
    stage.check_equal()


def test_the_sensor_requests_one_run_and_deletes_the_notices_when_it_has_published(stage: Stage) -> None:
    dagster = stage.dagster
    stage.put("a.txt", paragraphs("alpha", 1))
    stage.put("b.txt", paragraphs("beta", 1))
    result = dagster.tick("docs_event_sensor")
    assert isinstance(result, dg.SensorResult)
    (request,) = list(result.run_requests or ())
    assert stage.queue.counts() == (0, 2)  # nothing is published yet
    assert dagster.launch(request).success
    stage.check_equal()
    stage.queue.send(stage.notice("a.txt"), stage.notice("b.txt"))  # as they appear again after a minute
    assert reason(dagster.tick("docs_event_sensor")) == "0 documents differ among those that 2 messages name."
    assert stage.queue.counts() == (0, 2)


def test_the_source_is_listed_every_hour_while_the_queue_is_read(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    dagster, now = stage.dagster, time.time()
    later = 0.0
    for module in (queue_readers, cursor_position):
        monkeypatch.setattr(module, "time", lambda: now + later)
    stage.put("a.txt", paragraphs("alpha", 1))
    stage.turn()

    def tick() -> str:
        return reason(dagster.tick("docs_source_sensor"))

    assert tick() == "0 documents differ among 1."
    stage.put("lost.txt", paragraphs("lost", 1))
    stage.queue.bodies()
    assert "The event queue is read, and no document differed. The source is listed again at" in tick()
    later = 3200
    stage.turn()
    assert "is listed again at" in tick()
    with dagster.connection() as connection:  # a document whose retry is due
        connection.execute(
            "INSERT INTO ingest_pipeline.failure "
            "(generation, key, partition, etag, recipe, attempts, reason, unreadable, final, error, failed_at) "
            "SELECT 'docs', 'bad.txt', 'bad.txt', '1', recipe, 1, 'refused', false, false, 'it', "
            "now() - interval '1 day' FROM ingest_pipeline.document"
        )
    due, dagster.cursor = dagster.cursor, dagster.cursor
    assert "1 was modified too recently" in tick()
    dagster.cursor = due
    assert "is listed again at" in tick()  # the pass found that the failure was resolved
    later = 3400
    assert "1 was modified too recently" in tick()
    assert "1 was modified too recently" in tick()  # they differ, so there is no rest
    stage.delete("lost.txt")
    later = 0
    assert tick() == "0 documents differ among 1."
    assert "is listed again at" in tick()
    later = 5000  # nothing has read the queue since
    assert tick() == "0 documents differ among 1."


def test_the_command_line_shows_the_queue(
    s3: S3Server, queue: NoticeQueue, tmp_path: Path, database_url: str, embeddings: EmbeddingServer
) -> None:
    cli = Cli(tmp_path, environment_of(tmp_path, database_url, embeddings))
    (tmp_path / "source").mkdir()
    result = cli.run("listen")
    assert (result.exit_code, "There is no queue to listen to" in result.stderr) == (2, True)
    environment = {**s3.env, "INGEST_SOURCE": s3.url(tmp_path.name)}
    result = cli.run("listen", **environment, INGEST_EVENTS="sqs://nothing")
    assert result.exit_code == 2
    assert "The queue sqs://nothing cannot be examined" in result.stderr
    s3.put(f"{tmp_path.name}/a.txt", b"alpha")
    assert cli.run("ingest", **environment, INGEST_EVENTS=queue.address).exit_code == 0
    found = " ".join(cli.run("doctor", **environment, INGEST_EVENTS=queue.address).output.split())
    assert f"{queue.address} can be read, and its messages can be deleted: 1 waiting, 0 in progress." in found
    assert "Nothing reads the event queue, so the source is listed every 30 seconds." in found
    assert "1 waiting, 0 in progress" in cli.run("status", **environment, INGEST_EVENTS=queue.address).output
