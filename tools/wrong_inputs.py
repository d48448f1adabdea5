"""Runs commands with wrong inputs in a folder of their own, for the page that shows what each of them prints.

Each input is run as the page shows it. Only the folder, the address of the database and the endpoint have other names
there.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import textwrap
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import lance
import pyarrow as pa
from click.testing import CliRunner

from ingest_pipeline.cli._execution import execute
from ingest_pipeline.cli._runs import problems_of
from ingest_pipeline.cli.main import main
from ingest_pipeline.config.corpus_config import CorpusConfig
from tests.support.dagster.cli import environment_of
from tests.support.servers.embedding_server import EmbeddingServer, Fault

_FOLDER = "/home/ada/handbook"
_DATABASE = "postgresql://ada:secret@127.0.0.1:5432"
_ENDPOINT = "http://127.0.0.1:8000/v1"
_WIDTH = 100
_TEXT = "Maria approves travel. Train tickets are paid by the company.\n"


@dataclass(frozen=True)
class WrongInput:
    """A command, or a run of Dagster, with something wrong in it."""

    wrong: str
    """What is wrong, as one phrase."""
    line: str
    """The command with the variables before it, or `JOB: CONFIGURATION` for a run that the Launchpad starts."""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """Files that are written before, and removed afterwards."""
    prepare: Callable[[Stage], None] | None = None
    """Does what else is wrong."""
    status: int = 2

    @property
    def is_command(self) -> bool:
        """Whether it is a command. Otherwise it is a run of Dagster."""
        return "ingest-pipeline" in self.line.split()


class Stage:
    """A corpus of two documents in a folder, in which the inputs are given one after the other."""

    def __init__(self, folder: Path, database_url: str, embeddings: EmbeddingServer) -> None:
        self.folder = folder
        self.embeddings = embeddings
        (folder / "source").mkdir(parents=True)
        self.environment = environment_of(folder, database_url, embeddings) | {"COLUMNS": "100"}
        self.environment |= {"INGEST_CORPUS": "handbook"}
        address = urlsplit(database_url)
        self._names = {
            str(folder): _FOLDER,
            str(folder).removeprefix("/"): _FOLDER.removeprefix("/"),
            f"{address.scheme}://{address.netloc}": _DATABASE,
            f"{address.hostname}:{address.port}": urlsplit(_DATABASE).netloc.rpartition("@")[2],
            f"port {address.port}": f"port {urlsplit(_DATABASE).port}",
            embeddings.base_url: _ENDPOINT,
            urlsplit(embeddings.base_url).netloc: urlsplit(_ENDPOINT).netloc,
        }
        self.put("source/travel.md", _TEXT)
        self.put("source/rules/leave.md", "Employees have thirty days of holiday in a year.\n")
        done = self._invoke(["ingest"], {})
        assert not done[0], done[1]

    def put(self, name: str, content: str) -> Path:
        """Write a file of the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def printed(self, one: WrongInput) -> str:
        """The lines that an input prints as an error or a warning, with the names of the page."""
        with ExitStack() as afterwards:
            for name, content in one.files.items():
                path = self.put(name, self._real(content))
                afterwards.callback(path.unlink)
            if one.prepare is not None:
                one.prepare(self)
            if one.is_command:
                words = shlex.split(self._real(one.line))
                variables = dict(word.split("=", 1) for word in words[: words.index("ingest-pipeline")])
                status, text = self._invoke(words[words.index("ingest-pipeline") + 1 :], variables, one.files)
            else:
                status, text = self._launch(one.line)
        assert status == one.status, (one, status, text)
        return self._shown(text)

    def _invoke(
        self, words: Sequence[str], variables: Mapping[str, str], files: Sequence[str] | Mapping[str, str] = ()
    ) -> tuple[int, str]:
        in_project = any(name.endswith((".toml", ".yaml")) for name in files)
        kept = {} if in_project else self.environment
        kept = kept | {name: self.environment[name] for name in _SERVICES}
        with chdir(self.folder), _without_settings():
            runner = CliRunner(env={**kept, **variables})
            done = runner.invoke(main, list(words), prog_name="ingest-pipeline", catch_exceptions=False)
        return done.exit_code, done.stderr

    def _launch(self, line: str) -> tuple[int, str]:
        job, _, configuration = line.partition(": ")
        ops = {job.removesuffix("_job"): {"config": eval(configuration, {"__builtins__": {}})}}  # noqa: S307  it is ours
        with chdir(self.folder), _without_settings():
            os.environ.update(self.environment)
            config = CorpusConfig.from_environment()
            with dg.DagsterInstance.ephemeral() as instance:
                result = execute(config, instance, str(uuid.uuid4()), job, ops)
        return 1 - result.success, "\n".join(problems_of(result))

    def _real(self, text: str) -> str:
        for real, shown in self._names.items():
            text = text.replace(shown, real)
        return text

    def _shown(self, text: str) -> str:
        for real, shown in self._names.items():
            text = text.replace(real, shown)
        return re.sub(r"run [0-9a-f]{8}-[0-9a-f-]{27}", "run 5e1c…", text).strip()


