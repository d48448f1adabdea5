"""The page on the schema names all states and kinds."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest

from ingest_pipeline.postgres.catalog.corpora import GenerationState
from ingest_pipeline.postgres.ledger.batch_jobs import BatchJobState
from ingest_pipeline.postgres.ledger.sagas import RetiredBy, SagaKind, SagaState

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "schema.md"


@pytest.mark.parametrize(
    ("column", "enum"),
    [
        ("generation.state", GenerationState),
        ("saga.kind", SagaKind),
        ("saga.state", SagaState),
        ("saga.retired_by", RetiredBy),
        ("batch_job.state", BatchJobState),
    ],
)
def test_the_page_names_each_value_of_a_column(column: str, enum: type[StrEnum]) -> None:
    (row,) = re.findall(rf"^\| `{re.escape(column)}` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert re.findall(r"`(\w+)`", row) == [member.value for member in enum]
