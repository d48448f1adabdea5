"""The command line in a project: it works on the corpora that the project defines, as the project defines them."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from textwrap import dedent

import psycopg
import pytest
from click.testing import CliRunner, Result

from ingest_pipeline import CorpusConfig
from ingest_pipeline.cli.main import main
from ingest_pipeline.config.project import find_project
from ingest_pipeline.postgres.durability import REQUIRE_FSYNC
from tests.support.dagster.cli import Cli
from tests.support.servers.embedding_server import TEST_MODEL, EmbeddingServer
from tests.support.world import paragraphs

_DG = """
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "books"
"""


class ProjectCli:
    """The command line in a folder of a project. No variable `INGEST_*` is set unless a test sets it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, database_url: str, server: EmbeddingServer) -> None:
        self.root = root
        self._monkeypatch = monkeypatch
        self.database_url = database_url
        self.server = server

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    def component(self, folder: str, *, corpus: str = "handbook", more: str = "", database: str = "") -> Path:
        """A corpus with small chunks, whose source is the folder of its name."""
        self.write(f"{corpus}/a.txt", paragraphs(corpus, 3))
        database = database or "{{ env.BOOKS_DATABASE_URL }}"
        return self.write(
            f"books/defs/{folder}/defs.yaml",
            f"""\
            type: ingest_pipeline.IngestPipelineComponent

            attributes:
              corpus: {corpus}
              source: {corpus}
              chunk_size: 200
              min_age_seconds: 0
              database_url: "{database}"
              embedding_model: {TEST_MODEL}
              embedding_dimensions: {self.server.dimensions}
              owners: ["team:people"]
              embedding_base_url: {self.server.base_url}
              {more}
            """,
        )

    def run(self, *arguments: str, folder: str = ".", **environment: str) -> Result:
        with self._monkeypatch.context() as patch:
            patch.chdir(self.root / folder)
            for name in [name for name in os.environ if name.startswith(("INGEST_", "OPENAI_"))]:
                patch.delenv(name)
            patch.setenv(REQUIRE_FSYNC, "false")
            patch.setenv("BOOKS_DATABASE_URL", self.database_url)
            return CliRunner(env=environment).invoke(main, list(arguments), catch_exceptions=False)

    def error(self, *arguments: str, folder: str = ".", **environment: str) -> str:
        """The one line of a command that refuses what the user wrote."""
        done = self.run(*arguments, folder=folder, **environment)
        assert done.exit_code == 2, (done.stdout, done.stderr)
        (line,) = done.stderr.splitlines()
        return line


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str, embeddings: EmbeddingServer
) -> ProjectCli:
    root = tmp_path / "shop"
    root.mkdir()
    (root / "pyproject.toml").write_text(_DG)
    (root / "books" / "defs").mkdir(parents=True)
    return ProjectCli(root, monkeypatch, database_url, embeddings)


def test_the_only_corpus_of_a_project_is_chosen_by_itself(project: ProjectCli) -> None:
    project.component("handbook")
    done = project.run("ingest")
    assert done.exit_code == 0, done.stderr
    status = project.run("status", "--json", folder="books/defs")
    assert status.exit_code == 0, status.stderr
    assert '"corpus": "handbook"' in status.stdout
    assert '"chunk_size": 200' in status.stdout
    assert (project.root / ".ingest_pipeline" / "lancedb" / "handbook.lance").is_dir()


@pytest.mark.promise("recipe-guard")
def test_of_several_corpora_the_user_chooses_one(project: ProjectCli) -> None:
    project.component("handbook")
    project.component("library", corpus="library")
    assert "defines several corpora: handbook, library. Choose one with --corpus NAME." in project.error("plan")
    for chosen in (
        project.run("plan", "--corpus", "library", "--json"),
        project.run("plan", "--json", INGEST_CORPUS="library"),
        project.run("plan", "--corpus", "library", "--json", INGEST_CORPUS="handbook"),
    ):
        assert chosen.exit_code == 0, chosen.stderr
        assert '"document": "a.txt"' in chosen.stdout
    line = project.error("plan", INGEST_CORPUS="handbok")
    assert "defines no corpus 'handbok'. It defines handbook, library." in line


