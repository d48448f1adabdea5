"""Permissions: a search finds only what its principals may find, from the publication on that says so."""

from __future__ import annotations

import json

import pytest

from ingest_pipeline.errors import ConfigurationError, CorpusMismatchError
from ingest_pipeline.ingestion.context import find_corpus
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.search.search import filter_at_head, find
from ingest_pipeline.types import SEARCH_MODES
from tests.integration.columns.test_columns import declare, sidecar
from tests.support.world import World

READERS = {"readers": "list<string>", "year": "int"}


@pytest.fixture
def guarded(world: World) -> World:
    guarded = declare(world, READERS, access="readers")
    for name, readers in {"a": ["ann"], "b": ["ann", "bob"], "c": [], "d": None, "e": ["o'neil"]}.items():
        guarded.put(f"{name}.txt", f"The word is {name}.")
        if readers is not None:
            sidecar(guarded, f"{name}.txt", readers=readers, year=2000)
    guarded.ingest()
    return guarded


def found(world: World, *principals: str, where: tuple[str, ...] = ()) -> set[str]:
    """The documents that a search finds, in whichever mode."""
    corpus = find_corpus(world.database, world.settings)
    vector = corpus.table.rows(corpus.head().head_version, ["vector"])["vector"][0].values.to_numpy()
    conditions = filter_at_head(corpus, where)
    by_mode = [
        {
            hit.document.removesuffix(".txt")
            for hit in find(
                corpus, "word", None if mode == "text" else vector, 100, mode=mode, where=conditions,
                principals=principals or None,
            )
        }
        for mode in SEARCH_MODES
    ]  # fmt: skip
    assert by_mode[0] == by_mode[1] == by_mode[2]
    return by_mode[0]


@pytest.mark.promise("access")
def test_a_search_finds_what_one_of_its_principals_may_find(guarded: World) -> None:
    assert found(guarded, "ann") == {"a", "b"}
    assert found(guarded, "bob") == {"b"}
    assert found(guarded, "bob", "o'neil", "nobody") == {"b", "e"}
    assert found(guarded, "nobody") == set()
    assert found(guarded, "*") == set()
    assert found(guarded) == set()
    assert found(guarded, "ann", where=("key=b*", "year>=2000")) == {"b"}
    assert found(guarded, "ann", where=("year>2000",)) == set()
    assert found(guarded, "bob", where=("readers has ann",)) == {"b"}


def test_a_forbidden_document_takes_no_place_in_a_ranking(guarded: World) -> None:
    corpus = find_corpus(guarded.database, guarded.settings)
    head = corpus.head().head_version
    nearest_to_a = corpus.table.rows(head, ["vector"], "document = 'a.txt'")["vector"][0].values.to_numpy()
    hits = find(corpus, "", nearest_to_a, 1, mode="vector", principals=["bob"])
    assert [hit.document for hit in hits] == ["b.txt"]
    assert hits[0].columns == {"readers": ["ann", "bob"], "year": 2000}


@pytest.mark.promise("access")
def test_a_revoked_principal_is_out_with_the_publication(guarded: World) -> None:
    maintain(guarded.corpus, guarded.settings.retention)
    sidecar(guarded, "b.txt", readers=["bob"], year=2000)
    assert found(guarded, "ann") == {"a", "b"}
    guarded.ingest()
    assert found(guarded, "ann") == {"a"}
    guarded.put("a.txt.metadata.json", "{}")
    guarded.ingest()
    assert found(guarded, "ann") == set()
    maintain(guarded.corpus, guarded.settings.retention)
    assert (found(guarded, "ann"), found(guarded, "bob")) == (set(), {"b"})
    guarded.check()


@pytest.mark.promise("access")
def test_what_the_catalog_does_not_allow_is_not_found_whatever_the_table_says(guarded: World) -> None:
    with guarded.database.transaction() as connection:
        connection.execute(
            "UPDATE ingest_pipeline.document SET columns = %s WHERE key = 'b.txt'", (json.dumps({"readers": ["bob"]}),)
        )
    assert found(guarded, "ann") == {"a"}
    assert [violation.invariant for violation in guarded.audit().violations] == ["columns match"]


def test_a_corpus_may_demand_principals(guarded: World) -> None:
    strict = declare(guarded, READERS, access="readers", require_principals=True)
    strict.ingest()
    assert found(strict, "bob") == {"b"}
    with pytest.raises(ConfigurationError, match="names none"):
        found(strict)


@pytest.mark.promise("access")
def test_a_forgotten_setting_lifts_no_restriction(guarded: World) -> None:
    forgetful = declare(guarded, READERS, access=None)
    assert found(forgetful) == set()
    with pytest.raises(CorpusMismatchError, match="INGEST_ACCESS=readers"):
        forgetful.ingest()
    lifted = declare(guarded, READERS, access="none")
    lifted.ingest()
    assert found(lifted) == set("abcde")
    with pytest.raises(ConfigurationError, match="does not restrict"):
        found(lifted, "ann")


def test_a_restriction_that_is_not_recorded_yet_is_an_error(world: World) -> None:
    open_to_all = declare(world, {})
    open_to_all.put("a.txt", "The word.")
    open_to_all.ingest()
    with pytest.raises(CorpusMismatchError, match="records the restriction"):
        found(declare(world, READERS, access="readers"), "ann")
    guarded = declare(world, READERS, access="readers")
    guarded.ingest()
    assert found(guarded, "ann") == set()
