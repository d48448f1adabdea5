"""Columns of the user's: names, types, values of each source."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from ingest_pipeline.columns.declaration import NO_COLUMNS, Columns, check_access, columns_of, parse_columns
from ingest_pipeline.columns.sources import KeyPattern, front_matter, is_sidecar, read_sidecar
from ingest_pipeline.columns.values import COLUMN_TYPES, ColumnType, checked, checked_text, from_arrow, to_arrow
from ingest_pipeline.errors import ColumnValueError, ConfigurationError
from ingest_pipeline.lance.chunk_table import OWN_COLUMNS

ALL = {f"c{number}": kind for number, kind in enumerate(COLUMN_TYPES)}
VALUES: list[tuple[ColumnType, object, object]] = [
    ("string", "x", "x"),
    ("int", 3, 3),
    ("float", 3, 3.0),
    ("float", -0.0, 0.0),
    ("bool", True, True),
    ("date", date(2026, 1, 31), "2026-01-31"),
    ("date", "2026-01-31", "2026-01-31"),
    ("timestamp", "2026-01-31T10:00:00+02:00", "2026-01-31T08:00:00.000000+00:00"),
    ("timestamp", datetime(2026, 1, 31, tzinfo=UTC), "2026-01-31T00:00:00.000000+00:00"),
    ("timestamp", date(2026, 1, 31), "2026-01-31T00:00:00.000000+00:00"),
    ("list<string>", ["b", "a"], ["b", "a"]),
    ("list<string>", (), []),
]
WRONG: list[tuple[ColumnType, object]] = [
    ("string", 1),
    ("string", "a\0b"),
    ("string", "\ud800"),
    ("string", "x" * 65_537),
    ("int", "1"),
    ("int", True),
    ("int", 1.0),
    ("int", 2**63),
    ("float", "1"),
    ("float", float("nan")),
    ("float", 10**400),
    ("bool", 1),
    ("bool", "true"),
    ("date", datetime(2026, 1, 31, tzinfo=UTC)),
    ("date", "31.1.2026"),
    ("timestamp", 0),
    ("timestamp", "soon"),
    ("list<string>", "ann"),
    ("list<string>", ["ann", None]),
    ("list<string>", [1]),
    ("list<string>", {"ann": 1}),
]


@pytest.mark.parametrize(("kind", "value", "canonical"), VALUES)
def test_a_value_has_one_form_also_after_the_table(kind: ColumnType, value: object, canonical: object) -> None:
    found = checked(kind, value)
    assert (found, type(found)) == (canonical, type(canonical))
    columns = parse_columns({"c": kind})
    stored = columns.arrays([{"c": found}])["c"].to_pylist()[0]
    assert from_arrow(kind, stored) == found
    assert to_arrow(kind, found) == stored


@pytest.mark.parametrize(("kind", "value"), WRONG)
def test_a_wrong_value_is_no_value(kind: ColumnType, value: object) -> None:
    with pytest.raises(
        ColumnValueError, match=f"'d.md' has the value .* of column 'c' in its sidecar, .* of type {kind}"
    ):
        parse_columns({"c": kind}).typed("d.md", "its sidecar", {"c": value})


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "1", "1"),
        ("int", "-12", -12),
        ("float", "1.5", 1.5),
        ("bool", "False", False),
        ("list<string>", " a, b ,", ["a", "b"]),
        ("list<string>", '["a,b"]', ["a,b"]),
        ("date", "2026-01-31", "2026-01-31"),
    ],
)
def test_texts_are_read_by_the_type(kind: ColumnType, text: str, value: object) -> None:
    assert checked_text(kind, text) == value


@pytest.mark.parametrize(("kind", "text"), [("int", "1.0"), ("int", "²"), ("bool", "yes"), ("list<string>", "[1]")])
def test_a_text_of_another_type_is_refused(kind: ColumnType, text: str) -> None:
    with pytest.raises(ColumnValueError):
        parse_columns({"c": kind}).texts("d", "its key", {"c": text})


@pytest.mark.parametrize("name", ["saga", "text", "key", "Year", "1st", "a-b", "", "not", "none", "_rowid", "page"])
def test_a_name_with_another_meaning_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="INGEST_COLUMNS"):
        parse_columns({name: "int"})


def test_a_type_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="list<string>"):
        parse_columns({"year": "integer"})


def test_a_table_says_which_columns_it_has() -> None:
    columns = parse_columns(ALL)
    schema = pa.schema([pa.field("id", pa.string()), *columns.fields])
    assert columns_of(schema, OWN_COLUMNS).types == columns.types


def test_recorded_values_that_fit_another_declaration_are_kept() -> None:
    recorded: dict[str, Any] = {"year": 2020, "old": "x", "day": "no day"}
    assert parse_columns({"year": "float", "day": "date"}).conform(recorded) == {"year": 2020.0}
    assert NO_COLUMNS.conform(recorded) == {}


@pytest.mark.parametrize(
    ("pattern", "key", "values"),
    [
        ("{department}/{year}/*", "legal/2020/a.txt", {"department": "legal", "year": "2020"}),
        ("{department}/{year}/*", "legal/2020/b/a.txt", {}),
        ("{department}/**", "legal/2020/b/a.txt", {"department": "legal"}),
        ("**/{year}.md", "2020.md", {"year": "2020"}),
        ("**/{year}.md", "a/b/2020.md", {"year": "2020"}),
        ("x.y/{year}", "xzy/2020", {}),
        (r"^(?P<department>[a-z]+)-(?P<year>\d+).*", "legal-2020/a", {"department": "legal", "year": "2020"}),
    ],
)
def test_a_pattern_reads_values_from_keys(pattern: str, key: str, values: dict[str, str]) -> None:
    assert KeyPattern.parse(pattern, ["department", "year"]).values(key) == values


@pytest.mark.parametrize("pattern", ["{other}/*", "docs/*", "^(", "{year}/{year}"])
def test_a_pattern_that_names_no_declared_column_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="INGEST_COLUMNS_FROM_KEY"):
        KeyPattern.parse(pattern, ["year"])


def test_front_matter_is_yaml_between_two_rules() -> None:
    assert front_matter("d", "---\nyear: 2020\nday: 2026-01-31\n---\n\nText") == {
        "year": 2020,
        "day": date(2026, 1, 31),
    }
    assert front_matter("d", "\ufeff---\r\nyear: 2020\r\n---\r\nText") == {"year": 2020}
    assert front_matter("d", "Text\n---\nyear: 2020\n---\n") == {}
    assert front_matter("d", "---\nNo end") == {}
    assert front_matter("d", "---\nA text.\n---\n") == {}
    with pytest.raises(ColumnValueError, match="malformed front matter"):
        front_matter("d", "---\n a: [\n---\n")
    with pytest.raises(ColumnValueError, match="malformed front matter"):
        front_matter("d", "---\na: " + "[" * 20_000 + "\n---\n")


def test_a_sidecar_is_an_object_of_json() -> None:
    assert read_sidecar("d", b'\xef\xbb\xbf{"year": 2020}') == {"year": 2020}
    for body in (b"[]", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(ColumnValueError, match="malformed sidecar"):
            read_sidecar("d", body)
    assert is_sidecar("a/b.pdf.metadata.json")
    assert not is_sidecar("a/.metadata.json")


def test_access_names_a_declared_list() -> None:
    columns = parse_columns({"readers": "list<string>", "year": "int"})
    check_access(columns, "readers", required=True)
    check_access(columns, None, required=False)
    for access in ("year", "writers"):
        with pytest.raises(ConfigurationError, match="INGEST_ACCESS"):
            check_access(columns, access, required=False)
    with pytest.raises(ConfigurationError, match="INGEST_REQUIRE_PRINCIPALS"):
        check_access(columns, "none", required=True)


def test_a_column_of_chunks_is_marked_in_the_table_and_in_the_declaration() -> None:
    columns = parse_columns({"year": "int"}, None, (), {"topic": "string"})
    assert (columns.of_documents.names, columns.of_chunks.names) == (("year",), ("topic",))
    assert columns_of(pa.schema(columns.fields), OWN_COLUMNS) == columns
    assert Columns.from_json(columns.to_json()) == columns
    assert columns.fingerprint != parse_columns({"year": "int", "topic": "string"}).fingerprint


def test_a_column_that_moves_between_documents_and_chunks_is_a_loss() -> None:
    of_chunks, of_documents = parse_columns({}, of_chunks={"year": "int"}), parse_columns({"year": "float"})
    assert of_chunks.losses(of_documents) == ["change the column 'year' from int of a chunk to float"]
    assert of_chunks.losses(parse_columns({}, of_chunks={"year": "float"})) == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (({"topic": "string"}, None, (), {"topic": "string"}), "both declare the column 'topic'"),
        (({}, None, (), {"topic": "text"}), "INGEST_CHUNK_COLUMNS gives the column 'topic' the type 'text'"),
        (({}, None, (), {"vector": "int"}), "INGEST_CHUNK_COLUMNS names a column 'vector'"),
        (({}, "{topic}/**", (), {"topic": "string"}), "names the undeclared column 'topic'"),
        (({}, None, ("topic",), {"topic": "string"}), "names the undeclared column 'topic'"),
    ],
)
def test_a_wrong_declaration_of_chunk_columns_is_refused(arguments: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        parse_columns(*arguments)


def test_access_cannot_be_a_column_of_chunks() -> None:
    with pytest.raises(ConfigurationError, match="which is not a declared column"):
        check_access(parse_columns({}, of_chunks={"readers": "list<string>"}), "readers", required=False)
