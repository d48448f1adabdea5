"""A corpus follows its tables, its source and the name of its model; what is not the same thing is refused."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from ingest_pipeline.embedding.base import EmbeddedBatch
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.errors import (
    CorpusMismatchError,
    GenerationRetiredError,
    IngestError,
    TableUnavailableError,
)
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.ingestion.context import documents_on_hold
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.lance.versions.version_mark import VersionMark
from ingest_pipeline.restore.relocate import check_model, check_width, move_source, move_tables, rename_model
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.migrating import address_after, migrate
from tests.support.crash.places import RELOCATION, decisive_places
from tests.support.servers.embedding_server import TEST_MODEL
from tests.support.servers.s3 import S3Server
from tests.support.world import World, paragraphs, passages_of


@pytest.fixture
def moved(world: World, tmp_path: Path) -> World:
    """A corpus, and what its settings say once its tables are in another folder."""
    world.put("a.txt", paragraphs("alpha", 3))
    world.put("b.txt", paragraphs("beta", 2))
    world.ingest()
    return World(world.database, world.settings.replace(lancedb_uri=str(tmp_path / "new")), world.embeddings)


def copy(world: World, moved: World) -> Path:
    """Copy the tables; returns the corpus' own."""
    shutil.copytree(world.settings.lancedb_uri, moved.settings.lancedb_uri, dirs_exist_ok=True)
    return Path(moved.settings.lancedb_uri) / "docs.lance"


def check_moved(moved: World, embedded: int) -> None:
    """Nothing was embedded, and the corpus continues at its new location."""
    assert moved.texts().keys() == {"a.txt", "b.txt"}
    moved.check()
    moved.ingest()
    assert moved.embeddings.embedded == embedded
    moved.put("c.txt", paragraphs("gamma", 1))
    moved.ingest()
    assert moved.texts().keys() == {"a.txt", "b.txt", "c.txt"}
    moved.check_nothing_left()


def test_a_corpus_follows_its_table(world: World, moved: World) -> None:
    embedded = world.embeddings.embedded
    copy(world, moved)
    with pytest.raises(CorpusMismatchError, match="relocate --table"):
        _ = moved.context
    assert move_tables(world.database, "docs", moved.settings.lancedb_uri) == [
        f"{moved.settings.lancedb_uri}/docs.lance"
    ]
    check_moved(moved, embedded)
    with pytest.raises(CorpusMismatchError):
        _ = World(world.database, world.settings, world.embeddings).context
    with pytest.raises(CorpusMismatchError, match="older copy"):
        move_tables(world.database, "docs", world.settings.lancedb_uri)


