"""The code in the documents works: programs are run, settings are loaded, commands and their options exist.

``text`` is the output of programs and is not run. The pages on compositions and on code of the user show files of the
examples, which tests of their own compare and run.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import psycopg
import pytest
import yaml
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from ingest_pipeline import CorpusConfig
from ingest_pipeline.cli.main import main as program
from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
from ingest_pipeline.telemetry import spans

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "deploy" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Pages whose programs are files of an example, or are run by another test: tests/soak/frameworks has the last two.
_TESTED_ELSEWHERE = {
    "compose.md",
    "search.md",
    "user_chunker.md",
    "user_embedder.md",
    "user_enricher.md",
    "user_parser.md",
    "user_reranker.md",
    "duckdb_polars.md",
    "llamaindex.md",
}
# Programs of others that the documents call. Their lines are not run here.
_OTHERS = {
    "aws",
    "cd",
    "cp",
    "create-dagster",
    "curl",
    "dagster-celery",
    "dg",
    "echo",
    "export",
    "git",
    "mkdir",
    "opentelemetry-instrument",
    "pip",
    "psql",
    "source",
}


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text()
        for found in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
            lines = [line.removeprefix(found[1]) for line in found[3].splitlines(keepends=True)]
            yield Block(page, text.count("\n", 0, found.start()) + 1, found[2], "".join(lines))


BLOCKS = list(_blocks())


def _of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def test_each_block_has_a_language_that_is_checked() -> None:
    assert len(BLOCKS) >= 80
    languages = {"json", "mermaid", "python", "sh", "sql", "text", "toml", "yaml"}
    assert [str(block) for block in BLOCKS if block.language not in languages] == []


@pytest.mark.parametrize("block", _of("sh"), ids=str)
def test_each_command_exists_with_its_options(block: Block) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in re.sub(r"\\\n", " ", block.text).splitlines():
        for command in re.split(r" && | \| ", line):
            words = shlex.split(command, comments=True)
            while words and re.fullmatch(r"\w+=.*", words[0]):
                del words[0]
            if not words:
                continue
            name = words[0].removeprefix(".venv/bin/")
            if name == "ingest-pipeline":
                _parse(words[1:])
            elif name == "make":
                assert {word for word in words[1:] if "=" not in word} <= targets, line
            else:
                assert name in _OTHERS, line


def _parse(words: list[str]) -> None:
    """Parse a command's arguments and options without running it."""
    with click.Context(program, info_name="ingest-pipeline") as context:
        command = program.get_command(context, words[0])
        assert command is not None, words
        command.make_context(words[0], words[1:], parent=context)


@pytest.mark.parametrize("block", _of("yaml"), ids=str)
def test_each_yaml_is_valid(block: Block) -> None:
    value: object = yaml.safe_load(block.text)
    if not isinstance(value, dict):
        assert isinstance(value, list)
        return
    found = cast("dict[str, Any]", value)
    attributes: dict[str, Any] = found.get("attributes", found)
    if found.keys() & {"type", "attributes"} or set(found) <= CorpusConfig.model_fields.keys():
        if block.page.name not in _TESTED_ELSEWHERE:
            _check_options(attributes)
    else:
        assert found.keys() <= {"run_launcher", "load_from", "post_processing"}, str(block)


def _check_options(attributes: dict[str, Any]) -> None:
    """Check the options of a corpus, or a part of them, with the variables of the example resolved."""
    from ingest_pipeline import DagsterOptions  # noqa: PLC0415  imports Dagster

    options = {name: value for name, value in attributes.items() if name not in DagsterOptions.model_fields}
    options = {"corpus": "handbook", "source": "documents"} | options
    templates = {
        name: value for name, value in options.items() if isinstance(value, str) and value.lstrip().startswith("{{")
    }
    for name, value in templates.items():
        default = re.search(r"'([^']*)'\s*\)", value)
        options[name] = default[1] if default else None
    CorpusConfig.model_validate(options)


@pytest.mark.parametrize("block", _of("toml"), ids=str)
def test_each_configuration_file_is_valid(block: Block) -> None:
    for options in tomllib.loads(block.text)["corpora"].values():
        _check_options(options)


