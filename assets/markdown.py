"""Markdown metadata: the only place where text of documents becomes Markdown for Dagster.

Dagster's web UI renders Markdown metadata as soon as a page shows it, and loads the images that it names. An image may
name the UI's own `/graphql`, which executes mutations sent by GET. So text that a document, a file name or an error
brings is Markdown only inside a code block which the text cannot leave; tables are table metadata.
"""

import re
from collections.abc import Iterable

import dagster as dg

_MIN_FENCE = 3
# What a heading may hold: nothing that Markdown, or an extension that makes links of addresses, reads as a sign.
_NO_HEADING = re.compile(r"[^A-Za-z0-9, ]+")


def code_blocks(blocks: Iterable[tuple[str, str]]) -> dg.MetadataValue:
    """Texts that are shown literally, whatever they contain.

    Args:
        blocks: A heading and a text each. Of the heading, letters, digits, commas and spaces are shown.
    """
    return dg.MetadataValue.md("\n\n".join(_block(heading, text) for heading, text in blocks))


def _block(heading: str, text: str) -> str:
    fence = _fence(text)
    return f"**{_NO_HEADING.sub(' ', heading).strip()}**\n\n{fence}text\n{text}\n{fence}"


def _fence(text: str) -> str:
    """A fence that no line of the text closes: CommonMark ends a code block at a run that is as long, or longer."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    return "`" * max(_MIN_FENCE, longest + 1)
