"""Output of the commands: text without control characters for a terminal, or one JSON value for programs.

Every command imports this module, also `--help`, so it imports little but click.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap

import click

# Control characters except newline and tab, unpaired surrogates, and characters that change the writing direction.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Escape characters that a terminal interprets as commands or as a change of the writing direction."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def echo(text: str, *, err: bool = False) -> None:
    """Print text with unprintable characters escaped, because it may quote file names, documents and errors."""
    shown = printable(text)
    click.echo(_folded(shown) if (sys.stderr if err else sys.stdout).isatty() else shown, err=err)


def _folded(text: str) -> str:
    """Text that is folded between words. A terminal breaks long lines within a word."""
    width = shutil.get_terminal_size().columns
    return "\n".join(
        textwrap.fill(
            line,
            width,
            subsequent_indent=line[: len(line) - len(line.lstrip())],
            expand_tabs=False,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.split("\n")
    )


def print_json(value: object) -> None:
    """Print one JSON value. Values without a JSON type are printed as text."""
    # JSON has escapes of its own for these characters.
    text = json.dumps(value, default=str, ensure_ascii=False, indent=2)
    click.echo(_UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
