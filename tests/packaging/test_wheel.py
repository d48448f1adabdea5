"""The wheel holds all of the package and nothing beside it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def _files(suffix: str) -> list[Path]:
    return [path for path in (_ROOT / "ingest_pipeline").rglob(f"*.{suffix}") if not _is_linked(path)]


def _is_linked(path: Path) -> bool:
    return path.relative_to(_ROOT / "ingest_pipeline").parts[0] in {"assets", "resources"}


def _linked() -> list[Path]:
    return [*(_ROOT / "assets").rglob("*.py"), *(_ROOT / "resources").rglob("*.py")]


def test_each_folder_of_the_package_is_listed() -> None:
    listed = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(_ROOT).as_posix().replace("/", ".") for path in _files("py")}
    assert set(listed) == folders | {"ingest_pipeline.assets", "ingest_pipeline.resources"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(_ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_one_package_at_the_top(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"ingest_pipeline"}


def test_every_module_and_statement_is_inside(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    modules = [f"ingest_pipeline/{path.relative_to(_ROOT).as_posix()}" for path in _linked()]
    modules += [path.relative_to(_ROOT).as_posix() for path in _files("py")]
    assert len(modules) > 140
    assert sorted(set(modules) - inside) == []
    statements = [path.relative_to(_ROOT).as_posix() for path in _files("sql")]
    assert len(statements) >= 2
    assert sorted(set(statements) - inside) == []
    assert "ingest_pipeline/py.typed" in inside


def test_the_wheel_imports_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = (
        "import ingest_pipeline.definitions, ingest_pipeline.assets.ingest as module; "
        "from ingest_pipeline.postgres.sql import migrations, query; assert migrations() and query('lock_generation'); "
        "print(module.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {program}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(str(tmp_path))
