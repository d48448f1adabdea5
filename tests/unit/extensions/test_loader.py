"""Extensions are named by dotted paths, mappings or objects, and every mistake names the option."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingest_pipeline import CorpusConfig
from ingest_pipeline.errors import ConfigurationError
from tests.support import user_code

LINES = "tests.support.user_code.Lines"
TITLE = "tests.support.user_code.Title"


def config(**options: object) -> CorpusConfig:
    return CorpusConfig(corpus="books", source="documents", **options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "value", [LINES, [LINES], {"class": LINES}, user_code.Lines(), [user_code.Lines()], user_code.Lines]
)
def test_each_form_names_the_same_extension(value: object) -> None:
    (parser,) = config(parser=value).extensions.parsers
    assert parser.suffixes == (".lines",)


@pytest.mark.parametrize(
    "text", [LINES, json.dumps(LINES), json.dumps([LINES]), json.dumps({"class": LINES, "arguments": {"upper": True}})]
)
def test_the_environment_takes_a_path_or_json(text: str) -> None:
    found = CorpusConfig.from_environment({"INGEST_PARSER": text})
    (parser,) = found.extensions.parsers
    assert parser.suffixes == (".lines",)
    assert found.replace(chunk_size=500).extensions == found.extensions


def write_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "user_broken.py").write_text("import no_such_library\n")
    (folder / "user_exiting.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("Lines", "is 'Lines', which is not the dotted path of a class"),
        ("a b.c", "which is not the dotted path of a class"),
        (3, "is 3. Write it as the dotted path"),
        ([[LINES]], "Write it as the dotted path"),
        ({"path": LINES}, r"has an entry with \['path'\]"),
        ({"class": LINES, "arguments": 3}, "has an entry with"),
        ("no_such_package.module.Parser", "there is no module 'no_such_package'. Correct the name, install"),
        ("tests.support.no_such_module.Parser", "there is no module 'tests.support.no_such_module'"),
        ("tests.support.user_code.Missing", "but module 'tests.support.user_code' has no 'Missing'"),
        ("tests.support.user_code.WRONG_SPANS", "which is not a class"),
        ("user_broken.Parser", "cannot be imported: ModuleNotFoundError: No module named 'no_such_library'"),
        ("user_exiting.Parser", "cannot be imported: SystemExit: 3"),
        ({"class": LINES, "arguments": {"lower": 1}}, r"cannot be created with its arguments \(lower\): TypeError"),
        (TITLE, "has no 'parse', which every parser must have"),
        ({"class": LINES, "arguments": {"fingerprint": ""}}, "has the fingerprint '', which is not a text of 1 to 200"),
        ({"class": LINES, "arguments": {"fingerprint": 7}}, "has the fingerprint 7"),
    ],
)
def test_a_mistake_names_the_option(
    value: object, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_module(tmp_path, monkeypatch)
    with pytest.raises(ConfigurationError, match=problem) as refusal:
        config(parser=value)
    assert "parser" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_mistake_in_the_environment_names_the_variable() -> None:
    with pytest.raises(ConfigurationError, match=r"INGEST_ENRICHER is not valid JSON"):
        CorpusConfig.from_environment({"INGEST_ENRICHER": "[{"})
    with pytest.raises(ConfigurationError, match=r"INGEST_CHUNKER names 'no_such\.Chunker'"):
        CorpusConfig.from_environment({"INGEST_CHUNKER": "no_such.Chunker"})


def test_two_chunkers_are_refused() -> None:
    path = "tests.support.user_code.ObedientChunker"
    with pytest.raises(ConfigurationError, match="names more than one chunker"):
        config(chunker=[path, path])


def test_all_fingerprints_are_in_the_recipe_and_a_parsers_only_in_that_of_its_suffixes() -> None:
    plain = config().recipe
    own = config(parser=LINES, chunker="tests.support.user_code.ObedientChunker", enricher=[TITLE]).recipe
    assert (own.user_chunker, own.enrichers) == ("obedient-chunker", ("title-1",))
    assert own.parsers == ((".lines", "lines-1"),)
    parsed = config(parser=LINES).recipe
    changed = config(parser={"class": LINES, "arguments": {"fingerprint": "lines-2"}}).recipe
    assert len({one.fingerprint for one in (plain, own, parsed, changed)}) == 4
    assert plain.fingerprint_of("a.md") == parsed.fingerprint_of("a.md") == changed.fingerprint_of("a.md")
    assert len({one.fingerprint_of("x/A.Lines") for one in (plain, parsed, changed)}) == 3
    assert parsed.fingerprints == {parsed.fingerprint_of("a.md"), parsed.fingerprint_of("a.lines")}
