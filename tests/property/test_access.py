"""Whoever may read what, and however that changes: no search ever finds a document for a principal that it forbids."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.embedding.base import EmbeddedBatch, EmbeddingSettings, Purpose
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.embedding.usage_meter import UsageMeter
from ingest_pipeline.ingestion import reembed
from ingest_pipeline.ingestion.context import named_corpus
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.search.expand import EXPANSIONS
from ingest_pipeline.search.search import Hit, filter_at_head, search
from ingest_pipeline.types import SEARCH_MODES, Usage
from tests.support.servers.embedding_server import NARROWING_MODEL, TEST_MODEL
from tests.support.world import Address, World
from tools import figures

Flags = npt.NDArray[np.bool_]
DOCUMENTS = [f"{number:02}.md" for number in range(40)]
PRINCIPALS = [f"user {number}'s" for number in range(250)]
NUMBERS = {name: number for number, name in enumerate(PRINCIPALS)}
COLUMNS = {"readers": "list<string>", "tens": "int"}
FILTERS: list[Sequence[str]] = [(), ("key=*3.md",), ("key=?1.md",), ("tens>=2",), ("tens=0", "size>1")]
"""Conditions on columns of the catalog, of the table, and of both."""
CHOSEN = [".*", r".3\.md", r".1\.md", r"[23].*", r"0.*"]
"""The keys that each of them chooses."""
SHAPES = list(itertools.product(SEARCH_MODES, range(len(FILTERS)), (None, *EXPANSIONS)))
_TURNS = itertools.count()
LISTS = st.one_of(st.none(), st.sets(st.integers(0, len(PRINCIPALS) - 1), max_size=12))


def text_of(key: str, edit: int = 0) -> str:
    """Two sections of more than one chunk; each sentence names its document."""
    paragraphs = [f"The word {number} is {key}, edit {edit}. " + f"Words of {key}. " * 6 for number in range(2)]
    body = "\n\n".join(paragraphs)
    return f"# First\n\n{body}\n\n# Second\n\n{body}\n"


class EqualVectors:
    """An embedder whose vectors are all equal, so that a search by vector finds every row that it may find."""

    is_free: ClassVar[bool] = True
    endpoint = ""

    def __init__(self, embedding: EmbeddingSettings) -> None:
        self.settings = embedding

    async def embed(
        self, texts: Sequence[str], meter: UsageMeter | None = None, *, purpose: Purpose = "document"
    ) -> EmbeddedBatch:
        del meter, purpose
        return EmbeddedBatch(np.ones((len(texts), self.settings.dimensions), np.float32), {}, Usage())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        pass


class Access(RuleBasedStateMachine):
    """A corpus beside a model of who may find what."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.source: dict[str, set[int] | None] = {}
        self.published: dict[str, set[int] | None] = {}
        self.held: set[str] = set()
        """Documents that a rollback put on hold, and whose source has not changed since they were published."""
        self.pending: set[str] = set()
        """Documents whose source changed after the last publication."""
        self.heads: dict[int, dict[str, set[int] | None]] = {}
        self.checks = self.found = 0
        self.searches = _TURNS

    @initialize(lists=st.lists(LISTS, min_size=8, max_size=8))
    def publish_some(self, lists: list[set[int] | None]) -> None:
        for number, listed in enumerate(lists):
            self.list_principals(set(DOCUMENTS[number::10]), listed, at_once=number == len(lists) - 1)

    @rule(keys=st.sets(st.sampled_from(DOCUMENTS), min_size=1, max_size=12), listed=LISTS, at_once=st.booleans())
    def list_principals(self, keys: set[str], listed: set[int] | None, at_once: bool) -> None:
        for key in keys:
            if key not in self.source:
                self.world.put(key, text_of(key))
            self.source[key] = listed
            self.write(key)
        if at_once:
            self.publish()

    @rule(number=st.integers(0, 500), at_once=st.booleans())
    def revoke(self, number: int, at_once: bool) -> None:
        listed = sorted((key, one) for key, numbers in self.source.items() for one in numbers or ())
        if listed:
            key, revoked = listed[number % len(listed)]
            self.source[key] = (self.source[key] or set()) - {revoked}
            self.write(key)
        if at_once:
            self.publish()

    @rule(key=st.sampled_from(DOCUMENTS))
    def edit(self, key: str) -> None:
        if key in self.source:
            self.world.put(key, text_of(key, next(self.searches)))
            self.touch(key)

    @rule(key=st.sampled_from(DOCUMENTS))
    def delete(self, key: str) -> None:
        if key in self.source:
            del self.source[key]
            self.touch(key)
            for name in (key, f"{key}.metadata.json"):
                (Path(self.world.settings.source) / name).unlink(missing_ok=True)

    @rule()
    def publish(self) -> None:
        self.world.ingest()
        kept = {key: self.published.get(key) for key in self.held if key in self.published}
        self.published = {key: listed for key, listed in self.source.items() if key not in self.held} | kept
        self.pending.clear()

    @rule(number=st.integers(0, 10))
    def roll_back(self, number: int) -> None:
        if not self.heads:
            return
        version = sorted(self.heads)[number % len(self.heads)]
        with self.world.database.transaction() as connection:
            before = documents.documents_at(connection, self.world.corpus.generation, self.world.head)
        self.world.roll_back(version)
        with self.world.database.transaction() as connection:
            after = documents.documents_at(connection, self.world.corpus.generation, self.world.head)
            held = connection.execute(
                "SELECT key FROM ingest_pipeline.hold WHERE generation = %s", (self.world.corpus.generation,)
            ).fetchall()
        assert {row.key for row in after} == self.heads[version].keys() or before == after
        self.published = dict(self.heads[version])
        self.held = {row["key"] for row in held} - self.pending

    @rule()
    def maintain(self) -> None:
        maintain(self.world.corpus, self.world.settings.retention)

    @rule()
    def reembed(self) -> None:
        """Another model; the new generation has what the source has, so nothing may be on hold."""
        if self.held or not self.published:
            return
        self.publish()
        model = NARROWING_MODEL if self.world.settings.embedding_model == TEST_MODEL else TEST_MODEL
        wanted = self.world.settings.replace(embedding_model=model)
        old, new = reembed.begin(self.world.database, wanted)

        async def run() -> None:
            embedding = Address(self.world.database.url, wanted, self.world.embeddings.base_url).embedding_settings
            async with OpenAIEmbedder(embedding) as embedder:
                work = reembed.Reembedding(old, new, embedder)
                await work.fill()
                await work.switch()

        asyncio.run(run())
        self.world = World(self.world.database, wanted, self.world.embeddings)
        self.heads = {}

    @invariant()
    def nobody_finds_what_is_forbidden(self) -> None:
        if not self.published:
            return
        corpus = named_corpus(self.world.database, self.world.settings.corpus)
        head = corpus.head().head_version
        allowed = flags({key: listed for key, listed in self.published.items() if listed})
        rows = corpus.table.rows(head, ["document", "readers"]).to_pylist()
        table = flags({row["document"]: numbers_of(row["readers"]) for row in rows})
        with corpus.database.transaction() as connection:
            found = documents.documents_at(connection, corpus.generation, head)
        catalog = flags({row.key: numbers_of(row.columns.get("readers")) for row in found})
        assert (table == allowed).all()
        assert (catalog == allowed).all()
        self.checks += 2 * allowed.size
        turn = next(self.searches)
        mode, chosen, expand = SHAPES[turn % len(SHAPES)]
        listed = sorted({one for numbers in self.published.values() for one in numbers or ()})
        number = listed[turn % len(listed)] if listed and turn % 4 else turn % len(PRINCIPALS)
        hits = self.search(corpus, turn, [PRINCIPALS[number]])
        permitted = [DOCUMENTS[one] for one in np.flatnonzero(allowed[number])]
        expected = {key for key in permitted if re.fullmatch(CHOSEN[chosen], key)}
        assert {hit.document for hit in hits} == expected, (mode, FILTERS[chosen], expand)
        self.found += len(DOCUMENTS)
        assert self.search(corpus, turn, None) == []
        self.heads[self.world.head] = dict(self.published)

    def search(self, corpus: Corpus, turn: int, principals: list[str] | None) -> list[Hit]:
        """Search in one of all ways. Text around a hit is of its document."""
        mode, chosen, expand = SHAPES[turn % len(SHAPES)]
        embedding = Address(self.world.database.url, self.world.settings, "http://x").embedding_settings
        where = filter_at_head(corpus, FILTERS[chosen])
        hits = asyncio.run(
            search(
                corpus, EqualVectors(embedding), "word", 1000, mode=mode, where=where, principals=principals,
                expand=expand,
            )
        )  # fmt: skip
        for hit in hits:
            texts = [hit.text] if hit.passage is None else [hit.text, hit.passage.text]
            assert (hit.passage is None) == (expand is None)
            assert all(set(re.findall(r"\d\d\.md", text)) <= {hit.document} for text in texts)
        return hits

    def touch(self, key: str) -> None:
        self.held.discard(key)
        self.pending.add(key)

    def write(self, key: str) -> None:
        self.touch(key)
        listed = self.source[key]
        names = None if listed is None else [PRINCIPALS[number] for number in sorted(listed)]
        self.world.put(f"{key}.metadata.json", json.dumps({"readers": names, "edit": next(self.searches)}))

    def teardown(self) -> None:
        figures.count("permissions checked", self.checks + self.found)
        figures.count("permissions checked by a search", self.found)


