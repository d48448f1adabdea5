"""The declaration of columns belongs to the corpus: another process with other settings does not change it."""

from __future__ import annotations

from typing import Any

import pytest

from ingest_pipeline.errors import CorpusMismatchError
from ingest_pipeline.ingestion.context import open_context
from tests.integration.columns.test_columns import declare, values
from tests.support.crash import jobs
from tests.support.crash.crash import Child
from tests.support.world import World

PATTERN = "{department}/{year}/**"
FIRST = {"department": "string", "year": "int"}


@pytest.fixture
def library(world: World) -> World:
    library = declare(world, FIRST, columns_from_key=PATTERN)
    library.put("legal/2019/a.txt", "Text of a.")
    library.ingest()
    return library


@pytest.mark.promise("columns")
@pytest.mark.parametrize(
    ("columns", "pattern", "problem"),
    [
        (
            {"department": "string"},
            "{department}/**",
            "drop the column 'year', and read values from keys by the pattern",
        ),
        ({"department": "string", "year": "string"}, PATTERN, "change the column 'year' from int to string"),
        (FIRST, "{department}/**", "read values from keys by the pattern '{department}/\\*\\*' instead of by '"),
        (FIRST, None, "read values from keys no more instead of by"),
        ({}, None, "drop the column 'department', and drop the column 'year'"),
    ],
)
def test_two_processes_with_other_columns_do_not_alternate(
    library: World, columns: dict[str, str], pattern: str | None, problem: str
) -> None:
    other = declare(library, columns, columns_from_key=pattern)
    head = library.head
    for _ in range(2):
        refused = Child(jobs.ingest, other.address).outcome()
        assert refused.error == "CorpusMismatchError"
        assert "--confirm-columns" in refused.message
        with pytest.raises(CorpusMismatchError, match=problem):
            open_context(other.database, other.settings, create=False)
        assert Child(jobs.ingest, library.address).outcome().result == []
    assert library.head == head
    confirmed = declare(library, columns, columns_from_key=pattern, confirmed=True)
    confirmed.ingest()
    assert Child(jobs.ingest, other.address).outcome().result == []
    if set(columns) == set(FIRST) and pattern is None:
        assert Child(jobs.ingest, library.address).outcome().error is None  # it adds a pattern
    else:
        assert Child(jobs.ingest, library.address).outcome().error in {"CorpusMismatchError", None}
    confirmed.check_nothing_left()


@pytest.mark.promise("columns")
def test_a_declaration_that_only_adds_needs_no_confirmation_and_is_not_taken_back(library: World) -> None:
    wider: dict[str, Any] = {"columns": {"department": "string", "year": "float", "day": "date"}}
    outcome = Child(jobs.ingest, declare(library, **wider, columns_from_key=PATTERN).address).outcome()
    assert outcome.error is None
    assert Child(jobs.ingest, library.address).outcome().error == "CorpusMismatchError"
    assert values(declare(library, **wider, columns_from_key=PATTERN), "legal/2019/a.txt")["year"] == 2019


def test_a_corpus_without_publications_takes_any_columns(world: World) -> None:
    _ = declare(world, FIRST).context
    other = declare(world, {"day": "date"})
    other.put("a.txt", "Text of a.")
    other.ingest()
    assert "day" in other.corpus.table.columns(other.head)
    assert "year" not in other.corpus.table.columns(other.head)


def test_two_first_declarations_at_once_leave_one_in_force(library: World) -> None:
    added = [declare(library, {**FIRST, name: "string"}, columns_from_key=PATTERN) for name in ("one", "two")]
    outcomes = [child.outcome() for child in [Child(jobs.ingest, world.address) for world in added]]
    assert sorted(outcome.error or "" for outcome in outcomes) == ["", "CorpusMismatchError"]
    for world in added:
        world.check_nothing_left() if outcomes[added.index(world)].error is None else None
