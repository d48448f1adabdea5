"""What `history` says below its table."""

from __future__ import annotations

import pytest

from ingest_pipeline.cli.commands.maintenance.versions import _kept  # pyright: ignore[reportPrivateUsage]

_REMOVED_BY = {"r": "retention", "e": "erasure", "c": "rebuild", "?": None}


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ("....", "`ingest-pipeline rollback --to VERSION` returns to any of these."),
        ("rr..", "`ingest-pipeline rollback --to VERSION` accepts 3 to 4. Retention removed 1 to 2."),
        (".ee.", "`ingest-pipeline rollback --to VERSION` accepts 1 and 4. An erasure removed 2 to 3."),
        (
            "r.e.e",
            "`ingest-pipeline rollback --to VERSION` accepts 2 and 4. Retention removed 1. An erasure removed 3 and 5.",
        ),
        ("c", "No rollback to these versions is possible. The table lacked 1 when the catalog was rebuilt."),
        ("?", "No rollback to these versions is possible. The table lacks 1."),
    ],
)
def test_history_says_what_a_rollback_accepts_and_what_removed_the_rest(versions: str, said: str) -> None:
    rows = [
        {"version": number, "retained": fate == ".", "removed_by": _REMOVED_BY.get(fate)}
        for number, fate in enumerate(versions, 1)
    ]
    assert _kept(rows[::-1]) == said


def test_the_versions_of_one_document_are_named_one_by_one() -> None:
    """Others of the corpus may be between them, with another fate."""
    rows = [{"version": version, "retained": version > 5, "removed_by": None, "document": "a"} for version in (9, 7, 2)]
    assert _kept(rows).startswith("`ingest-pipeline rollback --to VERSION` accepts 7 and 9.")
