"""One file of the table is missing or broken: it is named, the rest goes on, and a repair brings everything back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.errors import (
    AuditError,
    ConflictError,
    TableDamagedError,
    TableUnavailableError,
    VersionGoneError,
)
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.ingestion.context import find_corpus
from ingest_pipeline.ingestion.summary import Summary
from ingest_pipeline.maintenance.audit import audit
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.maintenance.repair import estimate_repair, repair
from ingest_pipeline.postgres.catalog import documents, history
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger.sagas import RetiredBy
from ingest_pipeline.types import Retention
from tests.support.servers.embedding_server import TEST_MODEL, EmbeddingServer
from tests.support.servers.s3 import S3Server
from tests.support.world import World, paragraphs

LAST_VERSION = 2**64 - 1


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flipped(path: Path) -> None:
    """Bytes of the footer, and of the texts, which are no UTF-8 then."""
    content = bytearray(path.read_bytes())
    for place in [*range(len(content) // 3, len(content) // 3 + 40), *range(len(content) - 30, len(content))]:
        content[place] ^= 0xFF
    path.write_bytes(content)


HURT: dict[str, Callable[[Path], object]] = {"deleted": Path.unlink, "truncated": truncated, "flipped": flipped}


@pytest.fixture
def world(world: World) -> World:
    """Four documents in a data file each; d.txt has a text of b.txt, too."""
    for number, key in enumerate(["a.txt", "b.txt", "c.txt"]):
        world.put(key, paragraphs(f"topic{number}", 3))
        world.ingest()
    world.put("d.txt", paragraphs("topic1", 1))
    world.ingest()
    return world


def fragments_of(world: World, key: str) -> list[int]:
    with world.database.transaction() as connection:
        [document] = documents.latest_documents(connection, world.corpus.generation, keys=[key])
    return document.fragments


def data_file_of(world: World, key: str) -> Path:
    [number] = fragments_of(world, key)
    fragment = world.corpus.table.at(world.head).get_fragment(number)
    assert fragment is not None
    return Path(world.settings.table_uri) / "data" / fragment.metadata.files[0].path


def afresh(world: World) -> World:
    """As another process sees it, which has read nothing of the table yet."""
    return World(world.database, world.settings, world.embeddings)


@pytest.fixture
def hurt(world: World) -> World:
    """The data file of b.txt is gone."""
    data_file_of(world, "b.txt").unlink()
    return afresh(world)


def repaired(world: World) -> Summary:
    async def run() -> Summary:
        async with OpenAIEmbedder(world.embedding_settings) as embedder:
            return await repair(world.context, embedder, world.audit())

    return asyncio.run(run())


@pytest.mark.promise("damage")
@pytest.mark.parametrize("how", HURT)
def test_damage_is_named_and_a_repair_publishes_only_its_documents_again(world: World, how: str) -> None:
    HURT[how](data_file_of(world, "b.txt"))
    world = afresh(world)
    sagas = {key: world.chunks(key)[0].saga for key in ("a.txt", "c.txt", "d.txt")}
    [number], embedded = fragments_of(world, "b.txt"), world.embeddings.embedded
    report = world.audit()
    assert {(violation.invariant, violation.document) for violation in report.violations} == {
        ("files can be read", "b.txt"),
        ("files can be read", None),
    }
    assert all(f"fragment {number} cannot be read: data/" in violation.what for violation in report.violations)
    assert ([one.number for one in report.damaged], report.documents) == ([number], 4)
    assert estimate_repair(world.context, report).to_embed == 2
    repaired(world)
    assert world.audit().violations == []
    assert world.embeddings.embedded == embedded + 2, "one text of three is in d.txt, too"
    assert {key: world.chunks(key)[0].saga for key in sagas} == sagas
    assert len(world.chunks("b.txt")) == 3
    world.check_nothing_left()


def test_a_repair_does_not_embed_recorded_texts(hurt: World) -> None:
    """A run that embedded the same texts ended before it published them."""

    def die(boundary: Boundary, _: str) -> None:
        if boundary is Boundary.FRAGMENT_WRITTEN:
            raise TableUnavailableError("The disk was taken away")

    hurt.put("e.txt", paragraphs("topic1", 3))
    failpoints.install(die)
    try:
        with pytest.raises(TableUnavailableError):
            hurt.ingest()
    finally:
        failpoints.install(None)
    embedded = hurt.embeddings.embedded
    assert estimate_repair(hurt.context, hurt.audit()).to_embed == 0
    repaired(hurt)
    assert (hurt.embeddings.embedded, hurt.audit().violations) == (embedded, [])


def test_a_repair_removes_a_damaged_document_that_the_source_lacks(hurt: World) -> None:
    hurt.remove("b.txt")
    repaired(hurt)
    assert hurt.audit().violations == []
    assert sorted(hurt.texts()) == ["a.txt", "c.txt", "d.txt"]


def test_a_document_that_cannot_be_ingested_again_is_removed_from_both_stores(hurt: World) -> None:
    (Path(hurt.settings.source) / "b.txt").write_bytes(b"\x00\x01\x02")
    assert set(repaired(hurt).failed) == {"b.txt"}
    assert hurt.audit().violations == []
    hurt.put("b.txt", paragraphs("topic1", 2))
    hurt.ingest()
    assert len(hurt.chunks("b.txt")) == 2
    hurt.check_nothing_left()


@pytest.mark.promise("damage")
def test_other_documents_are_ingested_and_rolled_back_meanwhile(hurt: World) -> None:
    before = hurt.head
    hurt.put("a.txt", paragraphs("edited", 2))
    hurt.put("new.txt", paragraphs("topic1", 2))
    summary = hurt.ingest()
    assert not summary.failed
    assert {key: len(hurt.chunks(key)) for key in ("a.txt", "new.txt")} == {"a.txt": 2, "new.txt": 2}
    hurt.roll_back(before, "a.txt")
    assert len(hurt.chunks("a.txt")) == 3
    assert {violation.document for violation in hurt.audit().violations} == {"b.txt", None}
    repaired(hurt)
    hurt.check_nothing_left()


def test_an_edit_of_a_damaged_document_fails_alone(hurt: World) -> None:
    hurt.put("a.txt", paragraphs("edited", 2))
    hurt.put("b.txt", paragraphs("edited too", 2))
    summary = hurt.ingest()
    assert set(summary.failed) == {"b.txt"}
    _, error = summary.failed["b.txt"]
    assert isinstance(error, TableDamagedError)
    assert "audit --repair" in str(error)
    assert len(hurt.chunks("a.txt")) == 2
    repaired(hurt)
    hurt.ingest()
    assert len(hurt.chunks("b.txt")) == 2
    hurt.check_nothing_left()


def test_a_rollback_of_a_damaged_document_says_which_it_is(hurt: World) -> None:
    there = hurt.head
    repaired(hurt)
    hurt.put("b.txt", paragraphs("edited", 2))
    hurt.ingest()
    with pytest.raises(AuditError, match=r"'b\.txt' lacks some; fragments \[1\] cannot be read"):
        hurt.roll_back(there, "b.txt")


def test_moved_rows_are_rolled_back_although_another_file_is_damaged(world: World) -> None:
    """The catalog notes where rows are at head; at an older version they are found by a scan."""
    for number in range(8):
        world.put(f"{number}.txt", paragraphs(f"other{number}", 1))
        world.ingest()
    there, damaged = world.head, data_file_of(world, "b.txt")
    maintain(world.corpus, Retention())
    world.put("0.txt", paragraphs("edited", 1))
    world.ingest()
    damaged.unlink()
    world = afresh(world)
    world.roll_back(there, "0.txt")
    assert "other0" in world.text_at("0.txt")


def test_a_document_with_rows_in_several_fragments_is_removed_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest_pipeline.preparation.writing.write_stage._ROWS_PER_FILE", 4)
    monkeypatch.setattr("ingest_pipeline.preparation.reading.read_stage._BATCH_CHUNKS", 4)
    world.put("large.txt", paragraphs("large", 12))
    world.ingest()
    numbers = fragments_of(world, "large.txt")
    assert len(numbers) > 1
    fragment = world.corpus.table.at(world.head).get_fragment(numbers[0])
    assert fragment is not None
    (Path(world.settings.table_uri) / "data" / fragment.metadata.files[0].path).unlink()
    world = afresh(world)
    repaired(world)
    assert (world.audit().violations, len(world.chunks("large.txt"))) == ([], 12)


def test_a_repair_of_fragments_that_changed_since_publishes_nothing(hurt: World) -> None:
    report = hurt.audit()
    [fragment] = report.damaged
    report = replace(report, damaged=[replace(fragment, signature="of an earlier version")])

    async def run() -> Summary:
        async with OpenAIEmbedder(hurt.embedding_settings) as embedder:
            return await repair(hurt.context, embedder, report)

    before = hurt.head
    with pytest.raises(ConflictError, match="changed since the audit"):
        asyncio.run(run())
    assert hurt.head == before


@pytest.mark.parametrize("how", ["deleted", "flipped"])
def test_a_damaged_deletion_file_is_identified(world: World, how: str) -> None:
    world.put("b.txt", paragraphs("together", 2))
    world.put("c.txt", paragraphs("with it", 2))
    world.ingest()
    world.put("c.txt", paragraphs("no more", 2))
    world.ingest()
    [deletions] = (Path(world.settings.table_uri) / "_deletions").iterdir()
    HURT[how](deletions)
    world = afresh(world)
    assert {violation.ids[0] for violation in world.audit().violations} == {f"_deletions/{deletions.name}"}
    embedded = world.embeddings.embedded
    repaired(world)
    assert (world.audit().violations, len(world.chunks("b.txt"))) == ([], 2)
    assert world.embeddings.embedded == embedded + 2


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_a_damaged_manifest_of_head_is_identified_with_a_remedy(world: World, how: str) -> None:
    manifest = Path(world.settings.table_uri) / "_versions" / f"{LAST_VERSION - world.head:020d}.manifest"
    head = world.head
    HURT[how](manifest)
    [violation] = world.audit().violations
    assert violation.invariant == "head opens"
    assert f"The manifest of version {head} " in violation.what
    assert "recover --rebuild-catalog" in violation.what
    world.put("a.txt", paragraphs("edited", 1))
    with pytest.raises(TableDamagedError, match="--rebuild-catalog"):
        afresh(world).ingest()


def test_a_missing_manifest_of_head_is_identified(world: World) -> None:
    (Path(world.settings.table_uri) / "_versions" / f"{LAST_VERSION - world.head:020d}.manifest").unlink()
    violations = audit(find_corpus(world.database, world.settings)).violations
    assert {violation.invariant for violation in violations} == {"head opens", "latest is head"}


@pytest.mark.promise("damage")
def test_a_missing_object_is_damage_and_a_store_that_is_down_is_not(
    s3: S3Server, database: Database, embeddings: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    settings = CorpusConfig(
        corpus="damaged",
        source=s3.url("damaged/source"),
        lancedb_uri=s3.url("damaged/lancedb"),
        embedding_model=TEST_MODEL,
        embedding_dimensions=embeddings.dimensions,
    )
    for key in ("a.txt", "b.txt"):
        s3.put(f"damaged/source/{key}", paragraphs(key, 2).encode())
        World(database, settings, embeddings).ingest()
    world = World(database, settings, embeddings)
    with monkeypatch.context() as hurried:
        limits = {"client_max_retries": "1", "client_retry_timeout": "3", "read_timeout": "2s"}
        hurried.setattr("ingest_pipeline.lance.storage._LIMITS", limits)
        with s3.failing(r"^GET \S*/data/", "503"), pytest.raises(TableUnavailableError):
            afresh(world).audit()
    [name] = [
        file.path
        for fragment in world.corpus.table.at(world.head).get_fragments()
        if fragment.fragment_id in fragments_of(world, "b.txt")
        for file in fragment.metadata.files
    ]
    s3.delete(f"damaged/lancedb/damaged.lance/data/{name}")
    world = afresh(world)
    assert {violation.document for violation in world.audit().violations} == {"b.txt", None}
    repaired(world)
    assert world.audit().violations == []


@pytest.mark.parametrize("is_retired", [True, False])
def test_a_version_whose_removal_was_interrupted_is_gone_and_not_damaged(world: World, is_retired: bool) -> None:
    """Lance deletes the files of a version first, and then its manifest. A repair would be in vain."""
    old, reader, file = world.head, afresh(world), data_file_of(world, "c.txt")
    world.put("c.txt", "now short")
    world.ingest()
    if is_retired:
        with world.database.transaction() as connection:
            history.retire_versions(connection, world.corpus.generation, world.head, [old], by=RetiredBy.RETENTION)
    file.unlink()
    with pytest.raises(VersionGoneError if is_retired else TableDamagedError):
        reader.texts(old)
    reader.texts(world.head)
