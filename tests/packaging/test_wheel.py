"""The distributions: what is inside of them, what their version is, and what users' tools make of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.support.dagster.preloaded import preloaded

_ROOT = Path(__file__).parents[2]
_NOT_SOURCES = {".git", ".venv", ".ingest_pipeline", "build", "dist", "site", "documents", "__pycache__"}
_GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_{what}": "tests@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def _files(suffix: str) -> list[Path]:
    return [path for path in (_ROOT / "ingest_pipeline").rglob(f"*.{suffix}") if not _is_linked(path)]


def _is_linked(path: Path) -> bool:
    return path.relative_to(_ROOT / "ingest_pipeline").parts[0] in {"assets", "resources"}


def _linked() -> list[Path]:
    return [*(_ROOT / "assets").rglob("*.py"), *(_ROOT / "resources").rglob("*.py")]


def _sources() -> Iterator[str]:
    """The files of the repository: what git tracks or would track, or all there is in a source distribution."""
    if (_ROOT / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        yield from (name for name in names if (_ROOT / name).is_file())
        return
    for path in _ROOT.rglob("*"):
        parts = path.relative_to(_ROOT).parts
        if path.is_file() and not _NOT_SOURCES.intersection(parts) and not parts[0].endswith(".egg-info"):
            yield "/".join(parts)


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, env={**os.environ, **_GIT}, capture_output=True, check=True)


@dataclass(frozen=True)
class Distributions:
    """A release of a copy of the repository: the wheel was built from the source distribution."""

    repository: Path
    sdist: Path
    wheel: Path

    @property
    def names_in_sdist(self) -> set[str]:
        with tarfile.open(self.sdist) as archive:
            return {name.partition("/")[2] for name in archive.getnames()}

    @property
    def names_in_wheel(self) -> set[str]:
        return set(zipfile.ZipFile(self.wheel).namelist())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    repository, out = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("dist")
    for name in _sources():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_ROOT / name, repository / name)
    _git(repository, "init", "--quiet")
    _git(repository, "add", "--all")
    _git(repository, "commit", "--quiet", "--message", "All")
    _git(repository, "tag", "v1.2.3")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(repository)]
    done = subprocess.run(command, env={**os.environ, **_GIT}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return Distributions(repository, sdist, wheel)


@pytest.fixture(scope="module")
def site(built: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(built.wheel).extractall(folder)
    return folder


def test_each_folder_of_the_package_is_listed() -> None:
    listed = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(_ROOT).as_posix().replace("/", ".") for path in _files("py")}
    linked = {path.parent.relative_to(_ROOT).as_posix().replace("/", ".") for path in _linked()}
    assert len(linked) > 1
    assert set(listed) == folders | {f"ingest_pipeline.{folder}" for folder in linked}


def test_one_package_at_the_top(built: Distributions) -> None:
    names = built.names_in_wheel
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"ingest_pipeline"}


def test_every_module_and_statement_is_inside_and_nothing_else(built: Distributions) -> None:
    modules = [f"ingest_pipeline/{path.relative_to(_ROOT).as_posix()}" for path in _linked()]
    modules += [path.relative_to(_ROOT).as_posix() for path in _files("py")]
    statements = [path.relative_to(_ROOT).as_posix() for path in _files("sql")]
    assert len(modules) > 140
    assert len(statements) >= 2
    inside = {name for name in built.names_in_wheel if ".dist-info/" not in name}
    assert inside == {*modules, *statements, "ingest_pipeline/py.typed"}


def test_the_source_distribution_has_every_file_of_the_repository(built: Distributions) -> None:
    names = built.names_in_sdist
    assert sorted(set(_sources()) - names) == []
    made = {"", "PKG-INFO", "setup.cfg", *(name for name in names if name.startswith("ingest_pipeline.egg-info"))}
    folders = {str(parent) for name in names for parent in Path(name).parents}
    assert sorted(names - set(_sources()) - made - folders) == []


def test_both_have_the_licence_and_the_version_of_the_tag(built: Distributions) -> None:
    licence = (_ROOT / "LICENSE").read_bytes()
    wheel = zipfile.ZipFile(built.wheel)
    assert wheel.read("ingest_pipeline-1.2.3.dist-info/licenses/LICENSE") == licence
    metadata = message_from_bytes(wheel.read("ingest_pipeline-1.2.3.dist-info/METADATA"))
    assert (metadata["Version"], metadata["License-Expression"]) == ("1.2.3", "Apache-2.0")
    with tarfile.open(built.sdist) as archive:
        held = archive.extractfile("ingest_pipeline-1.2.3/LICENSE")
        assert held is not None
        assert held.read() == licence


def test_twine_accepts_both(built: Distributions) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", str(built.sdist), str(built.wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_imports_without_the_repository(site: Path, tmp_path: Path) -> None:
    program = f"""
