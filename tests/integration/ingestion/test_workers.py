"""Worker processes that share a run: what they publish together, and what is kept when one of them or the run dies."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing.connection import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar, cast
from unittest.mock import Mock

import pytest

from ingest_pipeline import errors
from ingest_pipeline.config.spending_limits import SpendingLimits
from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.errors import SpendingLimitError, WorkersDiedError
from ingest_pipeline.ingestion.run import IngestRun, RunOptions
from ingest_pipeline.ingestion.workers import parts as parts_module
from ingest_pipeline.ingestion.workers import pool as pool_module
from ingest_pipeline.ingestion.workers import processes as processes_module
from ingest_pipeline.ingestion.workers.messages import Part, Ready, Served
from ingest_pipeline.ingestion.workers.parts import LARGEST_PART, SMALLEST_PART, parts, weight
from ingest_pipeline.ingestion.workers.pool import WorkerSettings
from ingest_pipeline.ingestion.workers.processes import Worker, WorkerProcesses
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.preparation.spending_guard import SpendingGuard
from ingest_pipeline.processes import is_running
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.world import World, mark_served, paragraphs

_CHUNKS = 8
_PATIENCE_SECONDS = 300
_Found = TypeVar("_Found")
_SCRIPT = """
import sys
from ingest_pipeline import CorpusConfig, open_corpus
from ingest_pipeline.ingestion.workers import parts, pool
parts.SMALLEST_PART = pool.SMALLEST_PART = 20_000
with open_corpus(CorpusConfig.model_validate_json(sys.argv[1])) as corpus:
    corpus.ingest(workers=2)
"""


@pytest.fixture
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few documents."""
    monkeypatch.setattr(parts_module, "SMALLEST_PART", 20_000)
    monkeypatch.setattr(pool_module, "SMALLEST_PART", 20_000)


def _write(world: World, count: int, kind: str = "early") -> None:
    for number in range(count):
        world.put(f"{kind}-{number:03}.txt", paragraphs(f"{world.settings.corpus}-{kind}{number}", _CHUNKS))


def _run(world: World, workers: int = 2) -> IngestRun:
    def create_embedder() -> EmbeddingClient:
        return OpenAIEmbedder(world.embedding_settings)

    address = world.address
    settings = WorkerSettings.of(workers, address.database_url, address.settings, address.embedding_settings)
    return IngestRun(world.context, create_embedder, RunOptions(), workers=settings)


def _sagas(world: World, state: str) -> list[str]:
    """Writers of the sagas that ingest and are in a state."""
    with world.database.transaction() as connection:
        rows = connection.execute(
            "SELECT writer FROM ingest_pipeline.saga WHERE kind = 'ingest' AND state::text = %s ORDER BY started_at",
            (state,),
        ).fetchall()
    return [row["writer"] for row in rows]


def _pid(writer: str) -> int:
    return int(writer.split(":")[2])


