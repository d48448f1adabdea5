"""An enricher of the user: its columns, its usage, and that nonsense fails its document alone."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from ingest_pipeline.enrichment.base import Enrichment
from ingest_pipeline.enrichment.user_enricher_role import request
from ingest_pipeline.enrichment.user_enrichers import UserEnricher
from ingest_pipeline.errors import ConfigurationError, EnrichmentError
from ingest_pipeline.extensions.loader import read_extensions
from ingest_pipeline.types import Usage

MODULE = "tests.support.user_code"


def enricher(name: str, **arguments: object) -> UserEnricher:
    (extension,) = read_extensions("enricher", {"class": f"{MODULE}.{name}", "arguments": arguments})
    return UserEnricher.load(extension)


def enriched(found: UserEnricher, text: str, **columns: object) -> Enrichment:
    return found.read("a.txt", found.enrich("a.txt", request(text, columns)))


def test_an_enricher_gets_text_and_columns_and_gives_columns() -> None:
    found = enriched(enricher("Title"), "First line\nSecond", sender="x", date="2026-01-02")
    assert found == Enrichment({"title": "First line", "seen": ["date", "sender"]})


def test_a_coroutine_may_report_usage(tmp_path: Path) -> None:
    found = enriched(enricher("Costly", calls=str(tmp_path / "calls"), tokens=7), "four")
    assert found == Enrichment({"length": 4}, Usage(tokens=7, requests=1))
    assert (tmp_path / "calls").read_text() == "4 ''\n"


def test_a_cost_arrives_to_the_last_digit(tmp_path: Path) -> None:
    found = enriched(enricher("Costly", calls=str(tmp_path / "calls"), cost="0.000000000123"), "four")
    assert (found.cost, found.currency) == (Decimal("0.000000000123"), "EUR")


def test_an_enricher_has_the_environment_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_CODE_TEST", "a key")
    found = enricher("ObedientEnricher", seconds=599)
    assert enriched(found, "text").columns == {"environment": "a key"}


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("raise", "which raised ValueError: no such thing"),
        ("exit", "which raised SystemExit: 3"),
        ("die", r"which ended its process \(exit status 4\)"),
        ("hang", "which took more than 2 seconds"),
        ("columns", "returned the column 'value' with <object"),
        ("usage", "returned usage with -1 tokens"),
        ("cost", "returned the cost 0.5, which is not a Decimal from 0 to 1000000"),
        ("currency", "returned a cost in the currency 'euros'"),
        ("infinite", r"returned the cost Decimal\('Infinity'\)"),
        ("many", "returned columns of more than 1048576 bytes"),
        ("none", "returned columns that are a NoneType, not a mapping"),
    ],
)
def test_nonsense_fails_its_document_alone(what: str, problem: str) -> None:
    found = enricher("ObedientEnricher", seconds=2 if "seconds" in problem else 600)
    with pytest.raises(EnrichmentError, match=problem) as failure:
        enriched(found, what)
    assert failure.value.reason == "not enriched"
    assert "environment" in enriched(found, "fine").columns


def test_an_enricher_without_a_method_is_refused_with_both_names() -> None:
    with pytest.raises(ConfigurationError, match="Lines has neither 'enrich' nor 'enrich_chunks'"):
        enricher("Lines")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"[{}, [0, 0]]",
        b'[{"a": {}}, [0, 0], null]',
        b"[{}, [-1, 0], null]",
        b"[{}, [0.5, 0], null]",
        b"[3, [0, 0], null]",
        b"[{}, 3, null]",
        b"[{}, [0, 0], 1]",
        b'[{}, [0, 0], ["-1", "EUR"]]',
        b'[{}, [0, 0], ["1", "eur"]]',
        b'[{}, [0, 0], ["much", "EUR"]]',
        b'[{}, [0, 0], ["NaN", "EUR"]]',
        b'[null, [-1, 0], null, "raised"]',
        b"[null, [0, 0], null, 1]",
    ],
)
def test_what_the_child_sends_is_checked_in_the_parent_too(answer: bytes) -> None:
    with pytest.raises(EnrichmentError, match="return something invalid"):
        enricher("Title").read("a.txt", answer)