def numbers_of(names: object) -> set[int]:
    return {NUMBERS[name] for name in cast("list[str] | None", names) or ()}


def flags(listed: dict[str, set[int]]) -> Flags:
    found = np.zeros((len(PRINCIPALS), len(DOCUMENTS)), np.bool_)
    for key, numbers in listed.items():
        found[sorted(numbers), DOCUMENTS.index(key)] = True
    return found


def run(world: World, tmp_path: Path, examples: int, *, by_chance: bool = False) -> None:
    """Check some examples: the same ones each time, or others each time."""
    numbers = itertools.count()

    def new_world() -> World:
        name = f"access_{next(numbers)}"
        source = tmp_path / name
        source.mkdir()
        changed = world.settings.replace(
            corpus=name, source=str(source), columns=COLUMNS, columns_from_key="^(?P<tens>.).*", access="readers",
            chunk_size=120, chunk_overlap=0,
        )  # fmt: skip
        return World(world.database, changed, world.embeddings)

    run_state_machine_as_test(  # pyright: ignore[reportUnknownVariableType]
        lambda: Access(new_world()),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  it may be any factory
        settings=settings(
            max_examples=examples,
            stateful_step_count=15,
            derandomize=not by_chance,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # to find a smaller example takes longer than to read a large one
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


@pytest.mark.promise("access")
@pytest.mark.timeout(1800)
def test_no_principal_ever_finds_a_document_that_is_forbidden_to_it(world: World, tmp_path: Path) -> None:
    run(world, tmp_path, examples=2)


@pytest.mark.promise("access")
@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_no_principal_ever_finds_a_document_that_is_forbidden_to_it_for_long(world: World, tmp_path: Path) -> None:
    """Each step compares all principals with all documents in both stores: 20,000 checks."""
    run(world, tmp_path, examples=int(os.environ.get("ACCESS_EXAMPLES", "60")), by_chance=True)
