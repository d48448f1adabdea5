"""Addresses of databases: what is read, what is refused, and that neither libraries nor errors show a password."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.dialects.postgresql.psycopg2 import dialect

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.postgres.url import (
    database_url,
    holds_password,
    parts_of,
    place_of,
    without_password,
    write_url,
)

pytestmark = pytest.mark.promise("secrets")

HARD = "%25/#?@: '\\&=+é"
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


def as_sqlalchemy_reads(url: str) -> dict[str, Any]:
    _, parts = dialect().create_connect_args(sqlalchemy.make_url(url))
    return {name: str(value) for name, value in parts.items()}


@given(password=WORDS, user=WORDS)
def test_any_password_reaches_both_drivers_as_it_is(password: str, user: str) -> None:
    parts = {"user": user, "password": password, "host": "db.example", "port": "5433", "dbname": "docs"}
    url = database_url(make_conninfo(**parts))
    assert conninfo_to_dict(url) == parts_of(url) == parts
    assert as_sqlalchemy_reads(write_url(parts, "psycopg2")) == parts
    assert database_url(url) == url


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "postgresql://u:%25%2F%23%3F%40%3A%20@h:5/d",
            {"user": "u", "password": "%/#?@: ", "host": "h", "port": "5", "dbname": "d"},
        ),
        ("postgres://u:a#b?c:d@h/d", {"user": "u", "password": "a#b?c:d", "host": "h", "dbname": "d"}),
        ("postgresql+psycopg2://h/d", {"host": "h", "dbname": "d"}),
        ("postgresql:///d?host=/run/postgresql", {"host": "/run/postgresql", "dbname": "d"}),
        ("postgresql://h1:1,h2:2/d?target_session_attrs=any", {"host": "h1,h2", "port": "1,2", "dbname": "d"}),
        ("postgresql://[::1]:5/d", {"host": "::1", "port": "5", "dbname": "d"}),
        (f"host=h dbname='a b' password='{HARD.replace(chr(92), chr(92) * 2).replace(chr(39), chr(92) + chr(39))}'",
         {"host": "h", "dbname": "a b", "password": HARD}),
        ("postgresql://h/d\n", {"host": "h", "dbname": "d"}),
    ],
)  # fmt: skip
def test_every_form_that_libpq_accepts_is_read(text: str, parts: dict[str, str]) -> None:
    url = database_url(text)
    assert url.startswith("postgresql://")
    assert parts_of(url).items() >= parts.items()
    assert as_sqlalchemy_reads(write_url(parts_of(url), "psycopg2")).items() >= parts.items()


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:hunter2%zz@host/db",
        "postgresql://user:hunter2@hunter2@host/db",
        "postgresql://user:hunter2/hunter2@host/db",
        "postgresql://user:123/hunter2@host/db",
        "postgresql://user:/hunter2@host/db",
        "postgresql://user:hunter2 hunter2@host/db",
        "postgresql://user:hunter2@host:hunter2/db",
        "postgresql://user:hunter2@host:99999/db",
        "postgresql://user:hunter2@host/db?hunter2=1",
        "postgresql://user:hunter2@host/db?sslmode",
        "user:hunter2@host/db",
        "mysql://user:hunter2@host/db",
        "host=host password=hunter2 hunter2",
        "host=host password='hunter2",
        "host=host password=hunter2 pasword=hunter2",
    ],
)
def test_a_malformed_url_is_refused_in_one_line_without_quoting_it(text: str) -> None:
    with pytest.raises(ConfigurationError, match="INGEST_DATABASE_URL") as caught:
        CorpusConfig.from_environment({"INGEST_DATABASE_URL": text})
    shown = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in shown.replace(repr(text), "")
    assert "\n" not in str(caught.value)
    assert holds_password(text)


def test_settings_show_no_password() -> None:
    settings = CorpusConfig.from_environment({"INGEST_DATABASE_URL": "postgresql://user:hunter2@host/db"})
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("postgresql://u:p@h/d", True),
        ("host=h password=p", True),
        ("postgresql://h/d?password=p", True),
        ("postgresql://u@h/d", False),
        ("host=h user=u", False),
    ],
)
def test_a_password_is_found_wherever_it_is_written(text: str, holds: bool) -> None:
    assert holds_password(text) == holds


def test_the_password_is_removed_from_a_librarys_message_in_either_spelling() -> None:
    url = database_url("postgresql://u:a%2Fb%20c@h:5/d")
    assert without_password("at a/b c and a%2Fb%20c of h", url) == "at *** and *** of h"
    assert place_of(url) == "h:5/d"
