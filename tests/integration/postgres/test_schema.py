"""The enums and row classes of the package agree with the types, checks and views of the schema."""

from __future__ import annotations

import dataclasses
import re
from enum import StrEnum

import pytest

from ingest_pipeline.postgres.catalog import corpora
from ingest_pipeline.postgres.catalog.corpora import GenerationRow, GenerationState
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.batch_jobs import BatchJobState
from ingest_pipeline.postgres.ledger.sagas import SagaKind, SagaRow, SagaState
from ingest_pipeline.saga.lifecycle import Saga
from tests.support.world import World

_LABELS = """
SELECT array_agg(l.enumlabel::text) AS found
FROM pg_enum l JOIN pg_type t ON t.oid = l.enumtypid JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE n.nspname = 'ingest_pipeline' AND t.typname = %(type)s
"""
_CHECK = """
SELECT pg_get_constraintdef(c.oid) AS found
FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum]
WHERE c.contype = 'c' AND c.conrelid = %(table)s::regclass AND a.attname = %(column)s
"""


def values_of(enum: type[StrEnum]) -> set[str]:
    return {member.value for member in enum}


@pytest.mark.parametrize(("name", "enum"), [("saga_state", SagaState), ("generation_state", GenerationState)])
def test_an_enum_has_the_labels_of_its_type(world: World, name: str, enum: type[StrEnum]) -> None:
    with world.database.transaction() as connection:
        row = connection.execute(_LABELS, {"type": name}).fetchone()
    assert row is not None
    assert set(row["found"]) == values_of(enum)


@pytest.mark.parametrize(
    ("table", "column", "enum"),
    [("ingest_pipeline.saga", "kind", SagaKind), ("ingest_pipeline.batch_job", "state", BatchJobState)],
)
def test_an_enum_has_the_values_that_the_check_of_its_column_allows(
    world: World, table: str, column: str, enum: type[StrEnum]
) -> None:
    with world.database.transaction() as connection:
        checks = connection.execute(_CHECK, {"table": table, "column": column}).fetchall()
    (check,) = [row["found"] for row in checks]
    assert set(re.findall(r"'(\w+)'", check)) == values_of(enum)


@pytest.mark.parametrize(("view", "row"), [("saga_row", SagaRow), ("generation_row", GenerationRow)])
def test_a_row_class_has_the_columns_of_its_view(world: World, view: str, row: type[SagaRow | GenerationRow]) -> None:
    with world.database.transaction() as connection:
        columns = connection.execute(
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_schema = 'ingest_pipeline' AND table_name = %s",
            (view,),
        )
        found = {column["column_name"] for column in columns}
    assert found == {field.name for field in dataclasses.fields(row)}


def test_states_and_kinds_are_read_as_members_of_their_enums(world: World) -> None:
    with Saga.begin(world.corpus, SagaKind.BATCH, base_version=world.head) as saga:
        saga.complete()
    with world.database.transaction() as connection:
        (generation,) = corpora.read_generations(connection, world.corpus.name)
        outcome = sagas.outcomes(connection, [saga.id])[saga.id]
    assert isinstance(generation.state, GenerationState)
    assert isinstance(world.corpus.head().state, GenerationState)
    assert isinstance(outcome.state, SagaState)
    assert isinstance(saga.row().state, SagaState)
    assert isinstance(saga.row().kind, SagaKind)
