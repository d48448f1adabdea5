"""Notices as hints: whatever happens to them, the corpus becomes what the source is, and nothing is done twice.

The notices are those that moto's S3 puts into moto's SQS, or are put there by the test.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.create import create_embedder
from ingest_pipeline.events.queue import EventQueue
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.ingestion.run import IngestRun, RunOptions
from ingest_pipeline.orchestration.noticed_documents import work_off
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.database import Database
from tests.support.servers.embedding_server import POISON, EmbeddingServer
from tests.support.servers.notices import TEST_EVENT, NoticeQueue, event_bridge_message, in_sns
from tests.support.servers.s3 import S3Server
from tests.support.world import World, mark_served, paragraphs

pytestmark = pytest.mark.promise("events")


@dataclass(slots=True)
class Stage:
    """A source in S3, its queue, and what reads the queue, without Dagster."""

    world: World
    s3: S3Server
    there: NoticeQueue
    queue: EventQueue
    prefix: str
    runs: list[list[str]] = field(default_factory=list[list[str]])
    warnings: list[str] = field(default_factory=list[str])

    def put(self, key: str, text: str) -> None:
        self.s3.put(f"{self.prefix}/{key}", text.encode())

    def delete(self, key: str) -> None:
        self.s3.delete(f"{self.prefix}/{key}")

    def notice(self, key: str) -> str:
        return self.there.notice(f"{self.prefix}/{key}")

    def turn(self) -> int:
        """Read the queue once; returns how many messages were deleted."""
        found = work_off(self.queue.receive(0), self.queue, lambda: self.world.context, self._ingest)
        self.warnings += found.warnings
        return len(found.settled)

    def _ingest(self, due: Sequence[DocumentPlan]) -> None:
        keys = [plan.key for plan in due]
        self.runs.append(keys)
        settings = self.world.embedding_settings
        options = RunOptions(release_holds=False, skip_backed_off=True, withhold_recipe=True)
        IngestRun(self.world.context, lambda: create_embedder(settings), options).run(documents=keys)

    def list_source(self) -> None:
        """What a run over everything does, which finds what no notice told."""
        settings = self.world.embedding_settings
        options = RunOptions(confirm_removals=True)
        IngestRun(self.world.context, lambda: create_embedder(settings), options).run()

    @property
    def differing(self) -> list[str]:
        return [plan.key for plan in Planner(self.world.context).plans()]

    def check_equal(self) -> None:
        assert self.differing == []
        assert self.world.audit().violations == []


@pytest.fixture
def scheme() -> str:
    return "file"


@pytest.fixture
def stage(database: Database, embeddings: EmbeddingServer, tmp_path: Path, s3: S3Server, scheme: str) -> Stage:
    there = NoticeQueue(s3, f"{tmp_path.name}/")
    assert len(there.bodies()) == 1  # the test event
    base = World.over(tmp_path, database, embeddings)
    settings: CorpusConfig = base.settings.replace(
        source=s3.url(tmp_path.name),
        events=there.address,
        partition_by=scheme,
        min_age_seconds=3600,  # what notices name is not waited for
    )
    mark_served(database, base.embedding_settings)
    return Stage(World(database, settings, embeddings), s3, there, EventQueue(there.address), tmp_path.name)


def test_notices_that_say_nothing_new_start_no_run(stage: Stage) -> None:
    stage.put("a b+ü%.txt", paragraphs("alpha", 1))
    assert stage.turn() == 1
    stage.check_equal()
    foreign = [stage.there.notice("elsewhere/a.txt"), stage.there.notice(f"{stage.prefix}/")]
    malformed = ["no json", '{"Records": [{}]}']
    stage.there.send(TEST_EVENT, in_sns(TEST_EVENT), *foreign, *malformed, *[stage.notice("a b+ü%.txt")] * 3)
    stage.there.send(stage.notice("never.txt"), in_sns(stage.notice("a b+ü%.txt")))
    stage.there.send(event_bridge_message(stage.there.bucket, f"{stage.prefix}/a b+ü%.txt"))
    assert stage.turn() == 12
    assert stage.there.counts() == (0, 0)
    assert stage.runs == [["a b+ü%.txt"]]
    assert stage.warnings == [
        "A message of the queue is no notice of S3, because it is not a JSON object: 'no json'",
        "A message of the queue is no notice of S3, because it names no object: '{\"Records\": [{}]}'",
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_lost_doubled_late_and_reordered_notices_change_nothing_but_latency(stage: Stage, seed: int) -> None:
    chance = random.Random(seed)
    late: list[str] = []
    keys = [f"{name}.txt" for name in "abcdef"]
    for number in range(5):
        for key in chance.sample(keys, 3):
            if chance.random() < 0.3 and number:
                stage.delete(key)
            else:
                stage.put(key, paragraphs(f"{key[0]}{number}", 1))
        arrived = [body for body in [*stage.there.bodies(), *late] if chance.random() > 0.2]
        late = [body for body in arrived if chance.random() < 0.3]
        now = [body for body in arrived if body not in late]
        delivered = [*now, *chance.choices([*now, stage.notice("a.txt")], k=2)]
        chance.shuffle(delivered)
        stage.there.send(*delivered)
        stage.turn()
        assert stage.world.audit().violations == []
    stage.there.send(*late)
    stage.turn()
    stage.list_source()  # finds what was lost
    stage.check_equal()
    assert max(stage.world.embeddings.texts.values()) == 1


def test_a_document_that_is_refused_is_not_tried_for_each_notice(stage: Stage) -> None:
    stage.put("good.txt", paragraphs("good", 1))
    stage.put("bad.txt", f"{POISON} " * 100)
    assert stage.turn() == 2
    assert stage.differing == ["bad.txt"]
    stage.there.send(stage.notice("bad.txt"))
    assert stage.turn() == 1
    assert len(stage.runs) == 1
    stage.put("bad.txt", paragraphs("better", 1))
    assert stage.turn() == 1
    stage.check_equal()


@pytest.mark.promise("source-faults")
def test_most_of_the_corpus_is_not_removed_piece_by_piece(stage: Stage) -> None:
    keys = [f"{number:02}.txt" for number in range(20)]
    for key in keys:
        stage.put(key, paragraphs(key, 1))
    stage.turn()
    for start in range(0, 20, 5):
        for key in keys[start : start + 5]:
            stage.delete(key)
        stage.turn()
    assert stage.there.counts() == (0, 0)
    assert stage.world.audit().documents == 10
    assert len(stage.warnings) == 2
    assert "15 of 20 documents of corpus 'docs' are missing from" in stage.warnings[0]


def test_an_object_that_became_empty_is_not_published_before_its_age(stage: Stage) -> None:
    """A bucket that is mounted as a folder shows an empty object before the one that is being written."""
    stage.put("a.txt", paragraphs("alpha", 1))
    assert stage.turn() == 1
    stage.put("a.txt", "")
    assert stage.turn() == 0
    assert stage.there.counts() == (0, 1)
    assert stage.world.text_at("a.txt") != ""
    stage.put("a.txt", paragraphs("beta", 1))
    assert stage.turn() == 1
    stage.check_equal()


@pytest.mark.parametrize("scheme", ["bucket:4"])
def test_the_source_is_not_listed_for_a_notice(stage: Stage, scheme: str) -> None:
    for number in range(8):
        stage.put(f"{number}.txt", paragraphs(str(number), 1))
    stage.turn()
    stage.s3.requests()
    stage.put("3.txt", paragraphs("changed", 1))
    assert stage.turn() == 1
    assert not [one for one in stage.s3.requests() if "list-type" in one]
    assert stage.runs[1] == ["3.txt"]
    stage.check_equal()


class Death(BaseException):
    """Nothing handles it, as nothing handles SIGKILL."""


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("boundary", [Boundary.NOTICES_RECEIVED, Boundary.MANIFEST_INSTALLED, Boundary.NOTICES_DELETED])
def test_a_reader_that_dies_anywhere_loses_no_notice(stage: Stage, boundary: Boundary, side: str) -> None:
    _ = stage.world.context  # creates the corpus
    stage.put("a.txt", paragraphs("alpha", 1))

    def die(passed: Boundary, at: str) -> None:
        if (passed, at) == (boundary, side):
            raise Death

    failpoints.install(die)
    try:
        with pytest.raises(Death):
            stage.turn()
    finally:
        failpoints.install(None)
    waiting, hidden = stage.there.counts()
    is_deleted = (boundary, side) == (Boundary.NOTICES_DELETED, "after")
    assert waiting + hidden == (0 if is_deleted else 1)
    if hidden:
        stage.there.send(stage.notice("a.txt"))  # as it appears again after a minute
    stage.turn()
    stage.world.recover()
    stage.check_equal()
    assert max(stage.world.embeddings.texts.values()) == 1
