"""A row of a table is found by what it says and by what its columns say, in one chunk with both."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ingest_pipeline.search.search import search
from tests.support.world import World

BERTHS = Path(__file__).parents[2] / "unit" / "parsing" / "data" / "berths.xlsx"
HARBOURS = ["Gilevia", "Maronda", "Quinamo"]


def page() -> str:
    rows = "".join(
        f"<tr><td>{name}{number}</td><td>{number} EUR</td><td>Person {number}</td></tr>"
        for number in range(40)
        for name in HARBOURS
    )
    return f"<h1>Fees</h1><table><tr><th>Ship</th><th>Pilotage fee</th><th>Agent</th></tr>{rows}</table>"


@pytest.mark.parametrize(
    ("question", "document", "row"),
    [
        ("Gilevia notice period", "berths.xlsx", "Harbour: Gilevia; Notice period: 22 days; "),
        ("Maronda17 pilotage fee", "fees.html", "Ship: Maronda17; Pilotage fee: 17 EUR; Agent: Person 17"),
        ("Quinamo39 pilotage fee", "fees.html", "Ship: Quinamo39; Pilotage fee: 39 EUR; Agent: Person 39"),
    ],
)
def test_a_row_is_found_with_the_names_of_its_columns(world: World, question: str, document: str, row: str) -> None:
    world.put("berths.xlsx", "").write_bytes(BERTHS.read_bytes())
    world.put("fees.html", page())
    world.ingest()
    hits = asyncio.run(search(world.corpus, None, question, 1, mode="text"))
    assert [hit.document for hit in hits] == [document]
    assert row in hits[0].text
