"""The files that `init` writes, and the scripts that complete commands in a shell."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from ingest_pipeline.cli import _template
from ingest_pipeline.cli.main import main
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.config.options.corpus_options import CorpusOptions
from ingest_pipeline.config.project import configured_corpus

# Options that need others, or code of a user that the example only names.
_NOT_ALONE = {
    "access",
    "chunker",
    "columns_from_key",
    "columns_from_tags",
    "embedder",
    "enricher",
    "enricher_prices",
    "events",
    "parser",
    "reranker",
    "tokenizer",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("INGEST_", "OPENAI_")):
            monkeypatch.delenv(name)
    return tmp_path


def ran(*arguments: str) -> str:
    done = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_the_configuration_that_init_writes_has_the_defaults(folder: Path) -> None:
    said = ran("init", "handbook", "--source", "files")
    assert "The folder files does not exist yet" in said
    written = configured_corpus("handbook").config
    expected = CorpusConfig(corpus="handbook", source=str(folder / "files"), state=str(folder / ".ingest_pipeline"))
    assert written.model_dump() == expected.model_dump()


def test_every_option_is_in_the_file_or_among_the_variables() -> None:
    text = _template.configuration("handbook", "files")
    named = {*re.findall(r"^(?:# )?(\w+) = ", text, re.MULTILINE), "corpus"}
    secret = {"database_url", "embedding_api_key", "rerank_api_key"}
    assert named == CorpusOptions.model_fields.keys() - secret
    assert "..." not in text
    assert all(len(line) <= 120 for line in text.splitlines())
    assert "INGEST_DATABASE_URL" in _template.variables()


@pytest.mark.parametrize("name", sorted(CorpusOptions.model_fields.keys() - _NOT_ALONE))
def test_a_comment_of_the_file_is_valid_once_it_is_uncommented(name: str) -> None:
    text = _template.configuration("handbook", "files")
    table = tomllib.loads(re.sub(rf"^# ({name} = )", r"\1", text, flags=re.MULTILINE))["corpora"]["handbook"]
    CorpusConfig(corpus="handbook", **table)


def test_what_exists_is_not_changed(folder: Path) -> None:
    (folder / ".env.example").write_text("mine")
    ran("init")
    assert (folder / ".env.example").read_text() == "mine"
    (folder / "ingest-pipeline.toml").write_text("[corpora.mine]\nsource = 'a'\n")
    done = CliRunner().invoke(main, ["init"])
    assert (done.exit_code, "has a configuration already" in done.stderr) == (2, True)
    assert "mine" in (folder / "ingest-pipeline.toml").read_text()


@pytest.mark.parametrize(("arguments", "message"), [(["a b"], "a b"), (["docs", "--source", "ftp://x"], "ftp")])
def test_a_wrong_name_or_source_writes_nothing(folder: Path, arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(main, ["init", *arguments])
    assert (done.exit_code, message in done.stderr) == (2, True)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_calls_this_program(shell: str) -> None:
    script = ran("completion", shell)
    assert f"_INGEST_PIPELINE_COMPLETE={shell}_complete" in script
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_commands_and_options_are_completed() -> None:
    complete = ShellComplete(main, {}, "ingest-pipeline", "_INGEST_PIPELINE_COMPLETE")
    commands = complete.get_completions([], "st")
    assert [(one.value, one.help) for one in commands] == [
        ("status", "Show head, totals, unfinished sagas and failed documents.")
    ]
    assert {one.value for one in complete.get_completions(["search"], "--ex")} == {"--expand"}
    assert {one.value for one in complete.get_completions(["search", "--mode"], "h")} == {"hybrid"}