@pytest.mark.parametrize("block", _of("json"), ids=str)
def test_each_json_is_valid(block: Block) -> None:
    assert isinstance(json.loads(block.text), dict)


class Sandbox:
    """A folder with documents, in which the programs of the pages run as they are printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = EmbeddedPostgres(folder / ".ingest_pipeline" / "postgres")
        documents = folder / "documents"
        documents.mkdir()
        (documents / "travel.md").write_text("# Travel\n\nMaria approves travel. Expense reports go to Ada.\n")
        (documents / "travel.md.metadata.json").write_text('{"readers": ["hr"]}')
        (documents / "letters.md").write_text("# Letters\n\nThe letters of a former employee.\n")
        (documents / "leave.md").write_text("# Leave\n\nThe notice period is three months.\n")
        (documents / "leave.md.metadata.json").write_text('{"readers": ["hr", "bob"]}')

    def run(self, source: str, **names: object) -> dict[str, object]:
        namespace: dict[str, object] = {"__name__": "example", **names}
        # The one thing that cannot be had here is a bucket of the company.
        exec(compile(source.replace("s3://company/handbook", "documents"), "example", "exec"), namespace)  # noqa: S102
        return namespace


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    made = Sandbox(tmp_path_factory.mktemp("sandbox"))
    made.postgres.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        patch.setenv("INGEST_CORPUS", "documents")
        made.run("from ingest_pipeline import open_corpus\nwith open_corpus() as corpus: corpus.ingest()")
        yield made
    made.postgres.release()


@pytest.mark.parametrize("block", [one for one in _of("python") if one.page.name not in _TESTED_ELSEWHERE], ids=str)
def test_each_program_runs(block: Block, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sandbox.folder)
    monkeypatch.setenv("INGEST_CORPUS", "documents")
    monkeypatch.setenv("HANDBOOK_DATABASE_URL", "")
    if block.page.name == "access.md":
        _run_with_access(block, sandbox)
        return
    with _own_telemetry(monkeypatch):
        sandbox.run(block.text)


@contextmanager
def _own_telemetry(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Undo what a program configures for the process: OpenTelemetry's provider, and the loggers of the engine."""

    def use(provider: TracerProvider) -> None:
        monkeypatch.setattr(spans, "_tracer", provider.get_tracer("ingest_pipeline"))

    monkeypatch.setattr(trace, "set_tracer_provider", use)
    logger = logging.getLogger("ingest_pipeline")
    before, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = before
    logger.setLevel(level)


def _run_with_access(block: Block, sandbox: Sandbox) -> None:
    from ingest_pipeline import open_corpus  # noqa: PLC0415

    options = yaml.safe_load(next(one.text for one in _of("yaml") if one.page == block.page))
    with open_corpus(CorpusConfig(corpus="restricted", source="documents", **options)) as corpus:
        corpus.ingest()
        assert {hit.document for hit in corpus.search("notice period", principals=["bob"])} == {"leave.md"}
        sandbox.run(block.text, corpus=corpus)


@pytest.mark.parametrize("block", _of("sql"), ids=str)
def test_each_statement_is_executed(block: Block, sandbox: Sandbox) -> None:
    text = block.text
    if not text.lower().startswith(("select", "--")):  # a condition
        text = f"SELECT FROM ingest_pipeline.document WHERE {text}".replace("= v", "= 1").replace("> v", "> 1")
    with psycopg.connect(sandbox.postgres.start()) as connection:
        connection.execute(text.encode())


@pytest.mark.soak
def test_the_first_tutorial_runs_as_it_is_printed(tmp_path: Path) -> None:
    """All but the installation, the web UI and what needs a bucket, in a folder whose .venv is that of this process."""
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    blocks = [block.text for block in _of("sh") if block.page.name == "first_corpus.md"]
    script = "".join(text for text in blocks if not re.search(r"^make |s3://|^ingest-pipeline ui$", text, re.MULTILINE))
    assert script.count("ingest-pipeline ") == 9
    environment = {"HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    vacation, _, bus = done.stdout.partition("rolled back")
    assert "Employees have thirty days" in vacation
    assert "Train tickets are paid" in bus
    assert "bus tickets" not in bus.replace("Are bus tickets paid?", "")
