"""Golden sets are read from three formats, and a malformed one is named with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.gates.golden_set import GoldenQuestion, read_golden_set

QUESTIONS = (
    GoldenQuestion("How much, and when?", documents=("a b.md", "c.md")),
    GoldenQuestion("Who?", chunks=("id-1",), texts=("the head, of all",)),
)
JSON_LINES = """{"query": "How much, and when?", "documents": ["a b.md", "c.md", "c.md"]}

{"query": "Who?", "chunks": "id-1", "texts": ["the head, of all"]}
"""
YAML = """
- query: How much, and when?
  documents: [a b.md, c.md]
- {query: "Who?", chunks: [id-1], texts: ["the head, of all"]}
"""
CSV = """query,documents,chunks,texts
"How much, and when?",a b.md | c.md,,
Who?,,id-1,"the head, of all"
"""


@pytest.mark.parametrize(
    ("suffix", "text"), [(".jsonl", JSON_LINES), (".yaml", YAML), (".csv", CSV), (".csv", f"\ufeff{CSV}")]
)
def test_each_format_has_the_same_questions(tmp_path: Path, suffix: str, text: str) -> None:
    file = tmp_path / f"golden{suffix}"
    file.write_text(text)
    assert read_golden_set(str(file)) == QUESTIONS


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".txt", "", "none of the suffixes"),
        (".jsonl", "", "has no questions"),
        (".yaml", "", "has no questions"),
        (".jsonl", "{", "cannot be read: Expecting"),
        (".jsonl", "[]", "has no mapping in line 1"),
        (".jsonl", '{"documents": ["a"]}', "has no query in line 1"),
        (".jsonl", '{"query": " ", "documents": ["a"]}', "has no query in line 1"),
        (".jsonl", '\n{"query": "a"}', "expects neither documents nor chunks nor texts in line 2"),
        (".jsonl", '{"query": "a", "documents": [1]}', "has documents that are not a list of texts in line 1"),
        (".yaml", "query: a\nkeys: [b]", "has the unknown name 'keys' in question 1"),
        (".yaml", "a: [", "cannot be read"),
        (".csv", "query,documents\na,", "expects neither documents nor chunks nor texts in line 2"),
    ],
)
def test_a_malformed_one_is_refused_in_one_line(tmp_path: Path, suffix: str, text: str, message: str) -> None:
    file = tmp_path / f"golden{suffix}"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        read_golden_set(str(file))
    assert message in str(refused.value)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_golden_set(str(tmp_path / "golden.jsonl"))


def test_a_key_that_json_escapes_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_text(json.dumps({"query": "caf\u00e9\u2028", "documents": ["d\u2028\u00e9.md"]}, ensure_ascii=False))
    assert read_golden_set(str(file)) == (GoldenQuestion("caf\u00e9\u2028", documents=("d\u2028\u00e9.md",)),)
