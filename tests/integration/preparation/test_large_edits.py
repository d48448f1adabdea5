"""An edit of a large document writes what it changes, in both stores, and leaves the same rows as a whole ingest."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest_pipeline.lance.indices import IndexKind
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.maintenance.retention import retain
from ingest_pipeline.postgres.catalog import chunk_ranges
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.sql import migrations
from ingest_pipeline.types import ChunkRow, Retention, TextPiece, chunk_id
from tests.support.world import World

pytestmark = pytest.mark.promise("edits-stay-local")

KEY = "large.md"


@pytest.fixture
def world(world: World) -> World:
    return World(world.database, world.settings.replace(chunk_size=2000), world.embeddings)


def paragraph(chance: random.Random) -> str:
    return " ".join(f"{chance.getrandbits(40):x}" for _ in range(chance.randint(40, 90)))


def text_of(count: int, seed: int = 1) -> str:
    """A document of about 600 characters a paragraph, with a heading before every twelfth."""
    chance = random.Random(seed)
    return "\n\n".join(
        f"# Part {number}\n\n{paragraph(chance)}" if number % 12 == 0 else paragraph(chance) for number in range(count)
    )


def insert(text: str, share: float, new: str) -> str:
    """The text with something new before the paragraph that begins at about this share of it."""
    at = text.index("\n\n", int(len(text) * share)) + 2
    return text[:at] + new + text[at:]


def expected(world: World, text: str) -> list[tuple[Any, ...]]:
    """The chunks of a document that is ingested as a whole."""
    seen: dict[object, int] = {}
    found: list[tuple[Any, ...]] = []
    for chunk in world.context.chunker.chunks([TextPiece(text)], markdown=True):
        number = seen[chunk.text_hash] = seen.get(chunk.text_hash, -1) + 1
        found.append(
            (chunk.ordinal, chunk_id(KEY, chunk.text_hash, number), chunk.start, chunk.end, chunk.text_hash,
             chunk.heading)
        )  # fmt: skip
    return found


def recorded(rows: list[ChunkRow]) -> list[tuple[Any, ...]]:
    return [(row.ordinal, row.id, row.start_offset, row.end_offset, row.text_hash, row.heading) for row in rows]


def table_rows(world: World, version: int | None = None) -> list[dict[str, Any]]:
    names = ["ordinal", "id", "start_offset", "end_offset", "text_hash", "heading", "text", "saga"]
    rows = world.corpus.table.rows(version or world.head, names, f"document = '{KEY}'").to_pylist()
    return sorted(rows, key=lambda row: row["ordinal"])


def owned_rows(world: World) -> int:
    """Chunk rows that the last publication of the document wrote in the catalog."""
    with world.database.transaction() as connection:
        row = connection.execute(
            "SELECT count(c.id) AS n FROM ingest_pipeline.latest_document d "
            "LEFT JOIN ingest_pipeline.chunk c ON c.saga = d.saga AND c.document = d.key WHERE d.generation = %s "
            "AND d.key = %s",
            (world.corpus.generation, KEY),
        ).fetchone()
    assert row is not None
    return int(row["n"])


def documents_kept(world: World) -> int:
    with world.database.transaction() as connection:
        row = connection.execute(
            "SELECT count(*) AS n FROM ingest_pipeline.document WHERE generation = %s AND key = %s",
            (world.corpus.generation, KEY),
        ).fetchone()
    assert row is not None
    return int(row["n"])


def publish(world: World, text: str) -> int:
    """Ingest the text; returns the number of texts that were embedded."""
    world.put(KEY, text)
    before = world.embeddings.embedded
    summary = world.ingest()
    assert len(summary.publications) == 1
    assert summary.failed == {}
    assert recorded(world.chunks(KEY)) == expected(world, text)
    return world.embeddings.embedded - before


def bytes_of(folder: str) -> dict[Path, int]:
    return {path: path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()}


def log_position(world: World) -> int:
    with world.database.transaction() as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0' AS n").fetchone()
    assert row is not None
    return int(row["n"])


def test_an_edit_of_two_megabytes_writes_little(world: World) -> None:
    world = World(world.database, world.settings.replace(chunk_size=8000), world.embeddings)
    text = text_of(2900)
    assert len(text) > 2_000_000
    publish(world, text)
    text = insert(text, 0.1, "Pages that are written for the first time after a checkpoint are logged whole.\n\n")
    assert publish(world, text) <= 2
    files, position = bytes_of(world.corpus.table.uri), log_position(world)
    text = insert(text, 0.1, "One more sentence, near the beginning.\n\n")
    assert publish(world, text) <= 2
    after = bytes_of(world.corpus.table.uri)
    table, log = sum(size for path, size in after.items() if path not in files), log_position(world) - position
    assert table < 150_000
    assert log < 350_000
    world.check()


EDITS: dict[str, Callable[[str], str]] = {
    "in the middle": lambda text: insert(text, 0.5, "One more sentence.\n\n"),
    "at the beginning": lambda text: "Before all.\n\n" + text,
    "at the end": lambda text: f"{text}\n\nAfter all.",
    "a heading": lambda text: insert(text, 0.3, "# A new part\n\n"),
    "a part is gone": lambda text: text[: len(text) // 4] + text[len(text) // 2 :],
    "two places": lambda text: insert(insert(text, 0.8, "Second.\n\n"), 0.2, "First.\n\n"),
    "a paragraph again": lambda text: insert(text, 0.7, text[text.index("\n\n", 90_000) + 2 :][:1500] + "\n\n"),
    "white space": lambda text: insert(text, 0.6, "\n\n\n"),
    "all but the end": lambda text: text_of(80, 7) + text[len(text) // 2 :],
}


def test_rows_after_edits_are_those_of_a_whole_ingest(world: World) -> None:
    text = text_of(330)
    publish(world, text)
    seen = {world.head: (table_rows(world), recorded(world.chunks(KEY)))}
    for edit in EDITS.values():
        text = edit(text)
        publish(world, text)
        assert owned_rows(world) < len(world.chunks(KEY)) / 2, "the edit shares the other rows"
        assert len({row["saga"] for row in table_rows(world)}) == 1
        world.check()
        seen[world.head] = (table_rows(world), recorded(world.chunks(KEY)))
    for version, (rows, chunks) in seen.items():
        assert table_rows(world, version) == rows
        assert recorded(world.chunks(KEY, version)) == chunks
    assert max(world.embeddings.texts.values()) == 1


def test_a_rollback_of_edits_and_edits_after_it(world: World) -> None:
    first = text_of(250)
    publish(world, first)
    version = world.head
    second = insert(insert(first, 0.3, "# New\n\nSome words.\n\n"), 0.7, "Other words.\n\n")
    publish(world, second)
    edited = world.head
    world.roll_back(version)
    assert recorded(world.chunks(KEY)) == expected(world, first)
    world.check()
    world.roll_back(edited)
    assert recorded(world.chunks(KEY)) == expected(world, second)
    assert publish(world, insert(second, 0.5, "And more words.\n\n")) <= 2
    assert owned_rows(world) <= 3
    world.check()
    world.check_nothing_left()


def test_rows_that_a_later_edit_shares_stay_as_long_as_it_does(world: World) -> None:
    text = text_of(250)
    publish(world, text)
    for number in range(3):
        text = insert(text, 0.2 + number / 4, f"Sentence {number}.\n\n")
        publish(world, text)
    assert documents_kept(world) == 4
    retain(world.corpus, Retention(0, 1))
    assert recorded(world.chunks(KEY)) == expected(world, text)
    world.check()
    assert documents_kept(world) == 4, "each row has chunk rows that head shares"
    publish(world, "nothing of it")
    retain(world.corpus, Retention(0, 1))
    assert documents_kept(world) == 1
    world.check_nothing_left()


def test_texts_of_shared_rows_are_found(world: World) -> None:
    text = text_of(250)
    publish(world, text)
    publish(world, insert(text, 0.5, "One more sentence.\n\n"))
    retain(world.corpus, Retention(0, 1))
    world.put("copy.md", text_of(250))
    before = world.embeddings.embedded
    world.ingest()
    assert world.embeddings.embedded - before <= 2
    world.check()


def test_many_edits_end_in_rows_of_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_ranges, "MAX_RANGES", 6)
    text = text_of(250)
    publish(world, text)
    owned: list[int] = []
    for number in range(6):
        text = insert(text, 0.1 + number / 8, f"Sentence {number}.\n\n")
        publish(world, text)
        owned.append(owned_rows(world))
        world.check()
    assert len(world.chunks(KEY)) in owned, "a row has rows of its own again"
    assert min(owned) <= 3


def test_rows_that_are_not_where_the_catalog_says_are_replaced(world: World) -> None:
    text = text_of(250)
    publish(world, text)
    with world.database.transaction() as connection:
        connection.execute("UPDATE ingest_pipeline.document SET fragments = '{77}' WHERE key = %s", (KEY,))
    text = insert(text, 0.5, "One more sentence.\n\n")
    publish(world, text)
    assert owned_rows(world) == len(world.chunks(KEY)), "the document was ingested as a whole"
    world.check()


@pytest.mark.promise("columns")
def test_columns_of_an_edited_document_are_those_of_its_new_text(world: World) -> None:
    library = World(world.database, world.settings.replace(columns={"author": "string"}), world.embeddings)
    text = text_of(250)
    library.put(KEY, f"---\nauthor: ann\n---\n\n{text}")
    library.ingest()
    old = library.head
    library.put(KEY, f"---\nauthor: bob\n---\n\n{insert(text, 0.5, 'One more sentence.')}")
    before = library.embeddings.embedded
    library.ingest()
    assert library.embeddings.embedded - before <= 3
    assert owned_rows(library) < len(library.chunks(KEY)) / 2
    authors = {version: library.corpus.table.rows(version, ["author"]) for version in (old, library.head)}
    assert {version: set(rows["author"].to_pylist()) for version, rows in authors.items()} == {
        old: {"ann"}, library.head: {"bob"}
    }  # fmt: skip
    library.check()


def test_a_document_that_was_published_before_edits_were_recorded(world: World) -> None:
    text = text_of(250)
    publish(world, text)
    [view] = re.findall(r"CREATE VIEW ingest_pipeline.current_chunk AS.*?;", migrations()[0].sql, re.DOTALL)
    with world.database.transaction() as connection:  # as the first migration left it
        connection.execute("DROP VIEW ingest_pipeline.current_chunk")
        connection.execute("DROP FUNCTION ingest_pipeline.chunks_at")
        connection.execute("DROP VIEW ingest_pipeline.document_chunk")
        connection.execute("ALTER TABLE ingest_pipeline.document DROP COLUMN ranges, DROP COLUMN blocks")
        connection.execute("DROP TYPE ingest_pipeline.chunk_range")
        connection.execute(str(view).encode())
        connection.execute("DELETE FROM ingest_pipeline.migration WHERE number >= 2")
    with Database(world.database.url) as database:
        upgraded = World(database, world.settings, world.embeddings)
        upgraded.check()
        text = insert(text, 0.5, "One more sentence.\n\n")
        assert publish(upgraded, text) <= 2
        assert owned_rows(upgraded) == len(upgraded.chunks(KEY)), "its blocks were not recorded"
        assert publish(upgraded, insert(text, 0.5, "And another.\n\n")) <= 2
        assert owned_rows(upgraded) <= 3
        upgraded.check()


def found_words(world: World, word: str) -> list[int]:
    """The ordinals of the chunks with a word, as a reader of the table finds them."""
    dataset = world.corpus.table.at(world.head)
    return sorted(dataset.scanner(columns=["ordinal"], full_text_query=word).to_table()["ordinal"].to_pylist())


def test_indices_cover_the_rows_that_an_edit_moves(world: World) -> None:
    words = IndexKind("text", "INVERTED", least=1, tail=1)
    text = text_of(250)
    text = insert(text, 0.7, "Quokkas live far from the beginning.\n\n")
    publish(world, text)
    maintain(world.corpus, Retention(0, 1_000_000), [words])
    [segment] = world.corpus.table.segments(world.head, words)
    [before] = found_words(world, "quokkas")
    publish(world, insert(text, 0.1, "Wombats come before them.\n\n" + "More of it. " * 200 + "\n\n"))
    assert world.corpus.table.segments(world.head, words) == [segment]
    [after] = found_words(world, "quokkas")
    assert after > before
    assert len(found_words(world, "wombats")) == 1
