"""What is left of a message of the API that quotes the texts that were sent."""

from __future__ import annotations

import pytest

from ingest_pipeline.embedding.redaction import without_quotes

TEXT = "The notice period\nis three months."


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Invalid input: 'The notice period is three months.'", "Invalid input: '…'"),
        ("Invalid input: 'period is three mo' at 12", "Invalid input: '…' at 12"),
        ("Too many tokens: The notice period is thr", "Too many tokens: …"),
        ("Twice: The notice period is three months. and The notice period is", "Twice: … and …"),
        ("The notice is invalid", "The notice is invalid"),
        ("", ""),
    ],
)
def test_quotes_become_an_ellipsis(message: str, shown: str) -> None:
    assert without_quotes(message, [TEXT]) == shown


def test_a_short_text_is_hidden_as_a_word_and_a_very_short_one_is_kept() -> None:
    assert without_quotes("input 'salary' of salaryman is a problem", ["salary", "a", "  "]) == (
        "input '…' of salaryman is a problem"
    )
