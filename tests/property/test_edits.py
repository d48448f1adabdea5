"""Whatever is edited, rolled back, compacted and forgotten in whatever order, rows are those of a whole ingest."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ingest_pipeline.chunking import blocks, recut
from ingest_pipeline.maintenance.compaction import compact
from ingest_pipeline.maintenance.retention import retain
from ingest_pipeline.postgres.catalog import chunk_ranges
from ingest_pipeline.types import Retention, TextPiece, chunk_id
from tests.support.world import World

pytestmark = pytest.mark.promise("edits-stay-local")

KEY = "large.md"
STEPS = 20


def paragraph(chance: random.Random) -> str:
    if chance.random() < 0.1:
        return f"# Part {chance.randint(1, 5)}"
    if chance.random() < 0.1:
        return f"The same words again and again, which are a chunk of their own. {'-' * 120}"
    return " ".join(f"{chance.getrandbits(30):x}" for _ in range(chance.randint(5, 40)))


def text_of(chance: random.Random, count: int) -> str:
    return "\n\n".join(paragraph(chance) for _ in range(count))


def edited(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text))
    gone = chance.choice([0, 0, 3, 200, 3000])
    new = chance.choice(["", " word", "\n\n", f"\n\n{text_of(chance, 2)}\n\n", "\n\n# New part\n\n"])
    return text[:at] + new + text[at + gone :]


class Walk:
    """One document, and what each version of it is."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world, self.chance = world, chance
        self.text = text_of(chance, 90)
        self.versions: dict[int, str] = {}
        self.shared = 0
        self.publish()

    def publish(self) -> None:
        self.world.put(KEY, self.text)
        summary = self.world.ingest()
        assert summary.failed == {}
        self.versions[self.world.head] = self.text
        with self.world.database.transaction() as connection:
            row = connection.execute(
                "SELECT count(ranges) AS n FROM ingest_pipeline.document WHERE superseded_version IS NULL AND key = %s",
                (KEY,),
            ).fetchone()
        assert row is not None
        self.shared += row["n"]

    def edit(self) -> None:
        self.text = edited(self.text, self.chance)
        self.publish()

    def roll_back(self) -> None:
        version = self.chance.choice(sorted(self.versions))
        self.world.roll_back(version)
        self.text = self.versions[version]
        self.versions[self.world.head] = self.text

    def compact(self) -> None:
        compact(self.world.corpus)
        self.versions[self.world.head] = self.text

    def forget(self) -> None:
        retain(self.world.corpus, Retention(0, 3))
        left = self.world.corpus.table.versions()
        self.versions = {version: text for version, text in self.versions.items() if version in left}

    def check(self) -> None:
        self.world.check()
        for version in {self.world.head, self.chance.choice(sorted(self.versions))}:
            text = self.versions[version]
            rows = self.world.chunks(KEY, version)
            found = [(row.ordinal, row.id, row.start_offset, row.end_offset, row.heading) for row in rows]
            assert found == self.expected(text)
            assert self.places(version) == [(row[0], str(row[1]), *row[2:]) for row in found]

    def expected(self, text: str) -> list[tuple[Any, ...]]:
        seen: dict[object, int] = {}
        found: list[tuple[Any, ...]] = []
        for chunk in self.world.context.chunker.chunks([TextPiece(text)], markdown=True):
            number = seen[chunk.text_hash] = seen.get(chunk.text_hash, -1) + 1
            found.append((chunk.ordinal, chunk_id(KEY, chunk.text_hash, number), chunk.start, chunk.end, chunk.heading))
        return found

    def places(self, version: int) -> list[tuple[Any, ...]]:
        names = ["ordinal", "id", "start_offset", "end_offset", "heading"]
        rows = self.world.corpus.table.rows(version, names).to_pylist()
        return sorted(tuple(row[name] for name in names) for row in rows)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_a_walk_of_edits(world: World, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    for module in (blocks, recut):
        monkeypatch.setattr(module, "LEAST_BLOCK", 1500)
    monkeypatch.setattr(chunk_ranges, "MAX_RANGES", 12)
    chance = random.Random(seed)
    walk = Walk(World(world.database, world.settings.replace(chunk_size=200), world.embeddings), chance)
    for _ in range(STEPS):
        chance.choice([walk.edit, walk.edit, walk.edit, walk.edit, walk.roll_back, walk.compact, walk.forget])()
        walk.check()
    assert walk.shared > STEPS / 4, "most edits share rows"
    walk.world.check_nothing_left()