def test_a_corpus_follows_its_table_into_a_bucket_and_into_another(
    world: World, moved: World, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    embedded, folder = world.embeddings.embedded, copy(world, moved)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for bucket in ("lake", "pond"):
        for name, body in files.items():
            s3.put(f"{bucket}/docs.lance/{name}", body)
    move_tables(world.database, "docs", s3.url("lake"))
    check_moved(World(world.database, world.settings.replace(lancedb_uri=s3.url("lake")), world.embeddings), embedded)
    # The other copy has what head was before the corpus moved on.
    with pytest.raises(CorpusMismatchError, match="older copy"):
        move_tables(world.database, "docs", s3.url("pond"))


def nothing(table: Path) -> None:
    shutil.rmtree(table)


def a_lost_file(table: Path) -> None:
    next((table / "data").iterdir()).unlink()


def a_foreign_table(table: Path) -> None:
    LanceTable(str(table)).drop(owner=LanceTable(str(table)).owner or "")
    schema = LanceTable(str(table).replace("/new/", "/lancedb/")).schema.remove_metadata()
    LanceTable(str(table)).create(schema, owner="somebody/docs", mark=VersionMark(uuid4(), None))


@pytest.mark.promise("moved-or-dropped")
@pytest.mark.parametrize(
    ("damage", "error"),
    [(nothing, TableUnavailableError), (a_lost_file, CorpusMismatchError), (a_foreign_table, CorpusMismatchError)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_location_without_the_right_table_is_refused(
    world: World, moved: World, damage: Callable[[Path], None], error: type[IngestError]
) -> None:
    damage(copy(world, moved))
    before = world.corpus.head()
    with pytest.raises(error) as refused:
        move_tables(world.database, "docs", moved.settings.lancedb_uri)
    assert "\n" not in str(refused.value)
    assert world.corpus.head() == before
    world.ingest()
    world.check()


@pytest.mark.promise("moved-or-dropped")
def test_a_copy_that_is_older_than_head_is_refused(world: World, moved: World) -> None:
    copy(world, moved)
    world.put("a.txt", paragraphs("delta", 1))
    world.ingest()
    with pytest.raises(CorpusMismatchError, match="older copy"):
        move_tables(world.database, "docs", moved.settings.lancedb_uri)
    world.check_nothing_left()


def test_both_tables_are_relocated_during_a_reembedding(world: World, moved: World) -> None:
    migrate(world.database, address_after(world), then_switch=False)
    copy(world, moved)
    assert len(move_tables(world.database, "docs", moved.settings.lancedb_uri)) == 2
    embedded = world.embeddings.embedded
    migrate(world.database, address_after(moved))
    assert world.embeddings.embedded == embedded


@pytest.mark.promise("moved-or-dropped")
def test_a_writer_that_works_on_the_old_table_publishes_nothing(world: World, moved: World) -> None:
    world.put("a.txt", paragraphs("delta", 2))
    writer = Child(crash_jobs.ingest, world.address, stop_at=Place(Boundary.PREPARED, "after"))
    assert writer.wait_until_stopped()
    copy(world, moved)
    move_tables(world.database, "docs", moved.settings.lancedb_uri)
    writer.resume()
    assert writer.outcome().error in ("FencedError", "GenerationRetiredError")
    embedded = world.embeddings.embedded
    moved.ingest()
    assert world.embeddings.embedded == embedded, "the vectors of the fenced writer are used"
    moved.check()


@pytest.mark.promise("moved-or-dropped")
@pytest.mark.parametrize("place", decisive_places(RELOCATION), ids=str)
def test_a_relocation_may_die_anywhere(world: World, moved: World, place: Place) -> None:
    embedded = world.embeddings.embedded
    copy(world, moved)
    folder = moved.settings.lancedb_uri
    assert Child(crash_jobs.relocate, world.database.url, "docs", folder, kill_at=place).outcome().killed
    uri = world.corpus.head().table_uri
    there = moved if uri.startswith(folder) else world
    there.check()
    move_tables(world.database, "docs", folder)
    check_moved(moved, embedded)


def test_the_places_of_a_relocation_are_complete(world: World, moved: World) -> None:
    copy(world, moved)
    passed = passages_of(lambda: move_tables(world.database, "docs", moved.settings.lancedb_uri))
    assert {name for name, _ in passed} == set(RELOCATION)
    assert all(count <= RELOCATION[name] for (name, _), count in passed.items()), sorted(passed.items())


def test_a_corpus_follows_its_source_and_fences_writers_that_read_the_old_one(world: World, tmp_path: Path) -> None:
    world.put("a.txt", paragraphs("alpha", 2))
    world.ingest()
    embedded, late = world.embeddings.embedded, World(world.database, world.settings, world.embeddings)
    assert late.corpus
    shutil.copytree(world.settings.source, tmp_path / "mounted")
    there = World(world.database, world.settings.replace(source=str(tmp_path / "mounted")), world.embeddings)
    with pytest.raises(CorpusMismatchError, match="relocate --source"):
        _ = there.context
    move_source(world.corpus, str(tmp_path / "mounted"))
    assert there.ingest().publications == []
    assert world.embeddings.embedded == embedded
    late.put("b.txt", paragraphs("beta", 1))
    with pytest.raises(GenerationRetiredError):
        late.ingest()
    there.check_nothing_left()


@pytest.mark.promise("moved-or-dropped")
def test_another_name_of_the_same_model_embeds_nothing(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 2))
    world.put("empty.txt", "\0\0")
    world.ingest()
    first = world.head
    world.put("a.txt", paragraphs("beta", 2))
    world.ingest()
    world.roll_back(first)
    embedded = world.embeddings.embedded
    name = f"azure/{TEST_MODEL}"
    renamed = rename_model(world.corpus, world.context.recipe, name)
    assert (renamed.documents, renamed.of_other_recipes) == (1, 0)
    there = World(world.database, world.settings.replace(embedding_model=name), world.embeddings)
    assert there.context.recipe.embedding == there.corpus.head().embedding == f"{name}/{world.embeddings.dimensions}"
    summary = there.ingest()
    assert (summary.publications, [plan.key for plan in summary.on_hold]) == ([], [])
    assert world.embeddings.embedded == embedded
    assert [hold.key for hold in documents_on_hold(there.corpus)] == ["a.txt"]
    there.check()


def test_recorded_vectors_that_are_not_published_are_found_under_the_new_name(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 3))
    assert world.corpus
    assert Child(crash_jobs.ingest, world.address, kill_at=Place(Boundary.PREPARED, "before")).outcome().killed
    embedded = world.embeddings.embedded
    assert embedded
    rename_model(world.corpus, world.context.recipe, "deployment-1")
    there = World(world.database, world.settings.replace(embedding_model="deployment-1"), world.embeddings)
    there.recover()
    there.ingest()
    assert world.embeddings.embedded == embedded


def test_settings_of_another_recipe_rename_nothing(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 2))
    world.ingest()
    with pytest.raises(CorpusMismatchError, match="INGEST_CHUNK_SIZE"):
        rename_model(world.corpus, replace(world.context.recipe, chunk_size=777), "another")
    with pytest.raises(CorpusMismatchError, match="INGEST_EMBEDDING_DIMENSIONS"):
        check_width(world.corpus.head().embedding, 8)


@pytest.mark.promise("moved-or-dropped")
def test_another_model_is_recognised_by_its_vectors(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 2))
    world.ingest()

    async def ask(shift: float) -> None:
        async with OpenAIEmbedder(world.embedding_settings) as embedder:
            embed = embedder.embed

            async def shifted(texts: Sequence[str]) -> EmbeddedBatch:
                answer = await embed(texts)
                answer.vectors[:, 0] += shift
                return answer

            embedder.embed = shifted  # pyright: ignore[reportAttributeAccessIssue]  # type: ignore[method-assign]
            await check_model(world.corpus, embedder)

    asyncio.run(ask(0.0))
    with pytest.raises(CorpusMismatchError, match="cosine similarity"):
        asyncio.run(ask(5.0))