def _children(pid: int) -> list[int]:
    """The processes that the main thread of a process started and that have not ended."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _until(found: Callable[[], _Found]) -> _Found:
    """Wait until a function returns something true; returns that."""
    ends = time.monotonic() + _PATIENCE_SECONDS
    while not (value := found()):
        assert time.monotonic() < ends, "it does not happen"
        time.sleep(0.02)
    return value


@contextmanager
def _killer(world: World) -> Generator[list[str]]:
    """Kill a worker that has published something and is preparing more. No late document is embedded before."""
    killed: list[str] = []

    def found() -> str | None:
        published = set(_sagas(world, "published"))
        return next((writer for writer in _sagas(world, "preparing") if writer in published), None)

    def kill() -> None:
        with world.embeddings.holding("-late"):
            writer = _until(found)
            assert writer is not None
            os.kill(_pid(writer), signal.SIGKILL)
            killed.append(writer)

    thread = threading.Thread(target=kill)
    thread.start()
    yield killed
    thread.join()


@pytest.mark.promise("workers")
@pytest.mark.usefixtures("_small_parts")
def test_the_share_of_a_killed_worker_is_done_by_the_other_and_nothing_is_embedded_again(world: World) -> None:
    _write(world, 12)
    _write(world, 12, "late")
    mark_served(world.database, world.embedding_settings)
    with _killer(world) as killed:
        outcome = _run(world).run()
    assert (outcome.published, outcome.problems, len(killed)) == (24, [], 1)
    assert len(set(_sagas(world, "published"))) == 2, "both shared the documents"
    again = {text for text, count in world.embeddings.texts.items() if count > 1}
    assert len(again) <= 2 * 8 * 8, "at most the requests in progress of one worker: twice its half of 16, of 8 texts"
    assert max(world.embeddings.texts.values()) <= 2
    assert _sagas(world, "preparing") in ([], killed), "the next publication or recovery settles its saga"
    world.recover()
    world.check()
    world.check_nothing_left()
    assert len(world.texts()) == 24


@pytest.mark.promise("workers")
def test_workers_end_with_a_run_that_is_killed_and_the_next_run_continues(world: World, tmp_path: Path) -> None:
    _write(world, 12)
    _write(world, 12, "late")
    mark_served(world.database, world.embedding_settings)
    settings = world.settings.replace(
        database_url=world.database.url, embedding_base_url=world.embeddings.base_url, embedding_api_key="none"
    )
    with world.embeddings.holding("-late"):
        process = subprocess.Popen([sys.executable, "-c", _SCRIPT, settings.model_dump_json()], cwd=tmp_path)
        try:
            _until(lambda: _sagas(world, "published") and _sagas(world, "preparing"))
            workers = _children(process.pid)  # not the writers of sagas: a worker may not have begun one yet
        finally:
            process.kill()
            process.wait()
    _until(lambda: not any(map(is_running, workers)))
    published = len(world.texts())
    assert len(workers) == 2
    assert 0 < published < 24
    outcome = _run(world, workers=1).run()
    assert (outcome.published, len(world.texts())) == (24 - published, 24)
    assert max(world.embeddings.texts.values()) == 1, "the interrupted workers recorded the answers in progress"
    world.check()


@pytest.mark.promise("limits")
def test_the_tokens_of_all_workers_count_for_the_limit_of_their_run(world: World) -> None:
    world.put("a.txt", "a")
    world.ingest()
    (writer,) = _sagas(world, "published")
    guard = SpendingGuard(world.corpus, SpendingLimits(tokens_per_run=8))
    guard.reserve(4)
    guard.count_writers([writer, "another"])
    with pytest.raises(SpendingLimitError, match="This run was billed"):
        guard.reserve(4)


def test_a_few_documents_and_an_unchanged_source_start_no_worker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes_module, "_start", Mock(side_effect=AssertionError("no worker is needed")))
    world.put("a.txt", "a")
    world.put("c.txt", "c")
    assert _run(world, workers=4).run().published == 2
    assert _run(world, workers=4).run().published == 0
    world.remove("a.txt")
    world.put("b.txt", "a")
    outcome = _run(world, workers=4).run()
    assert (outcome.published, outcome.removed, world.head) == (1, 1, 3), "a renamed file is one publication"


@pytest.mark.usefixtures("_small_parts")
def test_a_run_whose_workers_do_not_start_fails_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(world, 8)
    monkeypatch.setattr(processes_module, "with_parent_death_signal", Mock(return_value=[sys.executable, "-c", ""]))
    with pytest.raises(WorkersDiedError, match=r"Corpus 'docs': All workers died\. What was published"):
        _run(world).run()


def _plan(size: int) -> DocumentPlan:
    return cast("DocumentPlan", SimpleNamespace(source=SimpleNamespace(size=size)))


def test_parts_become_smaller_towards_the_end_and_are_never_tiny_or_huge() -> None:
    plans = [_plan(50_000) for _ in range(4000)]
    cut = list(parts(plans, 2))
    assert [plan for part in cut for plan in part] == plans
    sizes = [weight(part) for part in cut]
    assert sizes[0] <= weight(plans) / 4
    assert sizes == sorted(sizes, reverse=True)
    assert all(SMALLEST_PART * 0.9 <= size <= LARGEST_PART for size in sizes[:-1])
    assert [len(part) for part in parts([_plan(10**9), _plan(1)], 2)] == [1, 1]
    assert list(parts([], 2)) == []


_KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.IngestError)]


class _Scripted(WorkerProcesses):
    """Workers that are pipes of the test."""

    def received(self, worker: Worker, message: object) -> None:
        worker.connection = Mock(recv=Mock(return_value=message), send=worker.connection.send)
        self._receive(worker)
        self._hand_out()


@pytest.mark.promise("wrong-settings")
def test_one_worker_alone_gets_a_part_until_the_endpoint_has_served_the_model() -> None:
    pipes = [Pipe() for _ in range(2)]
    first, second = (Worker(Mock(), ours) for ours, _ in pipes)
    scripted = _Scripted(Mock(), 2, workers=[first, second])
    scripted.add([Part([]), Part([])])
    scripted.received(first, Ready("first", is_served=False))
    scripted.received(second, Ready("second", is_served=False))
    assert (first.part is None, second.part is None) == (False, True)
    scripted.received(first, Served())
    assert second.part is not None
    for pipe in pipes:
        for end in pipe:
            end.close()
    for end in scripted._alarm:  # pyright: ignore[reportPrivateUsage]
        end.close()


def test_every_error_arrives_as_it_was_sent() -> None:
    assert len(_KINDS) > 40
    for kind in _KINDS:
        sent = kind.__new__(kind, "what happened")
        sent.__dict__.update(message="what happened", advice="what to do", document="a.txt")
        arrived = pickle.loads(pickle.dumps(sent))  # noqa: S301  just pickled
        assert (type(arrived), str(arrived), arrived.args) == (kind, "what happened. what to do", sent.args)
        assert arrived.__dict__ == sent.__dict__


@pytest.mark.soak
@pytest.mark.usefixtures("_small_parts")
def test_workers_of_two_corpora_at_once(world: World, tmp_path: Path) -> None:
    """In one database, and both with documents of the same names."""
    (tmp_path / "second").mkdir()
    with EmbeddingServer() as server:
        other = World.over(tmp_path / "second", world.database, server, "other")
        worlds = (world, other)
        for one in worlds:
            _write(one, 24)
        outcomes: list[int] = []

        def work(one: World) -> None:
            outcomes.append(_run(one).run().published)

        threads = [threading.Thread(target=work, args=(one,)) for one in worlds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == [24, 24]
        for one in worlds:
            assert len(one.texts()) == 24
            assert set(one.embeddings.texts.values()) == {1}
            one.check_nothing_left()