@pytest.mark.promise("prefixes")
def test_two_corpora_of_one_name_are_chosen_by_their_prefix(
    project: ProjectCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.component("law", corpus="handbook", more="key_prefix: law")
    project.component("people", corpus="handbook", more="key_prefix: [people, de]")
    assert "several corpora 'handbook': law/handbook, people/de/handbook" in project.error(
        "plan", "--corpus", "handbook"
    )
    monkeypatch.setenv("BOOKS_DATABASE_URL", project.database_url)
    found = find_project(project.root)
    assert found is not None
    chosen = found.configured("people/de/handbook", {"INGEST_KEY_PREFIX": "law"})
    assert chosen.config.key_prefix_parts == ("people", "de")


@pytest.mark.promise("recipe-guard")
def test_two_definitions_of_one_corpus_are_refused(project: ProjectCli) -> None:
    first, second = project.component("handbook"), project.component("other")
    assert f"{first} and {second} both define the corpus 'handbook'" in project.error("plan")


@pytest.mark.promise("recipe-guard")
def test_a_corpus_of_another_recipe_than_its_definition_is_not_written(
    project: ProjectCli, tmp_path: Path, embeddings: EmbeddingServer
) -> None:
    project.component("handbook")
    done = project.run("ingest")
    assert done.exit_code == 0, done.stderr
    bare = {
        "INGEST_CORPUS": "handbook",
        "INGEST_SOURCE": str(project.root / "handbook"),
        "INGEST_STATE": str(project.root / ".ingest_pipeline"),
        "INGEST_EMBEDDING_MODEL": TEST_MODEL,
        "INGEST_EMBEDDING_DIMENSIONS": str(embeddings.dimensions),
        "OPENAI_BASE_URL": embeddings.base_url,
        "INGEST_DATABASE_URL": project.database_url,
    }
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    head = project.run("history", "--json").stdout
    for arguments in (["ingest"], ["ingest", "a.txt"], ["batch"]):
        line = project.error(*arguments, folder="../elsewhere", **bare)
        assert "another recipe than corpus 'handbook': INGEST_CHUNK_SIZE (chunk_size) from 200 to 1000." in line
        assert "Nothing was changed" in line
    assert project.run("history", "--json").stdout == head
    # Commands that read are not concerned.
    assert project.run("status", folder="../elsewhere", **bare).exit_code == 0
    # In the project, a variable is refused too: runs of the project would cut the documents again.
    line = project.error("ingest", INGEST_CHUNK_SIZE="300")
    assert f"{project.root}/books/defs/handbook/defs.yaml says for corpus 'handbook'" in line
    assert project.run("history", "--json").stdout == head
    confirmed = project.run("ingest", "--confirm-recipe", folder="../elsewhere", **bare)
    assert confirmed.exit_code == 0, confirmed.stderr
    assert project.run("history", "--json").stdout != head


def test_a_changed_definition_is_no_other_recipe(project: ProjectCli) -> None:
    file = project.component("handbook")
    done = project.run("ingest")
    assert done.exit_code == 0, done.stderr
    file.write_text(file.read_text().replace("chunk_size: 200", "chunk_size: 300"))
    done = project.run("ingest")
    assert done.exit_code == 0, done.stderr
    assert "1 document published" in done.stdout


def test_flags_precede_variables_and_variables_the_file(project: ProjectCli, tmp_path: Path) -> None:
    project.component("handbook", more="include: ['*.md']")
    assert '"documents": []' in project.run("plan", "--json").stdout
    assert '"document": "a.txt"' in project.run("plan", "--json", INGEST_INCLUDE="*.txt").stdout
    (tmp_path / "shop" / ".env").write_text("INGEST_INCLUDE=*.txt\n")
    assert '"document": "a.txt"' in project.run("plan", "--json").stdout


def test_errors_name_the_setting_that_was_used(project: ProjectCli) -> None:
    project.component("handbook", database="{{ env.NO_SUCH_URL }}")
    file = project.root / "books/defs/handbook/defs.yaml"
    assert f"{file}: database_url names the variable NO_SUCH_URL, which is not set" in project.error("status")
    done = project.run("status", NO_SUCH_URL="postgresql://me:secret@127.0.0.1:1/db")
    assert done.exit_code == 1
    assert "NO_SUCH_URL is correct" in done.stderr
    assert "INGEST_DATABASE_URL" not in done.stderr
    # The variable overrides the definition, so the error names the variable.
    done = project.run("status", INGEST_DATABASE_URL="postgresql://me:secret@127.0.0.1:1/db", NO_SUCH_URL="x")
    assert "INGEST_DATABASE_URL is correct" in done.stderr
    line = project.error("status", NO_SUCH_URL="sqlite:///x")
    assert line == f"Error: {file}: NO_SUCH_URL must begin with postgresql://. Correct NO_SUCH_URL."
    file.write_text(file.read_text().replace("chunk_size: 200", "chunk_size: 2"))
    line = project.error("status", NO_SUCH_URL="postgresql://me@127.0.0.1:1/db")
    assert f"{file}: A chunk size of 2 is out of bounds. Set `chunk_size` between 50" in line
    assert "INGEST_" not in line


def test_a_misspelt_attribute_is_refused_and_those_of_dagster_are_not(project: ProjectCli) -> None:
    file = project.component("handbook", more="chunk_sise: 300")
    line = project.error("status")
    assert line == (f"Error: {file}: there is no attribute 'chunk_sise'. Did you mean chunk_size? Nothing was changed.")
    from ingest_pipeline import DagsterOptions  # noqa: PLC0415  imports Dagster

    own = [name for name in DagsterOptions.model_fields if name not in CorpusConfig.model_fields]
    assert [name for name in own if get_close_matches(name, CorpusConfig.model_fields, cutoff=0.9)] == []


def test_a_template_that_only_dagster_resolves_is_named(project: ProjectCli) -> None:
    file = project.component("handbook", more='encoding: "{{ favourite_encoding }}"')
    assert f"{file}: encoding contains the template 'favourite_encoding'" in project.error("plan")
    assert project.run("plan", INGEST_ENCODING="cp1252").exit_code == 0


def test_a_configuration_file_defines_corpora(project: ProjectCli, embeddings: EmbeddingServer) -> None:
    (project.root / "pyproject.toml").unlink()
    project.write("files/a.txt", paragraphs("alpha", 2))
    project.write(
        "ingest-pipeline.toml",
        f"""\
        [corpora.letters]
        source = "files"
        min_age_seconds = 0
        database_url = "{{{{ env('BOOKS_DATABASE_URL') }}}}"
        embedding_model = "{TEST_MODEL}"
        embedding_dimensions = {embeddings.dimensions}
        """,
    )
    done = project.run("ingest", folder="files", OPENAI_BASE_URL=embeddings.base_url)
    assert done.exit_code == 0, done.stderr
    assert '"corpus": "letters"' in project.run("status", "--json").stdout
    project.write("ingest-pipeline.toml", "[corpora.letters]\nsourse = 'files'\n")
    unknown = f"{project.root}/ingest-pipeline.toml: corpora.letters has no option"
    assert f"{unknown} 'sourse'. Did you mean source?" in project.error("status")
    project.write("ingest-pipeline.toml", "[corpora.letters]\nzzz = 1\n")
    assert f"{unknown} 'zzz'. Correct its name." in project.error("status")
    project.write("ingest-pipeline.toml", "[corpora.letters\n")
    assert f"{project.root}/ingest-pipeline.toml is malformed" in project.error("status")


def test_a_corpus_that_python_defines_is_named_by_the_configuration_file(project: ProjectCli) -> None:
    project.write(
        "books/corpora.py",
        """\
        from ingest_pipeline import CorpusConfig

        ATLAS = CorpusConfig(corpus="atlas", source="/nowhere", chunk_size=333)
        """,
    )
    project.write("books/__init__.py", "")
    settings = "[tool.ingest-pipeline]\npython = ['books.corpora:ATLAS']\n"
    (project.root / "pyproject.toml").write_text(_DG + settings)
    line = project.error("plan", INGEST_DATABASE_URL=project.database_url)
    assert "'/nowhere' does not exist. Create it, or set `source`." in line
    (project.root / "pyproject.toml").write_text(_DG + settings.replace("ATLAS", "MAP"))
    assert "'books.corpora:MAP' in `python` cannot be imported" in project.error("plan")


def test_without_a_project_the_environment_is_the_configuration(cli: Cli) -> None:
    cli.put("a.txt", paragraphs("alpha", 2))
    assert cli.run("ingest", "--corpus", "other").exit_code == 0
    assert cli.json("status", "--corpus", "other")["corpus"] == "other"


def test_in_a_workspace_the_only_project_with_corpora_is_chosen_and_several_are_named(
    project: ProjectCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.component("handbook")
    (tmp_path / "dg.toml").write_text(
        'directory_type = "workspace"\n[[workspace.projects]]\npath = "shop"\n[[workspace.projects]]\npath = "farm"\n'
    )
    farm = ProjectCli(tmp_path / "farm", monkeypatch, project.database_url, project.server)
    farm.write("pyproject.toml", _DG)
    farm.write("books/defs/nothing.yaml", "")
    assert '"document": "a.txt"' in project.run("plan", "--json", folder="..").stdout
    farm.component("recipes", corpus="recipes")
    line = project.error("plan", folder="..")
    assert f"{tmp_path} is a workspace of dg, and several of its projects define corpora: " in line
    assert f"{tmp_path}/shop, {tmp_path}/farm. Run the command in the folder of one of these projects." in line
    assert '"document": "a.txt"' in farm.run("plan", "--json").stdout


def test_a_run_of_the_command_line_has_the_lineage_of_the_files_that_its_component_names(project: ProjectCli) -> None:
    project.component("handbook", more="upstream: [raw/files]")
    done = project.run("ingest")
    assert done.exit_code == 0, done.stderr
    with psycopg.connect(project.database_url) as connection:
        events = connection.execute(
            "SELECT event FROM ingest_pipeline_dagster.event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION' "
            'AND asset_key = \'["handbook", "chunks"]\''
        ).fetchall()
    assert [("raw" in event and "dagster/column_lineage" in event) for (event,) in events] == [True]
