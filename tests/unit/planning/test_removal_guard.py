"""When removals need a person."""

from __future__ import annotations

import pytest

from ingest_pipeline.planning.removal_guard import is_suspicious, withheld


@pytest.mark.parametrize(
    ("gone", "latest", "suspicious"),
    [
        (0, 0, False),
        (0, 100, False),
        (1, 1, True),
        (3, 3, True),
        (2, 3, False),
        (10, 11, False),
        (11, 20, True),
        (11, 22, False),
        (50, 100, False),
        (51, 100, True),
    ],
)
def test_all_or_most_of_more_than_a_handful_need_confirmation(gone: int, latest: int, *, suspicious: bool) -> None:
    assert is_suspicious(gone, latest) is suspicious


def test_the_message_says_how_many_and_how_to_confirm() -> None:
    said = str(withheld("docs", "s3://bucket/x", 51, 100))
    assert "51 of 100 documents of corpus 'docs'" in said
    assert "--confirm-removals" in said
    assert "confirm_removals" in said
