"""The named SQL statements of the ledger and the catalog, and the numbered migrations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, LiteralString


@dataclass(frozen=True, slots=True)
class Migration:
    """A schema migration from a file ``NNNN_purpose.sql``."""

    number: int
    name: str
    sql: LiteralString


@cache
def query(name: str) -> LiteralString:
    """Return the statement of that name from ``queries.sql``.

    Raises:
        KeyError: No statement has that name.
    """
    return _queries()[name]


@cache
def _queries() -> dict[str, LiteralString]:
    parts: list[Any] = re.split(r"^-- ([a-z_]+) --$", _literal("queries.sql"), flags=re.MULTILINE)
    return {str(name): body for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def _literal(*path: str) -> Any:  # noqa: ANN401  a file of the package, hence as literal as a string in the code
    return files(__name__).joinpath(*path).read_text()


def migrations() -> list[Migration]:
    """Return all migrations in the order in which they are applied."""
    found: list[Migration] = []
    for entry in files(__name__).joinpath("migrations").iterdir():
        if entry.name.endswith(".sql"):
            number, _, purpose = entry.name.removesuffix(".sql").partition("_")
            found.append(Migration(int(number), purpose, _literal("migrations", entry.name)))
    return sorted(found, key=lambda migration: migration.number)
