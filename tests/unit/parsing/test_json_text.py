"""Escapes of characters in JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_pipeline.parsing.json_text import decode_escapes


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"Gr\u00f6\u00DFe", "Größe"),
        (r"\ud83d\ude00!", "\U0001f600!"),
        (r"\\u00f6", r"\\u00f6"),
        (r"\\\u00f6", r"\\ö"),
        (r"\u0022 \u005c \u0000 \u000a \n \" \\", r"\u0022 \u005c \u0000 \u000a \n \" \\"),
        (r"\ud83d alone", r"\ud83d alone"),
        (r"\u12", r"\u12"),
        ("\\", "\\"),
    ],
)
def test_what_prints_is_decoded_wherever_the_pieces_end(written: str, read: str) -> None:
    for cut in range(len(written) + 1):
        assert "".join(decode_escapes([written[:cut], written[cut:]])) == read
    assert "".join(decode_escapes(written)) == read


@given(st.text(), st.integers(1, 20))
def test_the_text_stays_the_same_json(text: str, size: int) -> None:
    written = json.dumps({"key": text})
    decoded = "".join(decode_escapes(written[at : at + size] for at in range(0, len(written), size)))
    assert json.loads(decoded) == {"key": text}
    assert all(letter in decoded for letter in text if letter.isprintable() and letter not in '"\\')
