"""Whatever is done in whatever order, and wherever a writer dies, the corpus is what a dictionary says."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ingest_pipeline.erasure.erase import erase
from ingest_pipeline.erasure.unfinished import continue_erasures
from ingest_pipeline.gates.judge import Gates, Judgement
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.postgres.ledger import erasures
from ingest_pipeline.saga.blocked import blocked_publications, drop_publication, release_publication
from ingest_pipeline.types import Finding
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.places import ERASURE, MAINTENANCE, RECOVERY, REPLACEMENT, ROLLBACK, places
from tests.support.world import World, paragraphs

Texts = dict[str, str]
KEYS = st.sampled_from(["a.txt", "b.md", "folder/c.txt"])
TEXTS = st.builds(paragraphs, st.sampled_from(["alpha", "beta", "gamma"]), st.integers(0, 3))
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Put:
    """A document as a blocked publication has prepared it."""

    text: str | None
    """None: the source had no such file."""
    number: int | None
    """The number of the write of the file."""


class Corpus(RuleBasedStateMachine):
    """A corpus beside a model of it: what the source holds, and what each head shows."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        assert world.corpus
        self.source: Texts = {}
        self.published: Texts = {}
        self.held: dict[str, str | None] = {}
        """What the source held of documents that were rolled back, and which is not to be ingested; None: nothing."""
        self.erased: set[str] = set()
        """Documents that are not ingested again, because they were erased."""
        self.blocked: list[dict[str, Put]] = []
        """What blocked publications have prepared, oldest first. No two have a document in common."""
        self.puts = itertools.count(1)
        self.put_last: dict[str, int] = {}
        """The number of the last write of each file that the source has."""
        self.heads: dict[int, Texts] = {self.world.head: {}}
        self.crashes = 0
        self.only_read = False
        """The last rule wrote to no store, so what was true before it is true."""

    @rule(key=KEYS, text=TEXTS)
    def put(self, key: str, text: str) -> None:
        self.world.put(key, text)
        self.source[key] = text
        self.put_last[key] = next(self.puts)
        self.only_read = True

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        if self.source.pop(key, None) is not None:
            self.world.remove(key)
            del self.put_last[key]
        self.only_read = True

    @rule()
    def publish(self) -> None:
        wanted = self.wanted()
        summary = self.world.ingest()
        if wanted == self.published:
            assert not summary.publications, "nothing differed"
        self.take(wanted)

    @rule(place=st.sampled_from(places(REPLACEMENT)))
    def publish_and_die(self, place: Place) -> None:
        outcome = Child(crash_jobs.ingest, self.world.address, kill_at=place).outcome()
        assert outcome.ours
        self.crashes += outcome.killed
        seen = self.seen()
        wanted = self.wanted()
        assert seen in (stored(self.published), stored(wanted)), f"died {place}"
        if seen == stored(wanted):
            self.take(wanted)
        assert outcome.killed or seen == stored(wanted), "what was acknowledged is published"

    @rule(number=st.integers(0, 20))
    def roll_back(self, number: int) -> None:
        version = sorted(self.heads)[number % len(self.heads)]
        self.world.roll_back(version)
        self.take_back(self.heads[version])

    @rule(number=st.integers(0, 20), place=st.sampled_from(places(ROLLBACK)))
    def roll_back_and_die(self, number: int, place: Place) -> None:
        version = sorted(self.heads)[number % len(self.heads)]
        outcome = Child(crash_jobs.roll_back, self.world.address, version, kill_at=place).outcome()
        assert outcome.ours
        seen, wanted = self.seen(), self.heads[version]
        assert seen in (stored(self.published), stored(wanted)), f"died {place}"
        assert outcome.killed or seen == stored(wanted), "what was acknowledged is published"
        if seen == stored(wanted):
            self.take_back(wanted)

    @rule()
    def maintain(self) -> None:
        crash_jobs.maintain(self.world.address)

    @rule(place=st.sampled_from(places(MAINTENANCE)))
    def maintain_and_die(self, place: Place) -> None:
        assert Child(crash_jobs.maintain, self.world.address, kill_at=place).outcome().ours

    @rule()
    def recover(self) -> None:
        self.world.recover()
        assert self.world.corpus.table.latest_version() == self.world.head

    @rule(place=st.sampled_from(places(RECOVERY)))
    def recover_and_die(self, place: Place) -> None:
        assert Child(crash_jobs.recover, self.world.address, kill_at=place).outcome().ours

    @rule()
    def recover_and_sweep(self) -> None:
        self.world.recover()
        self.world.check_nothing_left()

    @rule()
    def sweep_beside_what_is_in_doubt(self) -> None:
        self.world.sweep()

    @rule(number=st.integers(0, 20))
    def read_an_old_head(self, number: int) -> None:
        version = sorted(self.heads)[number % len(self.heads)]
        assert self.seen(version) == stored(self.heads[version])
        self.only_read = True

    @invariant()
    def head_shows_the_model(self) -> None:
        if self.only_read:
            self.only_read = False
            return
        self.world.check()
        assert self.seen() == stored(self.published)
        self.heads[self.world.head] = dict(self.published)

    @invariant()
    def nothing_is_bought_twice_but_what_was_in_flight(self) -> None:
        again = sum(count - 1 for count in self.world.embeddings.texts.values())
        assert again <= self.crashes * _BATCH

    def wanted(self) -> Texts:
        """What an ingest makes of the corpus: what the source holds, but for what is held back."""
        left_alone = {key for key, text in self.held.items() if text == self.source.get(key)}
        prepared = [item for publication in self.blocked for item in publication.items()]
        left_alone |= {key for key, put in prepared if put.number == self.put_last.get(key)}
        kept = {key: text for key, text in self.published.items() if key in left_alone}
        left_alone |= self.erased
        return kept | {key: text for key, text in self.source.items() if key not in left_alone}

    def take(self, wanted: Texts) -> None:
        """Documents were ingested, which ends their holds."""
        self.overtake(self.changed(wanted))
        for key in self.changed(wanted):
            self.held.pop(key, None)
        self.published = dict(wanted)

    def take_back(self, wanted: Texts) -> None:
        """Documents were rolled back; what the source holds of them is what was last ingested, or held already."""
        self.overtake(self.changed(wanted))
        for key in self.changed(wanted):
            self.held[key] = self.held.get(key, self.published.get(key))
        self.published = dict(wanted)

    def overtake(self, keys: set[str]) -> None:
        """Other publications of these documents end the blocked ones that have them."""
        self.blocked = [one for one in self.blocked if keys.isdisjoint(one)]

    def changed(self, wanted: Texts) -> set[str]:
        return {key for key in {*wanted, *self.published} if wanted.get(key) != self.published.get(key)}

    def seen(self, version: int | None = None) -> Texts:
        """What readers of both stores see; a document without chunks is in the catalog alone."""
        version = version or self.world.head
        with self.world.database.transaction() as connection:
            found = documents.documents_at(connection, self.world.corpus.generation, version)
        return {row.key: "" for row in found} | stored(self.world.texts(version))