import dagster, sys
for name in [name for name in sys.modules if name.partition(".")[0] == "ingest_pipeline"]:
    del sys.modules[name]
sys.path.insert(0, {str(site)!r})
import ingest_pipeline.definitions, ingest_pipeline.assets.ingest as module
from ingest_pipeline.postgres.sql import migrations, query
assert migrations() and query("lock_generation")
print(*{{module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "ingest_pipeline"}})
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=preloaded(os.environ),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(files := done.stdout.split()) > 100
    assert [file for file in files if not file.startswith(f"{site}/")] == []


def test_importing_the_package_imports_nothing_but_itself_and_the_standard_library(site: Path, tmp_path: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(site)!r}); before = set(sys.modules); import ingest_pipeline; "
    program += "print(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    names = set(done.stdout.split())
    assert {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names} == {"ingest_pipeline"}
    assert len(names) <= 10


def version_of(folder: Path, **environment: str) -> str:
    command = [sys.executable, "-m", "setuptools_scm", "--root", ".", "--config", "pyproject.toml"]
    variables = {**os.environ, **_GIT, **environment}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_version_is_found_wherever_the_files_are(built: Distributions, tmp_path: Path) -> None:
    repository, clone, shallow = built.repository, tmp_path / "clone", tmp_path / "shallow"
    assert version_of(repository) == "1.2.3"
    _git(tmp_path, "clone", "--quiet", "--no-tags", str(repository), str(clone))
    without_tags = version_of(clone)
    assert without_tags.startswith("0.1.0.dev1+g")
    _git(tmp_path, "clone", "--quiet", "--no-tags", "--depth", "1", repository.as_uri(), str(shallow))
    assert version_of(shallow) == without_tags
    _git(repository, "commit", "--quiet", "--allow-empty", "--message", "More")
    assert version_of(repository).startswith("1.2.4.dev1+g")
    assert version_of(clone, PATH="/nowhere") == "0.1.0.dev0"
    shutil.rmtree(clone / ".git")
    assert version_of(clone) == "0.1.0.dev0"
    with tarfile.open(built.sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python has it since 3.11.4
        archive.extractall(tmp_path)
    assert version_of(tmp_path / "ingest_pipeline-1.2.3") == "1.2.3"


_PROGRAM = """\
from collections.abc import Mapping
from pathlib import Path
from typing import assert_type

import dagster as dg

import ingest_pipeline
from ingest_pipeline import CorpusAtHead, CorpusConfig, DagsterOptions, OpenCorpus, errors
from ingest_pipeline import corpus_definitions, open_corpus


def ingest(source: Path, state: Path) -> Mapping[str, float]:
    config = CorpusConfig(corpus="docs", source=str(source), state=str(state))
    assert_type(config.corpus, str)
    with open_corpus(config) as corpus:
        assert_type(corpus, OpenCorpus)
        try:
            outcome = corpus.ingest()
        except errors.IngestError as error:
            raise SystemExit(error.message) from error
        assert_type(outcome.published, int)
        return {hit.document: hit.score for hit in corpus.search("holiday", limit=3)}


def definitions(config: CorpusConfig) -> dg.Definitions:
    built = corpus_definitions(config, options=DagsterOptions(group="texts"))
    assert_type(built, dg.Definitions)
    return built


@dg.asset
def report(docs: CorpusAtHead) -> int:
    assert_type(docs, CorpusAtHead)
    return 1


"""


@pytest.fixture
def user(site: Path, tmp_path: Path) -> Path:
    """The folder of a user with a program, and with an environment in which the wheel and its dependencies are."""
    import ingest_pipeline  # noqa: PLC0415  so that the files above can be tested without

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (packages,) = tmp_path.glob("venv/lib/python3*/site-packages")
    here = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "paths.pth").write_text(f"{site}\n{here}\n")
    names = [f"name_{name} = ingest_pipeline.{name}\n" for name in ingest_pipeline.__all__]
    (tmp_path / "program.py").write_text(_PROGRAM + "".join(names))
    return tmp_path


def checked(user: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=user, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_pyright_knows_the_types_of_the_public_names(user: Path) -> None:
    (user / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "venvPath": ".", "venv": "venv"}')
    (user / "wrong.py").write_text("import ingest_pipeline\n\ningest_pipeline.Usage().tokens.lower()\n")
    said = checked(user, "pyright", "program.py", "wrong.py")
    assert 'Cannot access attribute "lower" for class "int"' in said, said
    assert "/program.py" not in said, said


@pytest.mark.soak
def test_mypy_knows_the_types_of_the_public_names(user: Path) -> None:
    command = ["mypy", "--strict", "--python-executable", "venv/bin/python", "program.py"]
    assert "Success: no issues found in 1 source file" in checked(user, *command)
