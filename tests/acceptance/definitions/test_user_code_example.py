"""The example with code of the user, copied as a user copies it, through dg, Dagster and the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ingest_pipeline import CorpusConfig, open_corpus
from ingest_pipeline.cli.main import main
from ingest_pipeline.postgres.durability import REQUIRE_FSYNC
from tests.support.dagster.preloaded import preloaded

_ROOT = Path(__file__).parents[3]
_TOOLS = Path(sys.executable).parent
_RUN_JOBS = """
import sys
from pathlib import Path

import dagster as dg

definitions = dg.load_from_defs_folder(path_within_project=Path("user_code").absolute())
with dg.DagsterInstance.ephemeral() as instance:
    for job in sys.argv[1:]:
        assert definitions.resolve_job_def(job).execute_in_process(instance=instance).success
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return Path(shutil.copytree(_ROOT / "examples" / "user_code", tmp_path / "project"))


def environment_of(project: Path) -> dict[str, str]:
    return {
        "PATH": f"{_TOOLS}:{os.environ['PATH']}",
        "PYTHONPATH": f"{project}:{os.environ.get('PYTHONPATH', '')}",
        "HOME": str(project.parent / "home"),
        "DAGSTER_HOME": str(project.parent / "home"),
        "DO_NOT_TRACK": "1",
        REQUIRE_FSYNC: "false",
    }


def run(project: Path, *command: str, **environment: str) -> str:
    """Run a tool of the virtual environment in the project, as from a shell."""
    done = subprocess.run(
        [str(_TOOLS / command[0]), *command[1:]],
        env=preloaded(environment_of(project) | environment),
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def cli(project: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[..., Any]]:
    """The command line in the project, but in this process, which saves the seconds that imports take."""
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))

    def run_command(*arguments: str, **environment: str) -> Any:
        done = CliRunner(env=environment_of(project) | environment).invoke(
            main, [*arguments, "--json"], catch_exceptions=False
        )
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    yield run_command
    for name in [name for name in sys.modules if name.partition(".")[0] == "user_code"]:
        del sys.modules[name]


def test_dg_checks_and_materializes_it_and_a_search_finds_the_mail(project: Path, cli: Callable[..., Any]) -> None:
    assert "All definitions loaded" in run(project, "dg", "check", "defs")
    # Runs in processes of their own use the same folder of state. Dagster's own command takes two processes for a run.
    run(project, "dg", "launch", "--job", "mail_ingest_job")
    run(project, "python", "-c", _RUN_JOBS, "code_ingest_job", "notes_ingest_job")
    mail = {"INGEST_CORPUS": "mail", "INGEST_SOURCE": "documents/mail"}
    own = {"INGEST_PARSER": "user_code.parsers.EmailParser", "INGEST_ENRICHER": "user_code.enrichers.FrontMatter"}
    hits = json.loads(run(project, "ingest-pipeline", "search", "--json", "lift stairs", **mail, **own))
    assert "lift.eml" in {hit["document"] for hit in hits}, hits
    code = {"INGEST_CORPUS": "code", "INGEST_SOURCE": "documents/code", "INGEST_CHUNK_SIZE": "2000"}
    chunker = {"INGEST_CHUNKER": json.dumps({"class": "user_code.chunkers.PythonChunker"})}
    hits = cli("search", "area of a circle", **code, **chunker)
    assert hits[0]["text"].startswith("def circle"), hits
    notes = {"INGEST_CORPUS": "notes", "INGEST_SOURCE": "documents/notes"}
    embedder = {"class": "user_code.embedders.HashedWords", "arguments": {"dimensions": 512}}
    own = {"INGEST_EMBEDDER": json.dumps(embedder)}
    vector = ("--mode", "vector", "tyres of the bicycle")
    hits = cli("search", *vector, **notes, **own)
    assert hits[0]["document"] == "bicycle.md", hits
    own["INGEST_RERANKER"] = "user_code.rerankers.WholeWords"
    hits = cli("search", *vector, **notes, **own)
    assert [hit["rerank_score"] for hit in hits] == [0.75, 0.25], hits
    plan = cli("plan", **code, **chunker)
    assert plan["documents"] == [], plan


def test_the_command_line_ingests_it_and_an_edit_is_found(
    project: Path, cli: Callable[..., Any], database_url: str
) -> None:
    mail = {"INGEST_CORPUS": "mail", "INGEST_DATABASE_URL": database_url}  # the rest is in the project
    done = cli("ingest", **mail)
    assert (done["published"], done["problems"]) == (2, []), done
    letter = project / "documents" / "mail" / "lift.eml"
    letter.write_text(letter.read_text() + "The goods lift in building 9 stays in service.\n")
    done = cli("ingest", **mail)
    assert (done["published"], done["problems"]) == (1, []), done
    hits = cli("search", "goods lift building 9", **mail)
    assert "building 9" in hits[0]["text"], hits
    cli("audit", **mail)


def test_the_enricher_of_chunks_that_its_page_shows_names_their_topics(
    project: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(project))
    config = CorpusConfig(
        corpus="notes",
        source=str(project / "documents" / "notes"),
        state=str(project / "state"),
        database_url=database_url,
        min_age_seconds=0,
        enricher="user_code.topics.Topics",
        chunk_columns={"topic": "string"},
    )
    with open_corpus(config) as corpus:
        assert corpus.ingest().problems == []
        chunks = corpus.at_head().chunks(["document", "topic"]).to_pylist()
        (hit,) = corpus.search("water", where=["topic=Garden"])
    assert {(chunk["document"], chunk["topic"]) for chunk in chunks} == {
        ("bicycle.md", "Bicycle"),
        ("garden.md", "Garden"),
    }
    assert hit.document == "garden.md"


@pytest.mark.parametrize(
    ("page", "sources"),
    [
        ("user_parser.md", ["parsers.py", "defs/mail/defs.yaml"]),
        ("user_chunker.md", ["chunkers.py", "defs/code/defs.yaml"]),
        ("user_enricher.md", ["enrichers.py", "defs/mail/defs.yaml", "topics.py"]),
        ("user_reranker.md", ["rerankers.py"]),
        ("user_embedder.md", ["embedders.py", "defs/notes/defs.yaml"]),
    ],
)
def test_the_pages_show_the_files_of_the_example(page: str, sources: list[str]) -> None:
    text = (_ROOT / "docs" / "how-to" / page).read_text()
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", text, re.DOTALL)
    files = [(_ROOT / "examples" / "user_code" / "user_code" / name).read_text() for name in sources]
    assert len(blocks) == len(files)
    for block, file in zip(blocks, files, strict=True):
        assert block.strip() in file