class GatedCorpus(Corpus):
    """With publications that no gate lets pass, and decisions about them."""

    @rule()
    def publish_what_no_gate_lets_pass(self) -> None:
        wanted = self.wanted()
        settings = self.world.settings.replace(gate_max_lost=0)
        gated = World(self.world.database, settings, self.world.embeddings)
        refusal = Judgement(self.world.head, (Finding("refused", 1, 0, passed=False),))
        with mock.patch.object(Gates, "_judge", return_value=refusal):
            summary = gated.ingest()
        assert summary.publications == []
        keys = self.changed(wanted)
        assert {plan.key for one in summary.blocked for plan in one.plans} == keys
        if keys:
            self.overtake(keys)
            self.blocked.append({key: Put(self.source.get(key), self.put_last.get(key)) for key in keys})

    @rule()
    def release(self) -> None:
        if self.blocked:
            prepared = self.blocked.pop(0)
            release_publication(self.world.corpus, blocked_publications(self.world.corpus)[0].saga)
            for key, put in prepared.items():
                self.held.pop(key, None)
                self.published.pop(key, None)
                if put.text is not None:
                    self.published[key] = put.text

    @rule()
    def drop(self) -> None:
        if self.blocked:
            self.blocked.pop(0)
            drop_publication(self.world.corpus, blocked_publications(self.world.corpus)[0].saga)


