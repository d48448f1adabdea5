"""Every effect outside the process is inside a named boundary, where a test can stop the program."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ingest_pipeline
from ingest_pipeline import failpoints
from ingest_pipeline.failpoints import Boundary

PACKAGE = Path(str(ingest_pipeline.__file__)).parent
LANCE_MODULES = {
    "lance/table.py",
    "lance/table_reader.py",
    "lance/files/table_files.py",
    "lance/changes.py",
    "lance/candidate.py",
    "lance/column_files.py",
    "lance/moves.py",
    "lance/indices.py",
    "lance/checks/damage.py",
    "lance/files/flush.py",
    "lance/files/spool.py",
    "lance/search.py",
    "lance/versions/manifests.py",
    "lance/versions/manifest_objects.py",
    "lance/erasing.py",
}
"""The reader of the table writes nothing. Damage and search write nothing but copies of files, and a copy in memory, of
rows that no index has yet."""
EFFECTS: dict[str, dict[str, str]] = {
    "lance/table.py": {
        "write_dataset": "LANCE_COMMIT",
        "commit_staged": "LANCE_COMMIT RESTORED",
        "put_manifest": "MANIFEST_INSTALLED",
        "remove_staged": "MANIFEST_INSTALLED",
        "LanceFileWriter": "FRAGMENT_WRITTEN",
        "write_batch": "FRAGMENT_WRITTEN",
        "delete_file": "TABLE_DROPPED",
        "drop": "TABLE_DROPPED",
        "cleanup_old_versions": "VERSIONS_REMOVED",
    },
    "lance/candidate.py": {
        "shallow_clone": "CANDIDATE_MADE",
        "commit": "CANDIDATE_MADE",
        "delete_file": "CANDIDATE_REMOVED",
    },
    "saga/blocked.py": {"block": "BLOCKED", "drop": "BLOCKED"},
    "ingestion/ingest.py": {"judge": "JUDGED"},
    "ingestion/reembed.py": {"judge_switch": "JUDGED"},
    "lance/files/table_files.py": {"delete_file": "FILE_REMOVED"},
    "lance/changes.py": {"delete": "ROWS_REMOVED"},
    "lance/indices.py": {
        "create_index_uncommitted": "INDEX_BUILT",
        "merge_existing_index_segments": "INDEX_BUILT",
        "shallow_clone": "INDEX_BUILT",
        "_moved": "INDEX_BUILT",
    },
    "lance/files/flush.py": {"_flush_file": "FLUSHED", "flush_folder": "FLUSHED"},
    "lance/files/spool.py": {"_upload": "BATCH_SPOOLED", "write_durably": "BATCH_SPOOLED"},
    "lance/versions/store_check.py": {"_is_second_refused": "STORE_CHECKED", "delete": "STORE_CHECKED"},
    "lance/erasing.py": {"write_durably": "ERASURE_NOTED", "upload_file": "ERASURE_NOTED"},
    "events/queue.py": {
        "receive_message": "NOTICES_RECEIVED",
        "delete_message_batch": "NOTICES_DELETED",
        "change_message_visibility_batch": "NOTICES_EXTENDED",
    },
    "maintenance/retention.py": {"retire_versions": "RETIRED"},
    "erasure/table.py": {"retire_versions": "RETIRED", "record_fragment": "FRAGMENT_RECORDED"},
    "reporting/erasure.py": {"_clean": "DAGSTER_ERASED", "_remove": "DAGSTER_ERASED", "_rewrite": "DAGSTER_ERASED"},
    "postgres/database.py": {"_commit": "COMMIT"},
    "preparation/vectors/requests.py": {"embed": "BATCH_SENT", "record_batch": "BATCH_RECORDED"},
    "ingestion/batch/batch_jobs.py": {
        "insert_batch_job": "BATCH_JOB_RECORDED",
        "upload": "BATCH_JOB_SUBMITTED",
        "create": "BATCH_JOB_SUBMITTED",
        "record_batch": "BATCH_JOB_COLLECTED",
    },
    "preparation/reading/extension_calls.py": {
        "call": "EXTENSION_CALLED",
        "enrich_chunks": "EXTENSION_CALLED",
        "record_result": "RESULT_RECORDED",
        "record_chunk_results": "RESULT_RECORDED",
    },
    "preparation/writing/write_stage.py": {
        "record_fragment": "FRAGMENT_RECORDED",
        "add_chunks": "FRAGMENT_RECORDED",
        "share_chunks": "FRAGMENT_RECORDED",
    },
    "preparation/writing/moves.py": {"record_fragment": "FRAGMENT_RECORDED"},
    "saga/columns.py": {"record_fragment": "FRAGMENT_RECORDED"},
    "ingestion/columns/column_changes.py": {
        "record_fragment": "FRAGMENT_RECORDED",
        "insert_column_changes": "FRAGMENT_RECORDED",
        "copy_chunk_rows": "FRAGMENT_RECORDED",
    },
    "saga/rollback.py": {"record_fragment": "FRAGMENT_RECORDED", "copy_chunk_rows": "FRAGMENT_RECORDED"},
    "corpus/opening.py": {"lock_generation": "LOCK_TAKEN", "set_state": "GENERATION_MOVED"},
    "corpus/pinned.py": {"lock_generation": "LOCK_TAKEN"},
    "maintenance/drop.py": {"lock_generations": "LOCK_TAKEN", "set_state": "GENERATION_MOVED"},
    "restore/rebuild.py": {"retire_versions": "ROWS_WRITTEN"},
    "restore/relocate.py": {"rebind": "RELOCATED", "rename_recipe": "RELOCATED"},
    "saga/generations.py": {"lock_generations": "LOCK_TAKEN", "set_state": "GENERATION_MOVED"},
    "saga/reconcile.py": {"lock_generation": "LOCK_TAKEN", "move_head": "HEAD_MOVED", "mark_compensated": "SETTLED"},
    "saga/publish.py": {"move_head": "HEAD_MOVED", "write": "ROWS_WRITTEN", "check_version": "VERSION_CHECKED"},
}
"""Calls that change something outside, by the module that makes them, and the boundary each must stand in.

