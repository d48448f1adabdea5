"""The contents in which readers may see each document: every state, recorded before the driver writes the file."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.types import TextPiece

QUESTION = "Question about"
"""The beginning of each question of the golden set, which no document has."""
_ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class State:
    """One content of a file."""

    key: str
    sequence: int
    """Number of the state among those of its key; 0 is the state before the first file."""
    text: str | None
    """The text. None: there is no file."""
    bad: bool = False
    """The file cannot be ingested, so the published version stays."""


def fingerprint(text: str | None) -> str:
    """A hash that is equal for texts that differ in white space only, which the chunker may drop."""
    return _ABSENT if text is None else hashlib.sha256("".join(text.split()).encode()).hexdigest()


def mark_of(key: str) -> str:
    """What every text of a document has, and nothing else has."""
    return f"{key} generation "


class Contents:
    """The states of all keys, recorded by the driver and queried by readers.

    Args:
        chunker: The chunker of the corpus, to know which texts have to be embedded.
    """

    def __init__(self, chunker: Chunker) -> None:
        self._chunker = chunker
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._current: dict[str, State] = {}
        self._changed: dict[str, float] = {}
        self._visible: defaultdict[str, dict[int, str]] = defaultdict(lambda: {0: _ABSENT})
        self._last_bad: dict[str, int] = {}
        self._needed: Counter[str] = Counter()

    def begin(self, key: str, text: str | None, *, bad: bool = False) -> State:
        """Record a state before the source has it."""
        with self._lock:
            self._counts[key] += 1
            state = State(key, self._counts[key], text, bad)
            if bad:
                self._last_bad[key] = state.sequence
            else:
                self._visible[key][state.sequence] = fingerprint(text)
            before = self._current.get(key)
        had = set() if before is None or before.bad else self._chunks(before.text)
        with self._lock:
            self._needed.update(self._chunks(text) - had)
        return state

    def done(self, state: State) -> None:
        """Record that the source has the state."""
        with self._lock:
            self._current[state.key] = state
            self._changed[state.key] = time.monotonic()

    def current(self) -> dict[str, State]:
        """The content of the source, by key, removed files included."""
        with self._lock:
            return dict(self._current)

    def settled(self, seconds: float) -> dict[str, State]:
        """The content of the source without files that were emptied more recently than this, which runs skip."""
        with self._lock:
            recent = {key for key, changed in self._changed.items() if time.monotonic() - changed < seconds}
            return {key: state for key, state in self._current.items() if state.text != "" or key not in recent}

    def known(self) -> list[str]:
        with self._lock:
            return list(self._visible)

    def sequences(self, key: str, seen: str) -> list[int]:
        """The states of a key with this content, ascending; empty if the key never had this content."""
        with self._lock:
            return [number for number, visible in self._visible[key].items() if visible == seen]

    def turned_bad_after(self, state: State) -> bool:
        """Whether the file could not be ingested at some time after it had this state."""
        with self._lock:
            return self._last_bad.get(state.key, -1) > state.sequence

    def needed(self) -> Counter[str]:
        """How often each text entered the corpus, which is how often it had to be embedded at most."""
        with self._lock:
            return self._needed.copy()

    def _chunks(self, text: str | None) -> set[str]:
        pieces = [] if text is None else [TextPiece(text)]
        return {chunk.text for chunk in self._chunker.chunks(pieces, markdown=False)}
