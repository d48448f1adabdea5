"""Writes the parts of the documents that the code determines: settings, commands, errors, checks, tables, messages.

A page has such a part between ``<!-- generated: NAME ARGUMENTS -->`` and ``<!-- end -->``. ``make reference`` writes
all of them, and a test compares each part with the code.
"""

from __future__ import annotations

import inspect
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, LiteralString, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from ingest_pipeline import errors
from ingest_pipeline.assets.checks.check_reports import run_check_specs
from ingest_pipeline.assets.checks.check_results import CHECKED, audit_results
from ingest_pipeline.assets.checks.corpus_checks import corpus_checks
from ingest_pipeline.cli.main import COMMANDS
from ingest_pipeline.cli.main import main as program
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.config.environment import environment_options, variable_of
from ingest_pipeline.config.options.corpus_options import CorpusOptions
from ingest_pipeline.extensions.loader import SCHEMA
from ingest_pipeline.maintenance.audit import nothing_to_audit
from ingest_pipeline.orchestration.build import DagsterOptions
from ingest_pipeline.parsing import built_in_parsers
from ingest_pipeline.postgres.database import Connection, Database
from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
from ingest_pipeline.postgres.gauges import figures
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.telemetry.metrics import declared
from tests.support.servers.embedding_server import EmbeddingServer
from tools import evidence, wrong_inputs
from tools.wrong_inputs import Stage

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
_PART = re.compile(r"(<!-- generated: (\w+)((?: \w+)*) -->\n).*?(<!-- end -->)", re.DOTALL)
_TYPES: Mapping[object, str] = {str: "text", int: "number", bool: "`true` or `false`"}
_WRONG_INPUTS = "wrong_inputs"
_COMMON = {"--json", "--corpus", "--help"}


def pages() -> list[Path]:
    """The pages with generated parts."""
    return [page for page in sorted((ROOT / "docs").rglob("*.md")) if _PART.search(page.read_text())]


def rendered(page: str, connection: Connection | None, printed: str | None = None) -> str:
    """The text of a page with its generated parts as the code has them now.

    Args:
        page: The text of the page.
        connection: A database with this package's tables; None leaves the parts about tables as they are.
        printed: The part about wrong inputs; None leaves it as it is.
    """

    def render(part: re.Match[str]) -> str:
        begin, name, arguments, end = part.groups()
        if name == _WRONG_INPUTS:
            return part[0] if printed is None else f"{begin}\n{printed}\n\n{end}"
        if name in _TABLES:
            return (
                part[0] if connection is None else f"{begin}\n{_TABLES[name](connection, *arguments.split())}\n\n{end}"
            )
        return f"{begin}\n{_PARTS[name](page, *arguments.split())}\n\n{end}"

    return _PART.sub(render, page)


def options(page: str, first: str) -> str:
    """The options of a corpus from one to the next one at which another part of the page begins."""
    begins = re.findall(r"<!-- generated: options (\w+) -->", page)
    names = list(CorpusOptions.model_fields)
    assert begins[0] == names[0], "the first table of the page begins with the first option"
    following = begins.index(first) + 1
    end = names.index(begins[following]) if following < len(begins) else len(names)
    variables = environment_options()
    rows: list[Sequence[str]] = []
    for name in names[names.index(first) : end]:
        field = CorpusOptions.model_fields[name]
        variable = f"<br>`{variable_of(name)}`" if name in variables else ""
        rows.append([f'<a id="{name}"></a>`{name}`{variable}', _type(field), _default(field), _meaning(field)])
    return _table(["option, variable", "type", "default", "meaning"], rows)


def dagster_options(_: str) -> str:
    """The further attributes of the component."""
    fields = DagsterOptions.model_fields.items()
    rows = [[f"`{name}`", _type(field), _default(field), _meaning(field)] for name, field in fields]
    return _table(["attribute", "type", "default", "meaning"], rows)


def commands(_: str) -> str:
    """Each command with its arguments and options."""
    with click.Context(program, info_name="ingest-pipeline") as context:
        return "\n\n".join(_command(name, context) for name in sorted(COMMANDS))


