"""Rewrites the Markdown tables of a parsed document, so that a search finds a row by its content.

A chunk in the middle of a long table does not contain the table's header, and a row without its header is a list of
unrelated words. So the name of the column precedes each value. Rows are not padded either: the width of a padded
column depends on its longest cell, so that an edit of one row would change all the others.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Final

_CELL_END: Final = re.compile(r"(?<!\\)\|")
_RULE: Final = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")
# Two columns are often names and values side by side, with no header.
_MIN_COLUMNS: Final = 3
_MAX_NAME_CHARACTERS: Final = 80
"""Characters in the name of a column. A longer cell is not a name, and would be repeated in every row."""


def rewrite_tables(text: str, *, headers: bool) -> str:
    """The text with each table as a list, an item for each row such as ``- Port: Ghent; Depth: 12 m``.

    Tables of two columns, and those whose first row is not made of short, different names, stay tables without padding.

    Args:
        text: Markdown.
        headers: Whether the first row of a table is known to be a header.
    """
    return "".join(_rewritten(text.splitlines(keepends=True), headers=headers))


def _rewritten(lines: Sequence[str], *, headers: bool) -> Iterator[str]:
    names: list[str] | None = None
    inside = named = fenced = False
    for line, following in zip_longest(lines, lines[1:], fillvalue=""):
        fenced ^= line.startswith("```")
        if fenced or not line.startswith("|"):
            inside = False
            yield line
        elif not inside and _RULE.fullmatch(following.strip()):
            inside = True
            names = _cells(line)
            named = headers and _are_names(names)
            yield "" if named else _row(names)
        elif inside and _RULE.fullmatch(line.strip()):
            yield "" if named else _row(["---"] * len(names or ()))
        elif inside:
            yield _item(names or (), _cells(line)) if named else _row(_cells(line))
        else:
            yield line


def _cells(line: str) -> list[str]:
    parts = _CELL_END.split(line.strip())
    return [part.strip() for part in parts[1:-1]]


def _are_names(cells: Sequence[str]) -> bool:
    return (
        len(cells) >= _MIN_COLUMNS
        and len(set(cells)) == len(cells)
        and all(0 < len(cell) <= _MAX_NAME_CHARACTERS and any(map(str.isalpha, cell)) for cell in cells)
    )


def _item(names: Sequence[str], cells: Sequence[str]) -> str:
    """A list item with the cells that are not empty. No text if all cells are empty."""
    pairs = zip_longest(names, cells, fillvalue="")
    values = [f"{name}: {cell}" if name else cell for name, cell in pairs if cell]
    return f"- {'; '.join(values)}\n" if values else ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"
