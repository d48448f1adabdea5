"""Every named query is used, and every used one exists."""

from __future__ import annotations

import re
from pathlib import Path

import ingest_pipeline

PACKAGE = Path(ingest_pipeline.__file__).parent


def test_each_name_in_queries_sql_is_unique() -> None:
    assert len(_names()) == len(set(_names()))


def test_each_named_query_is_used() -> None:
    source = _source()
    assert [name for name in _names() if f'"{name}"' not in source] == []


def test_each_query_that_the_code_uses_exists() -> None:
    asked = re.findall(r'\bquery\(\s*"([^"]+)"\s*\)', _source())
    assert len(asked) > 50
    assert sorted(set(asked) - set(_names())) == []


def _names() -> list[str]:
    return re.findall(
        r"^-- ([a-z_]+) --$", (PACKAGE / "postgres" / "sql" / "queries.sql").read_text(), flags=re.MULTILINE
    )


def _source() -> str:
    paths = list(PACKAGE.rglob("*.py"))
    assert len(paths) > 100
    return "\n".join(path.read_text() for path in paths)