def error_classes(_: str) -> str:
    """Each error class: when it is raised, and what to do."""
    tree = {
        name: (len(indent) // 4, meaning.strip())
        for indent, name, meaning in re.findall(
            r"^([│├└─ ]+)(\w+)[ ]*(.*)$", inspect.getdoc(errors) or "", re.MULTILINE
        )
    }
    defined = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    assert defined == tree.keys() | {"IngestError"}, "the tree in errors.py names each class"
    rows: list[Sequence[str]] = []
    for name, (depth, meaning) in tree.items():
        found: type[errors.IngestError] = getattr(errors, name)
        advice = found.remedy or f"{meaning[:1].upper()}{meaning[1:]}."
        assert len(advice) > 1, f"{name} has neither a remedy nor a line in the tree"
        indent = "&emsp;" * (depth - 1)
        rows.append([f'<a id="{name.lower()}"></a>{indent}`{name}`', _one_line(found.__doc__), advice])
    return _table(["error", "raised when", "what to do"], rows)


def asset_checks(_: str) -> str:
    """The checks of the documents of one run and of the whole corpus."""
    config = CorpusConfig(corpus="any", source="any", columns={"readers": "list<string>"}, access="readers")
    specs = [spec for check in corpus_checks(config) for spec in check.check_specs]
    specs += run_check_specs(DagsterNames.of(config), gated=True)
    described = {spec.name: spec.description or "" for spec in specs}
    assert described.keys() == CHECKED.keys(), "each check has a description"
    serious = {*audit_results(nothing_to_audit("any"), 1), "run_audit", "gate"}
    rows = [
        [f"`{name}`", f"`{CHECKED[name]}`", described[name], "error" if name in serious else "warning"]
        for name in CHECKED
    ]
    return _table(["check", "asset", "passes if", "severity"], rows)


def formats(_: str) -> str:
    """The suffixes that are known, by how a file is read."""
    kinds = {
        "as text, as a stream": built_in_parsers._TEXT,  # pyright: ignore[reportPrivateUsage]
        "by a parser in a child process": built_in_parsers._PARSED,  # pyright: ignore[reportPrivateUsage]
    }
    rows: list[Sequence[str]] = []
    for kind, suffixes in kinds.items():
        for media_type in dict.fromkeys(suffixes.values()):
            named = ", ".join(f"`{suffix}`" for suffix, found in suffixes.items() if found == media_type)
            rows.append([named, media_type, kind])
    return _table(["suffix", "media type", "read"], rows)


def catalog_figures(_: str) -> str:
    """The figures of the catalog that Prometheus gets."""
    rows = [
        [f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), one.description]
        for one in figures()
    ]
    return _table(["name", "kind", "labels", "meaning"], rows)


def run_metrics(_: str) -> str:
    """The metrics that a run exports by OpenTelemetry."""
    rows = [
        [
            f"`{one.name}`",
            one.kind,
            one.unit.strip("{}"),
            "<br>".join(f"`{name}`" for name in one.attributes),
            one.description,
        ]
        for one in declared()
    ]
    return _table(["name", "kind", "unit", "attributes", "meaning"], rows)


def tables(connection: Connection, *names: str) -> str:
    """Tables or views with all their columns."""
    return "\n\n".join(_relation(connection, name) for name in names)


def relations(connection: Connection, kind: str) -> str:
    """The tables or views of the schema, one line each."""
    found = _rows(
        connection,
        "SELECT relname, obj_description(oid) FROM pg_class "
        "WHERE relnamespace = 'ingest_pipeline'::regnamespace AND relkind = %s ORDER BY relname",
        {"tables": "r", "views": "v"}[kind],
    )
    assert all(comment for _, comment in found), (
        f"without a comment: {[name for name, comment in found if not comment]}"
    )
    return _table([kind[:-1], "what it has"], [[f"`{name}`", comment] for name, comment in found])


def functions(connection: Connection) -> str:
    """The functions of the schema that a user may call."""
    found = _rows(
        connection,
        "SELECT proname, pg_get_function_identity_arguments(oid), pg_get_function_result(oid), obj_description(oid) "
        "FROM pg_proc WHERE pronamespace = 'ingest_pipeline'::regnamespace AND prorettype <> 'trigger'::regtype "
        "ORDER BY proname",
    )
    assert all(comment for *_, comment in found), "each function has a comment"
    rows = [
        [f"`{name}({_given(arguments)})`", f"`{_returned(result)}`", text] for name, arguments, result, text in found
    ]
    return _table(["function", "returns", "what it does"], rows)


def _rows(connection: Connection, statement: LiteralString, *values: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in connection.execute(statement, values)]


