"""The power fails at any moment after a COMMIT of any kind of saga: what it confirmed is on the disk of the tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lance
import pytest

from ingest_pipeline.corpus.corpus import CorpusSettings
from ingest_pipeline.corpus.opening import open_corpus
from ingest_pipeline.ingestion.context import find_corpus
from ingest_pipeline.lance.changes import Change, Removal
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.restore.relocate import move_tables
from ingest_pipeline.saga.recover import recover, take_over
from ingest_pipeline.saga.transaction import transaction
from ingest_pipeline.types import Retention
from tests.support.crash.migrating import address_after, migrate
from tests.support.crash.power import FlushedFiles, LoopDisk, PowerCuts
from tests.support.crash.tables import SCHEMA, rows_of
from tests.support.world import World, commit_above, mark, paragraphs
from tools import figures

pytestmark = pytest.mark.promise("disks")


def nothing(_: World) -> None:
    """Begin with no corpus."""


def two_publications(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 2))
    world.put("b.txt", paragraphs("beta", 1))
    world.ingest()
    world.put("a.txt", paragraphs("alpha again", 2))
    world.ingest()


def an_ingestion(world: World) -> None:
    """An empty file is the only publication without a data file, and a removal the only one without a row."""
    two_publications(world)
    world.put("b.txt", "")
    world.ingest()
    world.remove("a.txt")
    world.ingest()


def a_compaction_and_indices(world: World) -> None:
    assert maintain(world.corpus, Retention(0, 1)).compaction.fragments > 0
    assert [index.name for index in world.corpus.table.at(world.head).describe_indices()] == ["text_idx"]


def a_reembedding(world: World) -> None:
    assert migrate(world.database, address_after(world)) == {}


def changes_of_columns(world: World) -> None:
    for columns in ({"year": "int"}, {"year": "float"}, {}):
        changed = World(world.database, world.settings.replace(columns=columns), world.embeddings, confirm_columns=True)
        changed.put("a.txt.metadata.json", json.dumps({"year": 2020 + len(columns)}))
        changed.ingest()


def a_rollback(world: World) -> None:
    world.roll_back(2, "a.txt")


def an_undone_version(world: World) -> None:
    head = world.head
    with world.database.transaction() as connection:
        dead = sagas.begin(
            connection, generation=world.corpus.generation, kind=SagaKind.INGEST, base_version=world.head
        )
    commit_above(world.corpus.table, world.head, Change((), Removal("document = 'a.txt'")), mark(world.corpus, dead))
    recover(world.corpus, silence=0)
    assert world.head > head


def an_adopted_version(world: World) -> None:
    """Lance compacts the table itself, and flushes nothing."""
    lance.dataset(world.settings.table_uri).optimize.compact_files()
    assert recover(world.corpus, foreign="adopt").compensated == []


def a_relocation(world: World) -> None:
    """The user copies the table, and flushes nothing."""
    folder = f"{world.settings.lancedb_uri}_moved"
    shutil.copytree(world.settings.lancedb_uri, folder)
    move_tables(world.database, world.settings.corpus, folder)


def a_table_taken_over(world: World) -> None:
    """The user restores the table from a backup, and flushes nothing."""
    table = Path(world.settings.table_uri)
    shutil.move(table, table.with_name("backup"))
    shutil.copytree(table.with_name("backup"), table)
    with world.database.transaction() as connection:
        connection.execute("UPDATE ingest_pipeline.installation SET id = gen_random_uuid()")
    assert take_over(find_corpus(world.database, world.settings)) == 4


def a_transaction_on_an_own_table(world: World) -> None:
    uri = f"{world.settings.lancedb_uri}/prices.lance"
    for ids in (["a", "b"], ["c"]):
        with transaction(open_corpus(world.database, CorpusSettings("prices", uri, SCHEMA))) as change:
            change.add(rows_of(ids))


@dataclass(frozen=True, slots=True)
class Work:
    """What is done while the power may fail, and what was done before."""

    do: Callable[[World], object]
    before: Callable[[World], object] = two_publications


ON_A_REAL_DISK = (Work(an_ingestion, nothing), Work(a_compaction_and_indices), Work(a_reembedding))
OTHERS = tuple(
    map(
        Work,
        (
            changes_of_columns,
            a_rollback,
            an_undone_version,
            an_adopted_version,
            a_relocation,
            a_table_taken_over,
            a_transaction_on_an_own_table,
        ),
    )
)


def name_of(work: Work) -> str:
    return work.do.__name__


def check(cuts: PowerCuts) -> None:
    figures.count("power cuts", cuts.audits.total())
    assert cuts.violations == []
    assert cuts.audits["commit", "after"] > 0


@pytest.mark.parametrize("work", [*ON_A_REAL_DISK, *OTHERS], ids=name_of)
def test_a_disk_that_keeps_only_what_was_flushed_has_all_that_was_confirmed(
    world: World, work: Work, tmp_path_factory: pytest.TempPathFactory
) -> None:
    work.before(world)
    root = Path(world.settings.lancedb_uri).parent
    with PowerCuts(world.database, FlushedFiles(root, tmp_path_factory.mktemp("cuts"))) as cuts:
        work.do(world)
    check(cuts)


@pytest.mark.parametrize("work", ON_A_REAL_DISK, ids=name_of)
def test_a_disk_whose_power_fails_has_all_that_was_confirmed(world: World, work: Work, disk: LoopDisk) -> None:
    settings = world.settings.replace(lancedb_uri=str(disk.root / "lancedb"))
    world = World(world.database, settings, world.embeddings)
    work.before(world)
    with PowerCuts(world.database, disk) as cuts:
        work.do(world)
    check(cuts)
