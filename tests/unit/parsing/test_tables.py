"""Tables of parsed documents: a row says what its values are."""

from __future__ import annotations

import pytest

from ingest_pipeline.parsing.tables import rewrite_tables

PADDED = """# Ports

| Port  | Depth | Harbour master |
| ----- | :---: | -------------- |
| Ghent | 12 m  | Ada Holm       |
| Porto |       | Levi \\| Lund   |
|       |       |                |

After it.
"""


def test_each_value_of_a_row_has_the_name_of_its_column() -> None:
    assert rewrite_tables(PADDED, headers=True) == (
        "# Ports\n\n- Port: Ghent; Depth: 12 m; Harbour master: Ada Holm\n"
        "- Port: Porto; Harbour master: Levi \\| Lund\n\nAfter it.\n"
    )


def test_a_table_without_a_known_header_stays_one_without_padding() -> None:
    assert rewrite_tables(PADDED, headers=False) == (
        "# Ports\n\n| Port | Depth | Harbour master |\n| --- | --- | --- |\n| Ghent | 12 m | Ada Holm |\n"
        "| Porto |  | Levi \\| Lund |\n|  |  |  |\n\nAfter it.\n"
    )


@pytest.mark.parametrize(
    "header",
    ["| Name | Ada |", "| a | a | b |", "| a |  | b |", "| 2024 | 2025 | 2026 |", f"| a | b | {'c' * 81} |"],
    ids=["two columns", "one name twice", "no name", "numbers", "a long text"],
)
def test_what_is_no_header_names_nothing(header: str) -> None:
    columns = header.count("|") - 1
    table = f"{header}\n|{'---|' * columns}\n|{' x |' * columns}\n"
    assert rewrite_tables(table, headers=True).endswith(f"|{' x |' * columns}\n")


def test_a_cell_beyond_the_header_is_kept() -> None:
    assert rewrite_tables("| a | b | c |\n|-|-|-|\n| 1 | 2 | 3 | 4 |\n", headers=True) == "- a: 1; b: 2; c: 3; 4\n"


@pytest.mark.parametrize("text", ["", "a | b\n", "| no table\n", "|\n|\n", "```\n| a | b | c |\n|-|-|-|\n| 1 |\n```\n"])
def test_other_text_is_not_touched(text: str) -> None:
    assert rewrite_tables(text, headers=True) == text


def test_a_longer_cell_does_not_change_the_other_rows() -> None:
    wider = PADDED.replace("Ghent |", "Ghent-Terneuzen |")
    before, after = (rewrite_tables(text, headers=False).splitlines() for text in (PADDED, wider))
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1


def test_two_tables_have_their_own_names() -> None:
    table = "| a | b | c |\n|-|-|-|\n| 1 | 2 | 3 |\n"
    other = table.replace("a", "x")
    assert rewrite_tables(f"{table}\n{other}", headers=True) == "- a: 1; b: 2; c: 3\n\n- x: 1; b: 2; c: 3\n"
