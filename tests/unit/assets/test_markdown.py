"""Text of documents, file names and errors reaches Dagster's Markdown through one function, and stays text there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ingest_pipeline.assets.markdown import code_blocks

pytestmark = pytest.mark.promise("markdown")

_ROOT = Path(__file__).parents[3]
_GATE = _ROOT / "assets" / "markdown.py"
_IMAGE = "![](/graphql?query=mutation%20x)"
_MAKERS = {"md", "MarkdownMetadataValue"}


def _shown(heading: str, text: str) -> tuple[set[str], str]:
    """Kinds of the tokens that a CommonMark parser finds, and the content of the code block."""
    tokens = MarkdownIt("commonmark").parse(str(code_blocks([(heading, text)]).value))
    inline = [child.type for token in tokens for child in token.children or []]
    return {token.type for token in tokens} | set(inline), next(one.content for one in tokens if one.type == "fence")


@pytest.mark.parametrize("ticks", [3, 4, 5, 200])
def test_a_text_of_backticks_does_not_leave_its_code_block(ticks: int) -> None:
    fence = "`" * ticks
    text = f"before\n{fence}\n{_IMAGE}\n   {fence}text\n{_IMAGE}"
    kinds, content = _shown("Chunk 1, characters 0 to 9", text)
    assert content == f"{text}\n"
    assert kinds == {"paragraph_open", "inline", "strong_open", "text", "strong_close", "paragraph_close", "fence"}


@given(text=st.text(alphabet="`~\n\r !#<>[]()-=|\\\tab", max_size=60))
def test_no_text_leaves_its_code_block(text: str) -> None:
    kinds, content = _shown("Chunk 1", text)
    assert content == f"{text}\n".replace("\r\n", "\n").replace("\r", "\n")
    assert not kinds & {"image", "link_open", "html_block", "html_inline", "heading_open"}


@given(text=st.text(alphabet="ab `~\n", max_size=300))
@example(text="some words and ```` " * 20)
def test_long_lines_are_wrapped_between_words_and_stay_in_their_code_block(text: str) -> None:
    kinds, content = _shown("Chunk 1", text)
    assert content.split() == text.split()
    assert all(len(line) <= 60 or " " not in line.strip() for line in content.splitlines())
    assert not kinds & {"image", "link_open", "html_block", "html_inline", "heading_open"}


def test_short_lines_stay_as_they_are() -> None:
    text = "  indented,\twith a tab  \n\n\nend"
    assert _shown("Chunk 1", text)[1] == f"{text}\n"


def test_a_heading_holds_no_markdown() -> None:
    kinds, _ = _shown(f"a {_IMAGE} <b> www.example.org [x](y) `c`", "text")
    assert kinds == {"paragraph_open", "inline", "strong_open", "text", "strong_close", "paragraph_close", "fence"}


def test_nothing_else_makes_markdown() -> None:
    packages = [_ROOT / "ingest_pipeline", _ROOT / "assets", _ROOT / "resources"]
    files = {path.resolve() for package in packages for path in package.rglob("*.py")} - {_GATE}
    assert len(files) > 80
    found = {str(path.relative_to(_ROOT)): made for path in files if (made := _made_in(path))}
    assert found == {}, "use assets/markdown.py for texts, and table metadata for tables"


def test_the_gate_makes_markdown_in_one_place() -> None:
    calls = [node for node in ast.walk(ast.parse(_GATE.read_text())) if isinstance(node, ast.Call)]
    assert [ast.unparse(call.func) for call in calls].count("dg.MetadataValue.md") == 1


def _made_in(path: Path) -> list[str]:
    """Places of a module that make Markdown metadata, or could: the maker under another name, or looked up by name."""
    return [
        f"line {node.lineno}"
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute | ast.alias) and _name(node) in _MAKERS)
        or (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "getattr"
            and re.search(r"\bmd\b", ast.unparse(node))
        )
    ]


def _name(node: ast.Attribute | ast.alias) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.name