def _given(arguments: str) -> str:
    return ", ".join(one for one in arguments.split(", ") if not one.startswith("OUT "))


def _returned(result: str) -> str:
    return result.replace("ingest_pipeline.", "")


_PARTS: Mapping[str, Callable[..., str]] = {
    "options": options,
    "dagster_options": dagster_options,
    "commands": commands,
    "errors": error_classes,
    "asset_checks": asset_checks,
    "formats": formats,
    "catalog_figures": catalog_figures,
    "run_metrics": run_metrics,
    "evidence": evidence.table,
}
_TABLES: Mapping[str, Callable[..., str]] = {"columns": tables, "relations": relations, "functions": functions}
# The columns of a view have no comments of their own.
_BASES = {
    "head": ["generation"],
    "current_document": ["document", "generation"],
    "current_chunk": ["chunk", "document", "generation"],
}
_RENAMED = {"version": "head_version", "saga": "head_saga", "table_name": "name"}


def _relation(connection: Connection, name: str) -> str:
    def columns(relation: str) -> dict[str, tuple[str, str | None]]:
        found = _rows(
            connection,
            "SELECT attname, format_type(atttypid, atttypmod), col_description(attrelid, attnum) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            f"ingest_pipeline.{relation}",
        )
        return {column: (kind, comment) for column, kind, comment in found}

    bases = [columns(base) for base in _BASES.get(name, [])]
    rows: list[Sequence[str]] = []
    for column, (kind, comment) in columns(name).items():
        original = _RENAMED.get(column, column) if name == "head" else column
        meaning = next(
            (found for found in [comment, *(base.get(original, ("", None))[1] for base in bases)] if found), ""
        )
        assert meaning, f"the column {name}.{column} has no comment"
        rows.append([f"`{column}`", kind, meaning])
    return f"### `{name}`\n\n" + _table(["column", "type", "meaning"], rows)


def _command(name: str, parent: click.Context) -> str:
    found = program.get_command(parent, name)
    assert found is not None
    context = click.Context(found, parent=parent, info_name=name)
    usage = " ".join([context.command_path, *found.collect_usage_pieces(context)])
    help_text = inspect.cleandoc(found.help or "").replace("\b\n", "")
    rows: list[Sequence[str]] = []
    for parameter in found.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and not _COMMON & set(parameter.opts):
            rows.append([f"`{record[0]}`", record[1]])
    shared = [f"`{one}`" for one in ("--corpus NAME", "--json") if any(one.split()[0] in p.opts for p in found.params)]
    lines = [f"### `{name}`", f"```text\n{usage}\n```", help_text]
    lines += [_table(["option", "effect"], rows)] if rows else []
    lines += [f"Also takes {' and '.join(shared)}."] if shared else []
    return "\n\n".join(lines)


def _type(field: FieldInfo) -> str:
    if field.json_schema_extra == SCHEMA:
        return "dotted path, or more"
    return _type_of(field.annotation)


def _type_of(annotation: object) -> str:
    parts = [part for part in get_args(annotation) if part is not NoneType]
    origin = get_origin(annotation)
    if origin in {Union, UnionType}:
        return " or ".join(dict.fromkeys(map(_type_of, parts)))
    if parts and all(isinstance(part, str) for part in parts):
        return ", ".join(f"`{part}`" for part in parts)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "mapping"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return "list"
    return _TYPES.get(annotation, "function" if origin is not None else "text")


def _default(field: FieldInfo) -> str:
    value = None if field.default_factory else field.default
    if field.is_required() or value is None or value in ("", ()):
        return "required" if field.is_required() else ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(field: FieldInfo) -> str:
    assert field.description, "each option has a description"
    examples = [one if isinstance(one, str) else json.dumps(one) for one in field.examples or []]
    shown = " or ".join(f"`{example}`" for example in examples)
    return field.description.replace("<", "&lt;") + (f" For example {shown}." if shown else "")


def _one_line(text: str | None) -> str:
    return " ".join((text or "").partition("Args:")[0].split())


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def write() -> None:
    """Write all generated parts."""
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder) / "postgres")
        url = server.start()
        try:
            with EmbeddingServer() as embeddings:
                printed = wrong_inputs.page(Stage(Path(folder) / "handbook", url, embeddings))
            with Database(url) as database, database.transaction() as connection:
                for page in pages():
                    page.write_text(rendered(page.read_text(), connection, printed))
        finally:
            server.release()


if __name__ == "__main__":
    write()