A statement changes nothing before its transaction's COMMIT. `commit_staged` makes the one call to Lance's commit,
and its callers stand in boundaries. Reading a document is a generator, whose boundary stands around its use.
"""


def calls_in(path: Path) -> list[tuple[str, int, list[str]]]:
    """Every call: its name, its line, and the boundaries around it."""
    found: list[tuple[str, int, list[str]]] = []

    def visit(node: ast.AST, around: list[str]) -> None:
        if isinstance(node, ast.With):
            around = around + [name for item in node.items if (name := boundary_of(item.context_expr))]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            around = entered_in(node)
        if isinstance(node, ast.Call):
            found.append((name_of(node.func), node.lineno, around))
        for child in ast.iter_child_nodes(node):
            visit(child, around)

    visit(ast.parse(path.read_text()), [])
    return found


def entered_in(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Boundaries that the function puts on an exit stack."""
    calls = [
        node for node in ast.walk(function) if isinstance(node, ast.Call) and name_of(node.func) == "enter_context"
    ]
    return [name for call in calls if (name := boundary_of(call.args[0]))]


def boundary_of(node: ast.expr) -> str | None:
    if isinstance(node, ast.Call) and name_of(node.func) == "boundary" and isinstance(node.args[0], ast.Attribute):
        return node.args[0].attr
    return None


def name_of(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


@pytest.mark.promise("sigkill")
@pytest.mark.parametrize(("module", "call"), [(module, call) for module, calls in EFFECTS.items() for call in calls])
def test_every_effect_is_inside_its_boundary(module: str, call: str) -> None:
    wanted = set(EFFECTS[module][call].split())
    found = [(line, around) for name, line, around in calls_in(PACKAGE / module) if name == call]
    assert found, f"{module} no longer calls {call}: the list above is old"
    for line, around in found:
        assert set(around) & wanted, f"{module}:{line}"


@pytest.mark.promise("sigkill")
def test_only_the_database_module_commits_and_only_the_table_module_writes() -> None:
    """So that the list above is of all effects there are."""
    paths = list(PACKAGE.rglob("*.py"))
    assert len(paths) > 100
    for path in paths:
        name = path.relative_to(PACKAGE).as_posix()
        imported = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        if "lance" in imported:
            assert name in LANCE_MODULES or only_for_types(path, "lance"), name
        if name != "postgres/database.py":
            assert "psycopg.connect" not in path.read_text(), name


def only_for_types(path: Path, module: str) -> bool:
    return f"if TYPE_CHECKING:\n    import {module}" in path.read_text()


def test_a_boundary_without_handler_calls_nothing() -> None:
    failpoints.install(None)
    with failpoints.boundary(Boundary.COMMIT):
        pass


def test_the_side_after_is_not_passed_if_the_effect_raises() -> None:
    passed: list[str] = []
    failpoints.install(lambda _, side: passed.append(side))
    try:
        with pytest.raises(KeyError), failpoints.boundary(Boundary.COMMIT):
            raise KeyError
    finally:
        failpoints.install(None)
    assert passed == ["before"]
