"""Markdown metadata: the only place where text of documents becomes Markdown for Dagster.

Dagster's web UI renders Markdown metadata as soon as a page shows it, and loads the images that it names. An image may
name the UI's own `/graphql`, which executes mutations sent by GET. So text that a document, a file name or an error
contains is shown only inside a code block that the text cannot close; tables are table metadata.
"""

import re
from collections.abc import Iterable
from textwrap import wrap

import dagster as dg

_MIN_FENCE = 3
_WIDTH = 60
# Characters removed from headings: Markdown, or an extension that turns addresses into links, may interpret them.
_NO_HEADING = re.compile(r"[^A-Za-z0-9, ]+")


def code_blocks(blocks: Iterable[tuple[str, str]]) -> dg.MetadataValue:
    """Texts that are shown literally, whatever they contain. Long lines are wrapped between words.

    Args:
        blocks: Pairs of a heading and a text. Only letters, digits, commas and spaces of the heading are shown.
    """
    return dg.MetadataValue.md("\n\n".join(_block(heading, text) for heading, text in blocks))


def _block(heading: str, text: str) -> str:
    # Dagster's UI does not wrap code blocks: a paragraph on one line would leave the page.
    text = "\n".join(map(_wrapped, text.split("\n")))
    fence = _fence(text)
    return f"**{_NO_HEADING.sub(' ', heading).strip()}**\n\n{fence}text\n{text}\n{fence}"


def _wrapped(line: str) -> str:
    if len(line) <= _WIDTH or len(line.split()) <= 1:
        return line
    return "\n".join(wrap(line, _WIDTH, break_long_words=False, break_on_hyphens=False))


def _fence(text: str) -> str:
    """A fence that is longer than all runs of backticks in the text, so no line of the text can close it."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    return "`" * max(_MIN_FENCE, longest + 1)
