"""Real English prose of any size, never the same paragraph twice, and the same on every run."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from pydoc_data.topics import topics

_DOCUMENTED = """
argparse ast asyncio collections configparser contextlib csv datetime _pydecimal difflib doctest email enum fractions
functools heapq http.client imaplib inspect io json logging mailbox optparse os pathlib pickle random shutil sqlite3
statistics string subprocess tarfile textwrap threading turtle typing unittest.mock urllib.request uuid zipfile
"""


@cache
def _paragraphs() -> list[str]:
    """The language reference of the running Python, and docstrings of its library."""
    texts = [*topics.values()]
    for name in _DOCUMENTED.split():
        module = import_module(name)
        texts += filter(None, (inspect.getdoc(thing) for thing in [module, *vars(module).values()]))
    parts = dict.fromkeys(part.strip() for text in texts for part in text.split("\n\n"))
    return [part for part in parts if 80 < len(part) < 2000]


def prose(seed: int | str) -> Iterator[str]:
    """Paragraphs without end. A number makes each unique, as otherwise its vector would be embedded once only."""
    chosen = random.Random(seed)  # noqa: S311  repeatable, not secret
    while True:
        head, _, rest = chosen.choice(_paragraphs()).partition(" ")
        yield f"{head} {chosen.getrandbits(48):x} {rest}\n\n"


def write_document(path: Path, size: int) -> None:
    """A document of about ``size`` bytes, whose name decides its text."""
    with path.open("w") as file:
        written = 0
        for paragraph in prose(path.name):
            written += file.write(paragraph)
            if written >= size:
                break


def write_documents(folder: Path, count: int, size: int) -> None:
    """A folder of documents."""
    folder.mkdir(parents=True)
    for number in range(count):
        write_document(folder / f"{number:05}.txt", size)


def edit(path: Path) -> None:
    """Put one sentence into the middle of a document, at the start of a paragraph."""
    text = path.read_text()
    middle = text.index("\n\n", len(text) // 2) + 2
    path.write_text(f"{text[:middle]}This sentence was added. {text[middle:]}")