class ErasedCorpus(Corpus):
    """The same, with erasures."""

    @rule(key=KEYS)
    def erase(self, key: str) -> None:
        if key in self.published:
            receipt = erase(self.world.corpus, [key], reason="a request")
            assert (receipt.found, receipt.places) == (0, [])
            self.take_out(key)

    @rule(key=KEYS, place=st.sampled_from(places(ERASURE)))
    def erase_and_die(self, key: str, place: Place) -> None:
        if key not in self.published:
            return
        outcome = Child(crash_jobs.erase, self.world.address, [key], kill_at=place).outcome()
        assert outcome.ours
        assert self.seen() in (stored(self.published), stored(self.without(key))), f"died {place}"
        self.world.recover()
        assert [receipt.found for receipt in continue_erasures(self.world.corpus)] in ([], [0])
        if self.seen() == stored(self.without(key)):
            self.take_out(key)
        else:
            assert outcome.killed

    @rule(key=KEYS)
    def allow(self, key: str) -> None:
        with self.world.database.transaction() as connection:
            allowed = erasures.allow(connection, self.world.corpus.name, [key])
        assert allowed == [key for key in [key] if key in self.erased]
        self.erased.discard(key)
        self.only_read = True

    def without(self, key: str) -> Texts:
        return {name: text for name, text in self.published.items() if name != key}

    def take_out(self, key: str) -> None:
        """A document was erased: no version that is left has it, and its vectors are unknown."""
        self.published = self.without(key)
        self.held.pop(key, None)
        self.erased.add(key)
        left = set(self.world.corpus.table.versions())
        self.heads = {version: texts for version, texts in self.heads.items() if version in left}
        assert not any(key in texts for texts in self.heads.values())
        self.world.embeddings.reset_counters()


def stored(texts: Texts) -> Texts:
    """Without the spaces, of which a chunk drops those at its ends."""
    return {key: "".join(text.split()) for key, text in texts.items()}


def run(
    world: World, tmp_path: Path, examples: int, machine: type[Corpus] = Corpus, *, by_chance: bool = False
) -> None:
    """Check some examples: the same ones each time, or others each time."""
    numbers = itertools.count()

    def new_world() -> World:
        name = f"model_{next(numbers)}"
        source = tmp_path / name
        source.mkdir()
        world.embeddings.reset_counters()
        return World(world.database, world.settings.replace(corpus=name, source=str(source)), world.embeddings)

    run_state_machine_as_test(  # pyright: ignore[reportUnknownVariableType]
        lambda: machine(new_world()),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  it may be any factory
        settings=settings(
            max_examples=examples,
            stateful_step_count=12,
            derandomize=not by_chance,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


@pytest.mark.promise("rollbacks", "any-order", "empty-files")
@pytest.mark.timeout(1800)
def test_the_corpus_is_what_the_model_says(world: World, tmp_path: Path) -> None:
    run(world, tmp_path, examples=8)


@pytest.mark.promise("gates", "any-order")
@pytest.mark.timeout(1800)
def test_the_corpus_is_what_the_model_says_with_gates(world: World, tmp_path: Path) -> None:
    run(world, tmp_path, examples=4, machine=GatedCorpus)


@pytest.mark.promise("gates", "any-order")
@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_corpus_is_what_the_model_says_with_gates_for_long(world: World, tmp_path: Path) -> None:
    run(world, tmp_path, examples=100, machine=GatedCorpus, by_chance=True)


@pytest.mark.promise("any-order", "erasure")
@pytest.mark.timeout(1800)
def test_the_corpus_is_what_the_model_says_with_erasures(world: World, tmp_path: Path) -> None:
    run(world, tmp_path, examples=2, machine=ErasedCorpus)


@pytest.mark.promise("any-order", "erasure")
@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_corpus_is_what_the_model_says_with_erasures_for_long(world: World, tmp_path: Path) -> None:
    run(world, tmp_path, examples=100, machine=ErasedCorpus, by_chance=True)


@pytest.mark.promise("any-order")
@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_corpus_is_what_the_model_says_for_long(world: World, tmp_path: Path) -> None:
    run(world, tmp_path, examples=300, by_chance=True)
