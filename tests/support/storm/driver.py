"""Adds, edits, removes and brings back files at random, as their owners would."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Protocol

from tests.support.servers.embedding_server import POISON
from tests.support.servers.s3 import S3Server
from tests.support.storm.contents import Contents, State, mark_of
from tests.support.storm.figures import Figures

_PATIENCE = 50


class Files(Protocol):
    """The place of the documents."""

    def put(self, key: str, body: bytes) -> None:
        """Replace a file atomically: no reader sees a part of it."""

    def remove(self, key: str) -> None:
        """Remove a file. A missing file is no error."""


class FolderFiles:
    """A folder of this machine.

    Args:
        root: The source.
        spool: Folder in which files are written before they are renamed.
    """

    def __init__(self, root: Path, spool: Path) -> None:
        self._root, self._spool = root, spool

    def put(self, key: str, body: bytes) -> None:
        self._spool.write_bytes(body)
        self._spool.replace(self._root / key)

    def remove(self, key: str) -> None:
        (self._root / key).unlink(missing_ok=True)


class S3Files:
    """A prefix of a bucket on a server that fails now and then."""

    def __init__(self, server: S3Server, prefix: str) -> None:
        self._server, self._prefix = server, prefix

    def put(self, key: str, body: bytes) -> None:
        self._insist(lambda: self._server.put(f"{self._prefix}/{key}", body))

    def remove(self, key: str) -> None:
        self._insist(lambda: self._server.delete(f"{self._prefix}/{key}"))

    def _insist(self, call: object) -> None:
        assert callable(call)
        for _ in range(_PATIENCE):
            try:
                call()
            except (OSError, AssertionError):
                continue
            return
        raise AssertionError("the S3 server refuses everything")


def keys_of(documents: int) -> list[str]:
    """The keys of so many documents."""
    return [f"doc{number:03}.txt" for number in range(documents)]


class Driver:
    """One random change at a time.

    Args:
        files: The source.
        contents: Records every state before it is written.
        documents: Number of keys.
        random: Generator of this driver's choices.
        figures: Counters of the storm.
    """

    def __init__(self, files: Files, contents: Contents, documents: int, random: Random, figures: Figures) -> None:
        self._files, self._contents, self._random, self._figures = files, contents, random, figures
        self._keys = keys_of(documents)
        self._generation = 0

    def once(self) -> None:
        """Change one file."""
        key = self._random.choice(self._keys)
        state = self._contents.current().get(key)
        if state is None or state.text is None or state.bad:
            self._write(key, self._fresh(key), "put" if state is None else "brought back")
            return
        changes = {"edited": 6, "extended": 3, "removed": 2, "emptied": 1, "turned bad": 1, "touched": 1}
        change = self._random.choices(list(changes), list(changes.values()))[0]
        match change:
            case "extended":
                self._write(key, f"{state.text}\n\n{self._fresh(key)}", change)
            case "removed":
                self._write(key, None, change)
            case "emptied":
                self._write(key, "", change)
            case "turned bad":
                self._write(key, self._random.choice([f"{POISON} {key}", f"\0\1\2 {key}"]), change, bad=True)
            case "touched":
                self._write(key, state.text, change)
            case _:
                self._write(key, self._fresh(key), change)

    def restore_bad_files(self) -> None:
        """Make every second bad file valid again. The others stay bad until the end."""
        for key, state in self._contents.current().items():
            if state.bad and state.text and self._random.random() < 0.5:
                self._write(key, self._fresh(key), "repaired")

    def _write(self, key: str, text: str | None, change: str, *, bad: bool = False) -> State:
        state = self._contents.begin(key, text, bad=bad)
        if text is None:
            self._files.remove(key)
        else:
            self._files.put(key, text.encode())
        self._contents.done(state)
        self._figures.count(f"files: {change}")
        return state

    def _fresh(self, key: str) -> str:
        """A text that no document ever had, with its number in every chunk."""
        self._generation += 1
        size = self._random.choice([1, 2, 3, 5, 8, 40])
        stem = f"{mark_of(key)}{self._generation} of {os.getpid()}"
        words = f"{stem} words "
        return "\n\n".join(f"{stem} paragraph {n}. " + words * (700 // len(words)) for n in range(size))