# What a test's services need, in a project too.
_SERVICES = ("INGEST_REQUIRE_FSYNC", "COLUMNS", "OPENAI_BASE_URL")


@contextmanager
def _without_settings() -> Generator[None]:
    """Remove the settings of this process for the block."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("INGEST_", "OPENAI_")):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _refuse_the_key(stage: Stage) -> None:
    stage.embeddings.fail_next(Fault.UNAUTHORIZED)


def _exhaust_the_quota(stage: Stage) -> None:
    stage.embeddings.fail_next(Fault.QUOTA)


def _write_a_foreign_table(stage: Stage) -> None:
    lance.write_dataset(pa.table({"x": [1]}), f"{stage.folder}/state/lancedb/taken.lance")


def _write_what_is_no_text(stage: Stage) -> None:
    (stage.folder / "source/photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (stage.folder / "source/menu.txt").write_bytes("Caf\xe9 au lait".encode("latin-1"))
    (stage.folder / "source/report.pdf").write_bytes(b"%PDF-1.7 and then nothing")


def _remove_what_is_no_text(stage: Stage) -> None:
    for name in ("photo.png", "menu.txt", "report.pdf"):
        (stage.folder / "source" / name).unlink()
    (stage.folder / "empty").mkdir()


def _lose_the_table(stage: Stage) -> None:
    shutil.rmtree(stage.folder / "state/lancedb/handbook.lance")


_TOML = '[corpora.handbook]\nsource = "source"\nembedding_model = "test-embedding"\nembedding_dimensions = 32\n'
_DG = '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "books"\n'
_COMPONENT = "type: ingest_pipeline.IngestPipelineComponent\nattributes:\n  corpus: handbook\n"


def _toml(wrong: str, line: str, content: str, command: str = "plan", status: int = 2) -> WrongInput:
    """A configuration file that is wrong."""
    files = {"ingest-pipeline.toml": content}
    return WrongInput(f"{wrong}: `{line}`", f"ingest-pipeline {command}", files, status=status)


def _yaml(wrong: str, line: str, content: str) -> WrongInput:
    """A component that is wrong."""
    files = {"pyproject.toml": _DG, "books/defs/handbook/defs.yaml": _COMPONENT + content}
    return WrongInput(wrong + (f": `{line}`" if line else ""), "ingest-pipeline plan", files)


INPUTS: Mapping[str, Sequence[WrongInput]] = {
    "Command line": [
        WrongInput("a command with a typing error", "ingest-pipeline serch holiday"),
        WrongInput("an option that is out of range", "ingest-pipeline search holiday --limit 0"),
        WrongInput("an empty question", "ingest-pipeline search ' '"),
        WrongInput("a column that does not exist", "ingest-pipeline search holiday --where colour=red"),
        WrongInput("a document that does not exist", "ingest-pipeline ingest nope.md"),
        WrongInput("a folder instead of a document", "ingest-pipeline ingest rules"),
        WrongInput("a path instead of a key", f"ingest-pipeline ingest {_FOLDER}/source/travel.md"),
        WrongInput("a document that never was", "ingest-pipeline history nope.md"),
        WrongInput("a version that was never published", "ingest-pipeline rollback --to 77"),
        WrongInput("a retry of a document that did not fail", "ingest-pipeline retry travel.md"),
        WrongInput("no golden set", "ingest-pipeline eval"),
        WrongInput("a golden set that does not exist", "ingest-pipeline eval --golden-set golden.jsonl"),
        WrongInput("another name as the confirmation", "ingest-pipeline drop handbook --yes-delete handbok"),
        WrongInput(
            "a move to a folder without the table",
            "ingest-pipeline relocate --table elsewhere",
            status=1,
        ),
    ],
    "Environment": [
        WrongInput("a variable that does not exist", "INGEST_CHUNKSIZE=500 ingest-pipeline plan"),
        WrongInput("a number that is none", "INGEST_CHUNK_SIZE=1k ingest-pipeline plan"),
        WrongInput("a size out of range", "INGEST_CHUNK_SIZE=5 ingest-pipeline plan"),
        WrongInput("an overlap as large as the chunk", "INGEST_CHUNK_OVERLAP=1000 ingest-pipeline plan"),
        WrongInput("a corpus that does not exist", "INGEST_CORPUS=handbok ingest-pipeline status"),
        WrongInput("a name with a space", "INGEST_CORPUS='My Handbook' ingest-pipeline plan"),
        WrongInput("an unknown partition scheme", "INGEST_PARTITION_BY=shelf ingest-pipeline plan"),
        WrongInput("a price without a currency", "INGEST_EMBEDDING_PRICES=cheap ingest-pipeline plan"),
        WrongInput(
            "another chunk size than that of the corpus",
            "INGEST_CHUNK_SIZE=500 ingest-pipeline ingest",
        ),
    ],
    "Configuration file": [
        _toml("a syntax error", "chunk_size = ", _TOML + "chunk_size = \n"),
        _toml("an option that does not exist", "chunk_sise = 500", _TOML + "chunk_sise = 500\n"),
        _toml("a value of the wrong type", 'chunk_size = "many"', _TOML + 'chunk_size = "many"\n'),
        _toml(
            "a variable that is not set",
            'database_url = "{{ env.HANDBOOK_DB }}"',
            _TOML + 'database_url = "{{ env.HANDBOOK_DB }}"\n',
        ),
        _toml("several corpora, and no choice", "[corpora.library]", _TOML + '[corpora.library]\nsource = "library"\n'),
        _toml("a corpus that it does not have", "--corpus library", _TOML, "plan --corpus library"),
    ],
    "Component": [
        _yaml("no source", "", ""),
        _yaml("an attribute that does not exist", "chunk_sise: 500", "  source: source\n  chunk_sise: 500\n"),
        _yaml("a value that is none", "follow_links: perhaps", "  source: source\n  follow_links: perhaps\n"),
    ],
    "Source": [
        WrongInput("a folder that does not exist", "INGEST_SOURCE=documnets ingest-pipeline plan"),
        WrongInput("an unknown kind of address", "INGEST_SOURCE=ftp://host/handbook ingest-pipeline plan"),
        WrongInput(
            "files that are no text, or damaged",
            "INGEST_ON_UNREADABLE=fail ingest-pipeline ingest",
            prepare=_write_what_is_no_text,
            status=1,
        ),
        WrongInput(
            "a folder without files, for a new corpus",
            "INGEST_SOURCE=empty INGEST_CORPUS=new ingest-pipeline plan",
            prepare=_remove_what_is_no_text,
            status=0,
        ),
        WrongInput("a folder without files, for this corpus", "INGEST_SOURCE=empty ingest-pipeline plan"),
    ],
    "Your own code": [
        WrongInput("a module that does not exist", "INGEST_PARSER=library.Parser ingest-pipeline plan"),
        WrongInput("a name that the module lacks", "INGEST_CHUNKER=json.Chunker ingest-pipeline plan"),
        WrongInput("something else than a chunker", "INGEST_CHUNKER=json.dumps ingest-pipeline plan"),
    ],
    "Database": [
        WrongInput(
            "no server at the address",
            "INGEST_DATABASE_URL=postgresql://ada:secret@127.0.0.1:1/catalog ingest-pipeline status",
            status=1,
        ),
        WrongInput(
            "a database that does not exist",
            f"INGEST_DATABASE_URL={_DATABASE}/catalogue ingest-pipeline status",
            status=1,
        ),
        WrongInput("another database system", "INGEST_DATABASE_URL=sqlite:///x.db ingest-pipeline plan"),
        WrongInput(
            "a port that is no number",
            "INGEST_DATABASE_URL=postgresql://ada:secret@db:port/catalog ingest-pipeline plan",
        ),
    ],
    "Embedding API": [
        WrongInput("no address", "OPENAI_BASE_URL=127.0.0.1:8000 ingest-pipeline plan"),
        WrongInput(
            "a key that the API refuses",
            "ingest-pipeline search holiday --mode vector",
            prepare=_refuse_the_key,
        ),
        WrongInput(
            "a quota that is exhausted",
            "ingest-pipeline search holiday --mode vector",
            prepare=_exhaust_the_quota,
        ),
    ],
    "Dagster": [
        WrongInput("a version that was never published", 'handbook_rollback_job: {"version": 77}', status=1),
        WrongInput("a partition that does not exist", 'handbook_ingest_job: {"partitions": ["nope.md"]}', status=1),
    ],
    "Store": [
        WrongInput("an unknown kind of address", "INGEST_LANCEDB_URI=ftp://host/t ingest-pipeline plan"),
        WrongInput("another folder than that of the corpus", "INGEST_LANCEDB_URI=other ingest-pipeline plan"),
        WrongInput(
            "a table that another program made",
            "INGEST_CORPUS=taken ingest-pipeline ingest",
            prepare=_write_a_foreign_table,
        ),
        WrongInput(
            "a table that was deleted",
            "ingest-pipeline search holiday --mode vector",
            prepare=_lose_the_table,
            status=1,
        ),
    ],
}
"""The inputs, by the place where the user gives them."""


def page(stage: Stage) -> str:
    """All inputs, by the place where they are given, with what each prints."""
    parts: list[str] = []
    number = count(1)
    for door, inputs in INPUTS.items():
        parts.append(f"## {door}")
        for one in inputs:
            printed = "\n".join(_folded(line) for line in stage.printed(one).splitlines())
            shown = f"{'$ ' if one.is_command else ''}{one.line}\n{printed}"
            parts += [f"**{next(number)}. {one.wrong[:1].upper()}{one.wrong[1:]}**", f"```text\n{shown}\n```"]
    return "\n\n".join(parts)


def _folded(line: str) -> str:
    return textwrap.fill(line, _WIDTH, break_long_words=False, break_on_hyphens=False)
