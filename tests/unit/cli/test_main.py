"""The table of commands, and what a command imports before it does anything."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from dagster._cli.dev import dev_command

from ingest_pipeline.cli.commands.servers.ui import NO_WARNING
from ingest_pipeline.cli.main import COMMANDS, main

# Imported to launch runs, to parse, to embed, to hand out LanceDB's own tables, or by tests alone.
DAGSTER = {"dagster", "dagster_postgres", "sqlalchemy", "alembic"}
HEAVY = {*DAGSTER, "lancedb", "kreuzberg", "openai", "pandas", "wordllama", "playwright", "moto"}

MODULES = sorted({module for module, _ in COMMANDS.values()})


def imported_by(program: str) -> set[str]:
    """The top-level modules that a program imports in a process of its own."""
    report = "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program + report], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_the_table_has_the_commands_of_the_modules() -> None:
    """Every command of the modules can be reached, under its own name."""
    found = {
        (value.name, module)
        for module in MODULES
        for value in vars(import_module(f"ingest_pipeline.cli.commands.{module}")).values()
        if isinstance(value, click.Command)
    }
    assert found == {(name, module) for name, (module, _) in COMMANDS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_short_help_is_that_of_the_command(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.get_short_help_str(200).split(".")[0] + "." == COMMANDS[name][1]


def test_help_imports_click_alone() -> None:
    program = "from ingest_pipeline.cli.main import main; main(['--help'], standalone_mode=False)"
    found = imported_by(program)
    assert found & {*HEAVY, "lance", "numpy", "openai", "psycopg", "pyarrow", "pydantic", "rich"} == set()
    assert {"click", "ingest_pipeline"} <= found


@pytest.fixture(scope="module")
def heavy_imports() -> dict[str, set[str]]:
    """What each module of commands imports that those before it have not, of what is heavy.

    One process imports them all, in order: each alone takes half a second.
    """
    report = f"print(*{{name.partition('.')[0] for name in sys.modules}} & {HEAVY})"
    program = "\n".join(f"import ingest_pipeline.cli.commands.{module}; {report}" for module in MODULES)
    done = subprocess.run([sys.executable, "-c", f"import sys\n{program}"], capture_output=True, text=True, check=True)
    found = [set(line.split()) for line in done.stdout.split("\n")[:-1]]
    assert len(found) == len(MODULES)
    return {
        module: after - before for module, before, after in zip(MODULES, [set[str](), *found[:-1]], found, strict=True)
    }


@pytest.mark.parametrize("module", MODULES)
def test_a_command_imports_no_dagster_before_it_launches_a_run(module: str, heavy_imports: dict[str, set[str]]) -> None:
    assert heavy_imports[module] == set()


def test_the_corpora_of_a_project_are_found_without_dagster(tmp_path: Path) -> None:
    defs = tmp_path / "x" / "defs" / "a"
    defs.mkdir(parents=True)
    (tmp_path / "dg.toml").write_text('directory_type = "project"\n\n[project]\nroot_module = "x"\n')
    component = "type: ingest_pipeline.IngestPipelineComponent\nattributes:\n  corpus: a\n  source: b\n"
    (defs / "defs.yaml").write_text(component)
    program = (
        "from pathlib import Path; from ingest_pipeline.config.project import find_project; "
        f"assert list(find_project(Path({str(tmp_path)!r})).corpora) == ['a']"
    )
    assert imported_by(program) & HEAVY == set()


def test_a_code_location_imports_what_its_sensors_and_runs_use_alone() -> None:
    found = imported_by("import ingest_pipeline.definitions")
    assert found & (HEAVY - DAGSTER) == set()
    assert "dagster" in found


def test_a_misspelt_command_is_refused_with_a_suggestion() -> None:
    done = CliRunner().invoke(main, ["serch", "holiday"])
    assert (done.exit_code, "No such command 'serch'. Did you mean 'search'?" in done.stderr) == (2, True)
    assert "Did you mean" not in CliRunner().invoke(main, ["xyz"]).stderr


def test_the_web_ui_starts_without_dagsters_warning_about_its_command() -> None:
    program = "import warnings; warnings.warn('Function `dev_command` is superseded and its usage is discouraged.')"
    variables = {"PYTHONWARNINGS": f"default,{NO_WARNING}"}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert dev_command.callback is not None
    assert dev_command.callback.__name__ == "dev_command"
